"""Container logs: drivers, their pumps, and `docker logs`."""

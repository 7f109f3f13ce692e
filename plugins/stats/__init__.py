"""What containers use of the machine: `docker stats`."""

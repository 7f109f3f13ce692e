"""Health checks of containers."""

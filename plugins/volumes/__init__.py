"""Volumes, bind mounts and tmpfs."""

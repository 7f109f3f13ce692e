"""Runs containers with an OCI runtime (crun, runc, ...) under conmon."""

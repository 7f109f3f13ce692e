"""Registries: manifests, blobs and logins by the OCI distribution protocol."""

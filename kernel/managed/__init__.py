"""Managed plugins: `config.json` + `rootfs`, in any language. Here: their store; running them comes with their life cycle."""

from kernel.managed.store import ManagedStore

__all__ = ["ManagedStore"]

"""Managed plugins: `config.json` + `rootfs`, kept in the engine's own store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO, Protocol

from kernel.contracts.common import Wire


class ManagedPlugin(Wire):
    """A managed plugin as stored.

    Attributes:
        Id: 64 hex digits.
        Name: reference "repo:tag".
        Config: its `config.json`, keys in the API's spelling, unknown ones kept.
        Settings: `{"Env", "Args", "Mounts", "Devices"}`, defaults filled in from the config.
    """

    Id: str
    Name: str
    Enabled: bool = False
    Config: dict[str, Any] = {}
    Settings: dict[str, Any] = {}
    PluginReference: str = ""
    Created: str = ""


class ManagedPlugins(Protocol):
    """Kernel service: the managed plugins. `ref` is a name, an ID, or a unique prefix of an ID."""

    def get(self, ref: str) -> ManagedPlugin:
        """Raises NotFound (`plugin "REF" not found`)."""

    def list(self) -> Sequence[ManagedPlugin]:
        """All; a snapshot."""

    async def create(self, name: str, archive: BinaryIO) -> ManagedPlugin:
        """From a tar with `config.json` and `rootfs/`. Raises InvalidParameter with the field's path, or Conflict."""

    async def remove(self, ref: str, *, force: bool = False) -> ManagedPlugin:
        """Raises Conflict while enabled and not forced."""

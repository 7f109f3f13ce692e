"""Plugins in a process of their own, managed and old-style ones; fulfils `contracts.managed.ManagedPlugins`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from kernel.errors import NotFound
from kernel.managed.interfaces import Interfaces, capability
from kernel.managed.oldstyle import OldStyle
from kernel.managed.store import ManagedStore

if TYPE_CHECKING:
    from kernel.context import Services
    from kernel.contracts.events import EventBus
    from kernel.contracts.managed import ManagedPlugin
    from kernel.contracts.plugin import Hooks
    from kernel.contracts.state import StateStore
    from kernel.drivers import DriverRegistry
    from kernel.managed.peer import Peer

FOLDER = "plugins"
"""Folder of managed plugins under the data root, and of their sockets under the exec root."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What managed plugins work with.

    Attributes:
        old_style: folders with sockets and .spec and .json files.
    """

    data_root: Path
    exec_root: Path
    state: StateStore
    events: EventBus
    hooks: Hooks
    drivers: DriverRegistry
    services: Services
    old_style: Sequence[str]


class ManagedService:
    """See the module."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._store = ManagedStore(parts.data_root / FOLDER, parts.state, parts.events, parts.hooks)
        self._interfaces = Interfaces(parts.hooks, parts.drivers)
        self._old_style = OldStyle(
            [Path(folder) for folder in parts.old_style], parts.exec_root / FOLDER / "shared", self._interfaces
        )
        parts.drivers.seek = self._seek

    async def restore(self) -> None:
        """After the plugins in the daemon have started."""
        await self._store.restore()

    async def stop(self) -> None:
        """Let go of all plugins; they go on."""
        await self._old_style.close()

    async def rewire(self) -> None:
        """A plugin in the daemon came or went, and adapters with it."""
        await self._interfaces.rewire()

    def get(self, ref: str) -> ManagedPlugin:
        """See `ManagedPlugins.get`."""
        return self._store.get(ref)

    def list(self) -> Sequence[ManagedPlugin]:
        """See `ManagedPlugins.list`."""
        return self._store.list()

    async def create(self, name: str, archive: BinaryIO) -> ManagedPlugin:
        """See `ManagedPlugins.create`."""
        return await self._store.create(name, archive)

    async def remove(self, ref: str, *, force: bool = False) -> ManagedPlugin:
        """See `ManagedPlugins.remove`."""
        return await self._store.remove(ref, force=force)

    async def peer(self, name: str, capability: str) -> Peer:
        """See `ManagedPlugins.peer`."""
        peer = await self._reach(name)
        if peer is None:
            raise NotFound(f'plugin "{name}" not found')
        if not _implements(peer, capability):
            raise NotFound(f'plugin "{name}" does not implement {capability}')
        return peer

    async def _seek(self, name: str) -> None:
        await self._reach(name)

    async def _reach(self, name: str) -> Peer | None:
        return await self._old_style.activate(name)


def _implements(peer: Peer, wanted: str) -> bool:
    return wanted.lower() in {capability(interface) for interface in peer.interfaces}

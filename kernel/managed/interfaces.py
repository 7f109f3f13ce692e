"""From a plugin on a socket to drivers: finds the adapters of its interfaces and keeps what they made."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kernel.contracts.managed import InterfaceAdapter
from kernel.contracts.plugin import DriverSpec
from kernel.errors import DeadlineExceeded, EngineError, PluginError

if TYPE_CHECKING:
    from kernel.contracts.plugin import Hooks
    from kernel.contracts.runtime import OciMount
    from kernel.drivers import DriverRegistry
    from kernel.managed.peer import Peer

CONNECT_SECONDS = 30.0
"""Seconds within which an adapter has asked a plugin all that it wants to know at first."""
DISCONNECT_SECONDS = 10.0

_TYPE = re.compile(r"(?P<prefix>.*)\.(?P<capability>[^./]+)/(?P<major>\d+)[^/]*\Z")

log = logging.getLogger("engine.managed")


def normal(interface: str) -> str:
    """ "docker.volumedriver/1" of "docker.VolumeDriver/1.0"; "" for what is no interface type."""
    found = _TYPE.match(interface.strip().lower())
    return f"{found['prefix']}.{found['capability']}/{found['major']}" if found else ""


def capability(interface: str) -> str:
    """ "volumedriver" of "docker.volumedriver/1.0"; "" for what is no interface type."""
    found = _TYPE.match(interface.strip().lower())
    return found["capability"] if found else ""


@dataclass(slots=True)
class _Connected:
    peer: Peer
    adapters: dict[str, InterfaceAdapter] = field(default_factory=dict)


class Interfaces:
    """All plugins that are connected, and their drivers."""

    def __init__(self, hooks: Hooks, drivers: DriverRegistry) -> None:
        self._hooks, self._drivers = hooks, drivers
        self._connected: dict[str, _Connected] = {}

    def adapters(self) -> dict[str, InterfaceAdapter]:
        """Normal interface type to adapter, of the plugins that run now."""
        found: dict[str, InterfaceAdapter] = {}
        for plugin, contributed in self._hooks.sync("engine_managed_interfaces"):
            for interface, adapter in dict(contributed).items():
                if not isinstance(adapter, InterfaceAdapter) or not normal(interface):
                    log.error("plugin %r: engine_managed_interfaces: %r: %r is left out", plugin, interface, adapter)
                    continue
                found.setdefault(normal(interface), adapter)
        return found

    def of_legacy(self, implements: Sequence[str]) -> list[str]:
        """Interface types that the names in an old-style plugin's `Implements` stand for."""
        named = {name.lower() for name in implements}
        return [interface for interface, adapter in self.adapters().items() if adapter.legacy.lower() in named]

    async def mounts(self, interfaces: Sequence[str]) -> list[OciMount]:
        """What plugins of these interfaces must find in their containers."""
        wanted = {normal(interface) for interface in interfaces}
        found: list[OciMount] = []
        for interface, adapter in self.adapters().items():
            if interface in wanted:
                found += await _within(CONNECT_SECONDS, adapter.mounts(), f"the adapter for {interface}")
        return found

    async def connect(self, peer: Peer) -> None:
        """Make the plugin's drivers. All or nothing; connecting a connected plugin adds what is missing.

        Raises:
            EngineError: an adapter refused the plugin, or could not be served by it.
        """
        entry = self._connected.setdefault(peer.name, _Connected(peer))
        wanted = {normal(interface) for interface in peer.interfaces}
        try:
            for interface, adapter in self.adapters().items():
                if interface not in wanted or entry.adapters.get(interface) is adapter:
                    continue
                entry.adapters[interface] = adapter
                specs = await _within(CONNECT_SECONDS, adapter.connect(peer), f"plugin {peer.name!r}: {interface}")
                self._drivers.add(peer.name, _checked(peer.name, interface, specs))
        except BaseException:
            await asyncio.shield(self.disconnect(peer.name))
            raise

    async def disconnect(self, name: str) -> None:
        """Take a plugin's drivers away; adapters that fail at it are logged. Idempotent."""
        self._drivers.remove(name)
        entry = self._connected.pop(name, None)
        for interface, adapter in entry.adapters.items() if entry is not None else ():
            assert entry is not None
            try:
                await _within(DISCONNECT_SECONDS, adapter.disconnect(entry.peer), f"the adapter for {interface}")
            except Exception as error:  # noqa: BLE001 - the plugin goes in any case
                log.warning("plugin %r: %s: %s", name, interface, error)

    def peer(self, name: str) -> Peer | None:
        """The connected plugin of that name."""
        entry = self._connected.get(name)
        return entry.peer if entry is not None else None

    async def rewire(self) -> None:
        """The set of adapters may have changed: connect what can be connected now."""
        for entry in [*self._connected.values()]:
            try:
                await self.connect(entry.peer)
            except EngineError as error:
                log.warning("plugin %r cannot be connected: %s", entry.peer.name, error)


def _checked(name: str, interface: str, specs: Any) -> list[DriverSpec]:
    found = list(specs)
    for spec in found:
        if not isinstance(spec, DriverSpec) or spec.name != name:
            raise PluginError(name, interface, f"its adapter gave {spec!r:.80}, where a driver named {name!r} was due")
    return found


async def _within(seconds: float, work: Any, what: str) -> Any:
    timer = asyncio.timeout(seconds)
    try:
        async with timer:
            return await work
    except TimeoutError as error:
        if timer.expired():
            raise DeadlineExceeded(f"{what} did not answer within {seconds:g} s") from error
        raise

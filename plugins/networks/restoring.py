"""Bringing drivers and their networks in step: at the daemon's start, and whenever a plugin's driver comes later.

The start never waits for a plugin in a process of its own. A driver that is not registered yet is sought in the background.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from plugin_sdk import EngineError
from plugin_sdk.network import EndpointRecord, IpamDriver, NetworkDriver
from plugins.networks.allocating import replay
from plugins.networks.base import Base
from plugins.networks.pools import addresses_in
from plugins.networks.records import StoredNetwork

REGISTRATION = 60.0
"""Seconds within which the kernel takes a driver in after its adapter was called."""
_LOOK = 0.02


class Restorer:
    """See the module."""

    def __init__(self, base: Base) -> None:
        self._base = base

    async def start(self) -> None:
        """At the daemon's start: the drivers that are there now; the others in the background."""
        base = self._base
        await base.objects.settle_half_made()
        sought: set[str] = set()
        names = {name for network in self._networks() for name in _drivers(network)}
        for kind, restore in ((IpamDriver, self._ipam), (NetworkDriver, self._network)):
            registered = base.ctx.drivers.all(kind) if kind is NetworkDriver else {}
            for name in names | set(registered):
                if base.finder.local(kind, name):
                    await restore(name)
                elif kind not in self._kinds(name):
                    continue
                elif base.finder.present(kind, name) is not None:
                    self.arrived(kind, name)
                elif name not in sought:
                    sought.add(name)
                    base.ctx.spawn(self._seek(kind, name), name=f"wait for the plugin {name}")
        base.debts.restore()

    def arrived(self, kind: type[Any], name: str) -> None:
        """An adapter was called: in a moment the kernel knows the plugin's driver. Those who want it wait until its
        networks are in step."""
        base = self._base
        before = base.finder.settling.get(name)
        if before is None and kind not in self._kinds(name) and not base.debts.concern(name):
            return
        task = base.ctx.spawn(self._settle(kind, name, before), name=f"networks of {name}")
        base.finder.settling[name] = task
        base.finder.settlers.add(task)
        task.add_done_callback(lambda _: self._settled(name, task))

    def left(self, name: str) -> None:
        """The plugin is gone, perhaps before the kernel knew its drivers."""
        task = self._base.finder.settling.get(name)
        if task is not None:
            task.cancel()

    def _settled(self, name: str, task: asyncio.Task[None]) -> None:
        self._base.finder.settlers.discard(task)
        if self._base.finder.settling.get(name) is task:
            del self._base.finder.settling[name]

    async def _settle(self, kind: type[Any], name: str, before: asyncio.Task[None] | None) -> None:
        base = self._base
        if before is not None:
            await asyncio.wait([before])
        tries = 0
        while base.finder.present(kind, name) is None:
            if (tries := tries + 1) * _LOOK > REGISTRATION:
                return
            await asyncio.sleep(_LOOK)
        if kind in self._kinds(name):
            await (self._ipam(name) if kind is IpamDriver else self._network(name))
        await base.debts.due(name)

    async def _seek(self, kind: type[Any], name: str) -> None:
        """Have the driver's plugin started or activated; the rest follows from `arrived`."""
        theirs = ", ".join(network.Name for network in self._networks() if name in _drivers(network))
        try:
            await self._base.ctx.drivers.find(kind, name)
        except EngineError as error:
            self._base.ctx.log.warning("networks %s cannot be used before their plugin is there: %s", theirs, error)

    async def _ipam(self, name: str) -> None:
        """What is in use of an address manager's pools."""
        base = self._base
        networks = [network for network in self._networks() if network.IPAM.Driver == name]
        try:
            ipam = base.ctx.drivers.get(IpamDriver, name)
        except EngineError as error:
            base.ctx.log.warning("IPAM driver %s: %s", name, error)
            return
        if getattr(ipam, "requires_replay", False):
            for network in networks:
                try:
                    pools = await replay(ipam, network, base.plugged_into(network.Id))
                except EngineError as error:
                    base.ctx.log.warning("network %s: its addresses are not taken back: %s", network.Name, error)
                else:
                    if pools != network.IPAM.Config:
                        await base.objects.repool(network, pools)
            return
        pools_in_use: dict[str, tuple[str, str]] = {}
        addresses: dict[str, Sequence[str]] = {}
        for network in networks:
            plugged = base.plugged_into(network.Id)
            for pool in network.IPAM.Config:
                if pool.PoolID:
                    pools_in_use[pool.PoolID] = (pool.Subnet, pool.IPRange)
                    held = [pool.Gateway, *pool.AuxiliaryAddresses.values(), *addresses_in(pool, plugged)]
                    addresses[pool.PoolID] = [address for address in held if address]
        try:
            await ipam.restore(pools_in_use, addresses)
        except EngineError as error:
            base.ctx.log.warning("IPAM driver %s cannot restore its pools: %s", name, error)

    async def _network(self, name: str) -> None:
        """A driver's networks, and what is plugged into them."""
        base = self._base
        networks = [network for network in self._networks() if network.Driver == name]
        endpoints: list[EndpointRecord] = [e for network in networks for e in base.plugged_into(network.Id)]
        try:
            await base.ctx.drivers.get(NetworkDriver, name).restore(networks, endpoints)
        except EngineError as error:
            base.ctx.log.warning("network driver %s cannot restore its networks: %s", name, error)

    def _networks(self) -> list[StoredNetwork]:
        return [network for network in self._base.objects.list() if not network.ConfigOnly]

    def _kinds(self, name: str) -> list[type[Any]]:
        """As what the stored networks use the driver of that name."""
        networks = self._networks()
        used: list[type[Any]] = []
        if any(network.IPAM.Driver == name for network in networks):
            used.append(IpamDriver)
        if any(network.Driver == name for network in networks):
            used.append(NetworkDriver)
        return used


def _drivers(network: StoredNetwork) -> tuple[str, str]:
    return network.IPAM.Driver, network.Driver

"""Network and IPAM drivers by name."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from plugin_sdk import NotFound, PluginContext
from plugin_sdk.network import IpamDriver, NetworkDriver, NetworkRecord

T = TypeVar("T")

PATIENCE = 20.0
"""Seconds that a call waits for a driver whose networks are just being brought in step with it."""


class Finder:
    """Finds drivers; whoever wants one whose networks are just being restored waits for that.

    Attributes:
        settling: driver name to the work that brings it and its networks in step; the latest, where one waits for another.
        settlers: all such work; it waits for none.
    """

    def __init__(self, ctx: PluginContext) -> None:
        self._ctx = ctx
        self.settling: dict[str, asyncio.Task[None]] = {}
        self.settlers: set[asyncio.Task[None]] = set()

    async def network(self, name: str) -> NetworkDriver:
        """Raises NotFound (`plugin "NAME" not found`)."""
        return await self._find(NetworkDriver, name)

    async def ipam(self, name: str) -> IpamDriver:
        """Raises NotFound (`plugin "NAME" not found`)."""
        return await self._find(IpamDriver, name)

    def present(self, contract: type[T], name: str) -> T | None:
        """The driver if it is registered; never waits."""
        try:
            return self._ctx.drivers.get(contract, name)
        except NotFound:
            return None

    def local(self, contract: type[object], name: str) -> bool:
        """The driver is registered, and runs in the daemon: it answers at once, or its plugin is switched off."""
        driver = self.present(contract, name)
        return driver is not None and not getattr(driver, "remote", False)

    def local_both(self, network: NetworkRecord) -> bool:
        """`local` holds for both of a network's drivers."""
        return self.local(NetworkDriver, network.Driver) and self.local(IpamDriver, network.IPAM.Driver)

    def canonical(self, contract: type[object], name: str) -> str:
        """The name under which a driver that was found is known: "me/net:latest" for "me/net"."""
        return self._ctx.drivers.canonical(contract, name)

    async def _find(self, contract: type[T], name: str) -> T:
        drivers = self._ctx.drivers
        try:
            driver = drivers.get(contract, name)
        except NotFound as unknown:
            try:
                driver = await drivers.find(contract, name)
            except NotFound as error:
                # Nobody had more to say of that name than the list of those that are known.
                if str(error) == str(unknown):
                    raise NotFound(f'plugin "{name}" not found') from None
                raise
        work = self.settling.get(self.canonical(contract, name))
        if work is not None and asyncio.current_task() not in self.settlers:
            await asyncio.wait([work], timeout=PATIENCE)
        return driver

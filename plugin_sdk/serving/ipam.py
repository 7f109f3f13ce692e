"""IpamDriver 1.0. Sources: moby, ipams/remote/api and docs/ipam.md. Errors are in `Error` here, not in `Err`.

The engine does not say again, when the plugin restarts, what is in use; the interface keeps it on disk for `restore`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kernel.contracts.common import Wire
from kernel.contracts.network import Pool
from plugin_sdk.serving.dispatch import DEADLINE, Interface, Method, Nothing, expect, within
from plugin_sdk.serving.memory import Memory


class _RequestPool(Wire):
    AddressSpace: str = ""
    Pool: str = ""
    SubPool: str = ""
    Options: dict[str, str] = {}
    V6: bool = False


class _OfPool(Wire):
    PoolID: str


class _Address(_OfPool):
    Address: str = ""
    Options: dict[str, str] = {}


class IpamInterface(Interface):
    """Serves an `IpamDriver`."""

    type = "docker.ipamdriver/1.0"
    legacy = "IpamDriver"
    error = "Error"

    def __init__(self, driver: Any, folder: Path) -> None:
        super().__init__(driver, folder)
        self._memory = Memory(folder / "ipam.json")
        self._pools: dict[str, tuple[str, str]] = {}
        self._addresses: dict[str, list[str]] = {}

    def methods(self) -> Mapping[str, Method]:
        """See `Interface.methods`."""
        return {
            "IpamDriver.GetCapabilities": Method(self._capabilities),
            "IpamDriver.GetDefaultAddressSpaces": Method(self._spaces),
            "IpamDriver.RequestPool": Method(self._request_pool, _RequestPool),
            "IpamDriver.ReleasePool": Method(self._release_pool, _OfPool),
            "IpamDriver.RequestAddress": Method(self._request_address, _Address),
            "IpamDriver.ReleaseAddress": Method(self._release_address, _Address),
        }

    async def open(self) -> None:
        """Tell the driver what is in use."""
        kept = await asyncio.to_thread(self._memory.load)
        self._pools = {pool: (subnet, part) for pool, (subnet, part) in kept.get("Pools", {}).items()}
        self._addresses = {pool: list(addresses) for pool, addresses in kept.get("Addresses", {}).items()}
        used = {pool: list(addresses) for pool, addresses in self._addresses.items()}
        await within(DEADLINE, self.driver.restore(dict(self._pools), used), "the driver's restore")

    async def _save(self) -> None:
        await self._memory.save(lambda: {"Pools": self._pools, "Addresses": self._addresses})

    async def _capabilities(self, _: Nothing) -> Mapping[str, Any]:
        return {"RequiresMACAddress": False, "RequiresRequestReplay": False}

    async def _spaces(self, _: Nothing) -> Mapping[str, Any]:
        return {"LocalDefaultAddressSpace": "local", "GlobalDefaultAddressSpace": "global"}

    async def _request_pool(self, asked: _RequestPool) -> Mapping[str, Any]:
        pool = expect(
            await self.driver.request_pool(asked.Pool, asked.SubPool, asked.Options, v6=asked.V6), Pool, "request_pool"
        )
        self._pools[pool.id] = (pool.subnet, asked.SubPool)
        await self._save()
        return {"PoolID": pool.id, "Pool": pool.subnet, "Data": dict(pool.data)}

    async def _release_pool(self, asked: _OfPool) -> Mapping[str, Any]:
        await self.driver.release_pool(asked.PoolID)
        self._pools.pop(asked.PoolID, None)
        self._addresses.pop(asked.PoolID, None)
        await self._save()
        return {}

    async def _request_address(self, asked: _Address) -> Mapping[str, Any]:
        given = await self.driver.request_address(asked.PoolID, asked.Address, asked.Options)
        expect(given, str, "request_address")
        self._addresses.setdefault(asked.PoolID, []).append(given.partition("/")[0])
        await self._save()
        return {"Address": given, "Data": {}}

    async def _release_address(self, asked: _Address) -> Mapping[str, Any]:
        address = asked.Address.partition("/")[0]
        await self.driver.release_address(asked.PoolID, address)
        if address in (used := self._addresses.get(asked.PoolID, [])):
            used.remove(address)
        await self._save()
        return {}

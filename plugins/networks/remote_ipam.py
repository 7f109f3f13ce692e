"""IpamDriver 1.0: address managers in a process of their own.

Source: libnetwork's "IPAM Driver" (https://github.com/moby/moby/blob/master/daemon/libnetwork/docs/ipam.md) and what its remote
IPAM driver sends. Failures come in a field `Error`, which the peer knows.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from plugin_sdk import DriverSpec, EngineError, NotSupported, PluginContext, PluginRefusal, Wire
from plugin_sdk.managed import InterfaceAdapter, PluginPeer
from plugin_sdk.netlink import Net
from plugin_sdk.network import IpamDriver, Pool
from plugins.networks.remote_wire import Empty, Told

CALL_DEADLINE = 20.0
RELEASE_DEADLINE = 8.0
ASK_DEADLINE = 10.0
ID_LIMIT = 1024


class Capabilities(Wire):
    """Reply of GetCapabilities."""

    RequiresMACAddress: bool = False
    RequiresRequestReplay: bool = False


class AddressSpaces(Wire):
    """Reply of GetDefaultAddressSpaces."""

    LocalDefaultAddressSpace: str = ""
    GlobalDefaultAddressSpace: str = ""


class PoolReply(Wire):
    """Reply of RequestPool; Pool is a CIDR."""

    PoolID: str = ""
    Pool: str = ""
    Data: dict[str, str] = {}


class AddressReply(Wire):
    """Reply of RequestAddress; Address is a CIDR."""

    Address: str = ""
    Data: dict[str, str] = {}


class RemoteIpam:
    """An IPAM plugin as a driver; see `plugin_sdk.network.IpamDriver`.

    Attributes:
        remote: it runs in a process of its own, so that nothing that must not wait may call it.
    """

    remote = True

    def __init__(self, peer: PluginPeer, capabilities: Capabilities, log: logging.Logger) -> None:
        self._peer, self._log = peer, log
        self.requires_mac = capabilities.RequiresMACAddress
        self.requires_replay = capabilities.RequiresRequestReplay
        self._spaces: AddressSpaces | None = None
        self._subnets: dict[str, Net] = {}

    async def request_pool(self, subnet: str, ip_range: str, options: Mapping[str, str], *, v6: bool = False) -> Pool:
        """See `IpamDriver.request_pool`. Raises PluginError for a pool that cannot be; it is given back then."""
        if self._spaces is None:
            self._spaces = await self._call("GetDefaultAddressSpaces", None, AddressSpaces)
        arguments = {
            "AddressSpace": self._spaces.LocalDefaultAddressSpace,
            "Pool": subnet,
            "SubPool": ip_range,
            "Options": dict(options),
            "V6": v6,
        }
        told: PoolReply = await self._call("RequestPool", arguments, PoolReply)
        try:
            net = self._pool(told, subnet, 6 if v6 else 4)
        except EngineError:
            if told.PoolID:
                await self._undo(self.release_pool(told.PoolID))
            raise
        self._subnets[told.PoolID] = net
        return Pool(told.PoolID, str(net), told.Data)

    async def release_pool(self, pool_id: str) -> None:
        """See `IpamDriver.release_pool`."""
        await self._call("ReleasePool", {"PoolID": pool_id}, Empty, RELEASE_DEADLINE)
        self._subnets.pop(pool_id, None)

    async def request_address(self, pool_id: str, address: str, options: Mapping[str, str]) -> str:
        """See `IpamDriver.request_address`. Raises PluginError for one that cannot be; it is given back then."""
        arguments = {"PoolID": pool_id, "Address": address, "Options": dict(options)}
        told: AddressReply = await self._call("RequestAddress", arguments, AddressReply)
        check = Told(self._peer.name, "IpamDriver.RequestAddress")
        if not told.Address:
            raise check.wrong("answered no address")
        got = check.interface(told.Address, 6 if ":" in told.Address else 4, "address")
        plain = ipaddress.ip_interface(got).ip
        net = self._subnets.get(pool_id)
        wrong = ""
        if net is not None and plain not in net:
            wrong = f"answered the address {got}, which is not in its pool {net}"
        elif address and plain != ipaddress.ip_address(address):
            wrong = f"answered the address {got}, where {address} was asked for"
        if wrong:
            await self._undo(self.release_address(pool_id, str(plain)))
            raise check.wrong(wrong)
        return got

    async def release_address(self, pool_id: str, address: str) -> None:
        """See `IpamDriver.release_address`."""
        await self._call("ReleaseAddress", {"PoolID": pool_id, "Address": address}, Empty, RELEASE_DEADLINE)

    async def restore(self, pools: Mapping[str, tuple[str, str]], addresses: Mapping[str, Sequence[str]]) -> None:
        """The plugin remembers by itself, or says that it wants a replay."""
        for pool_id, (subnet, _) in pools.items():
            if subnet:
                self._subnets[pool_id] = ipaddress.ip_network(subnet, strict=False)

    def _pool(self, told: PoolReply, asked: str, version: int) -> Net:
        check = Told(self._peer.name, "IpamDriver.RequestPool")
        if not told.PoolID or len(told.PoolID) > ID_LIMIT:
            raise check.wrong("answered no usable PoolID")
        try:
            net = ipaddress.ip_network(told.Pool, strict=False)
        except ValueError:
            raise check.wrong(f"answered the pool {told.Pool!r:.80}, which is no network") from None
        if net.version != version:
            raise check.wrong(f"answered the pool {net}, where one of IPv{version} was asked for")
        if asked and net != ipaddress.ip_network(asked, strict=False):
            raise check.wrong(f"answered the pool {net}, where {asked} was asked for")
        if net.prefixlen and (net.is_multicast or net.is_loopback):
            raise check.wrong(f"answered the pool {net}, which no container can have")
        return net

    async def _undo(self, release: Any) -> None:
        try:
            await release
        except EngineError as error:
            # What the user hears of is the plugin's first mistake.
            self._log.warning("what plugin %s gave by mistake it has not taken back: %s", self._peer.name, error)

    async def _call(
        self, method: str, arguments: Mapping[str, Any] | None, reply: type[Any], deadline: float = CALL_DEADLINE
    ) -> Any:
        return await self._peer.call(f"IpamDriver.{method}", arguments, reply, deadline=deadline)


class IpamAdapter(InterfaceAdapter):
    """Makes IPAM drivers of plugins.

    Args:
        arrived, left: told the name of a plugin that has been connected, or is gone.
    """

    legacy = "IpamDriver"

    def __init__(self, ctx: PluginContext, arrived: Callable[[str], None], left: Callable[[str], None]) -> None:
        self._ctx, self._arrived, self._left = ctx, arrived, left

    async def connect(self, peer: PluginPeer) -> Sequence[DriverSpec]:
        """Ask for its capabilities; a plugin that has none to tell has none."""
        capabilities = Capabilities()
        try:
            capabilities = await peer.call("IpamDriver.GetCapabilities", None, Capabilities, deadline=ASK_DEADLINE)
        except NotSupported:
            self._ctx.log.debug("plugin %s tells no IPAM capabilities", peer.name)
        except PluginRefusal as error:
            self._ctx.log.warning("plugin %s is used without IPAM capabilities: %s", peer.name, error)
        self._arrived(peer.name)
        return [DriverSpec(IpamDriver, peer.name, RemoteIpam(peer, capabilities, self._ctx.log))]

    async def disconnect(self, peer: PluginPeer) -> None:
        """Nothing is held."""
        self._left(peer.name)

"""NetworkDriver 1.0: network plugins in a process of their own.

Source: libnetwork's "Remote Drivers" (https://github.com/moby/moby/blob/master/daemon/libnetwork/docs/remote.md) and what its
remote driver sends. The plugin owns its networks and keeps them over restarts of the daemon; the engine moves the interface
that `Join` names into the container and gives it addresses.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from plugin_sdk import DriverSpec, EngineError, NotSupported, PluginContext
from plugin_sdk.aio import blocking
from plugin_sdk.managed import InterfaceAdapter, PluginPeer
from plugin_sdk.netlink import Netlink
from plugin_sdk.network import EndpointRecord, JoinInfo, NetworkCapabilities, NetworkDriver, NetworkRecord
from plugins.networks import remote_wire as wire

NETWORK_DEADLINE = 30.0
ENDPOINT_DEADLINE = 20.0
TEARDOWN_DEADLINE = 8.0
"""Seconds for what ends a container's run: it goes on without the plugin then."""
ASK_DEADLINE = 10.0
DISCOVER_DEADLINE = 2.0

_NODE = 1
_SCOPES = ("local", "global")


class RemoteNetworkDriver:
    """A network plugin as a driver; see `plugin_sdk.network.NetworkDriver`. Keeps nothing in memory.

    Attributes:
        remote: it runs in a process of its own, so that nothing that must not wait may call it.
    """

    remote = True

    def __init__(self, peer: PluginPeer, capabilities: NetworkCapabilities, log: logging.Logger) -> None:
        self._peer, self._capabilities, self._log = peer, capabilities, log

    def capabilities(self) -> NetworkCapabilities:
        """What the plugin said when it was connected."""
        return self._capabilities

    def validate(self, network: NetworkRecord) -> None:
        """The plugin alone knows its options; it refuses at creation."""

    async def check_gateways(self, network: NetworkRecord) -> tuple[bool, bool]:
        """See `GatewayChecker`."""
        options = {"Options": wire.network_options(network)}
        told = await self._call("GwAllocCheck", options, wire.GatewayCheck, ASK_DEADLINE)
        return told.SkipIPv4, told.SkipIPv6

    async def create_network(self, network: NetworkRecord) -> None:
        """CreateNetwork."""
        arguments = {
            "NetworkID": network.Id,
            "Options": wire.network_options(network),
            "IPv4Data": wire.ipam_data(network, 4),
            "IPv6Data": wire.ipam_data(network, 6),
        }
        await self._call("CreateNetwork", arguments, wire.Empty, NETWORK_DEADLINE)

    async def delete_network(self, network: NetworkRecord) -> None:
        """DeleteNetwork."""
        await self._call("DeleteNetwork", {"NetworkID": network.Id}, wire.Empty, NETWORK_DEADLINE)

    async def create_endpoint(self, network: NetworkRecord, endpoint: EndpointRecord) -> EndpointRecord:
        """CreateEndpoint. After a PluginError the endpoint may be there: whoever called deletes it."""
        arguments = {
            **_ids(network, endpoint),
            "Interface": {
                "Address": endpoint.IPv4Address,
                "AddressIPv6": endpoint.IPv6Address,
                "MacAddress": endpoint.MacAddress,
            },
            "Options": {**endpoint.DriverOpts, **wire.port_options(endpoint)},
        }
        told = await self._call("CreateEndpoint", arguments, wire.CreatedEndpoint, ENDPOINT_DEADLINE)
        endpoint = self._told("CreateEndpoint").endpoint(endpoint, told.Interface)
        # The gateway is what `Join` says.
        return endpoint.model_copy(update={"Gateway": "", "IPv6Gateway": ""})

    async def delete_endpoint(self, network: NetworkRecord, endpoint: EndpointRecord) -> None:
        """DeleteEndpoint."""
        await self._call("DeleteEndpoint", _ids(network, endpoint), wire.Empty, TEARDOWN_DEADLINE)

    async def join(self, network: NetworkRecord, endpoint: EndpointRecord, sandbox: Path, interface: str) -> JoinInfo:
        """Join."""
        arguments = {**_ids(network, endpoint), "SandboxKey": str(sandbox), "Options": wire.port_options(endpoint)}
        told = await self._call("Join", arguments, wire.Joined, ENDPOINT_DEADLINE)
        return self._told("Join").join(told)

    async def leave(self, network: NetworkRecord, endpoint: EndpointRecord) -> None:
        """Leave."""
        await self._call("Leave", _ids(network, endpoint), wire.Empty, TEARDOWN_DEADLINE)

    async def program_external(self, network: NetworkRecord, endpoint: EndpointRecord) -> EndpointRecord:
        """ProgramExternalConnectivity, and what the plugin has bound, as far as anything is known of it."""
        arguments = {**_ids(network, endpoint), "Options": wire.port_options(endpoint)}
        able = await self._call_if_there("ProgramExternalConnectivity", arguments, ENDPOINT_DEADLINE)
        bound = await self._bound(network, endpoint) if endpoint.Ports else None
        if bound is None:
            # Without a word of the plugin's nothing is known of a port that it was to choose.
            bound = [port for port in endpoint.Ports if able and port.HostPort]
            if not able and endpoint.Ports:
                name = endpoint.ContainerName
                self._log.warning(
                    "plugin %s publishes no ports: those of container %s stay closed", self._peer.name, name
                )
        return endpoint.model_copy(update={"Ports": bound})

    async def revoke_external(self, network: NetworkRecord, endpoint: EndpointRecord) -> None:
        """RevokeExternalConnectivity."""
        await self._call_if_there("RevokeExternalConnectivity", _ids(network, endpoint), TEARDOWN_DEADLINE)

    async def restore(self, networks: Sequence[NetworkRecord], endpoints: Sequence[EndpointRecord]) -> None:
        """The plugin remembers its networks by itself: the protocol has no call for it."""

    async def discover(self, change: Literal["New", "Delete"], address: str) -> None:
        """DiscoverNew or DiscoverDelete of this node."""
        data = {"Address": address, "BindAddress": address, "Self": True}
        arguments = {"DiscoveryType": _NODE, "DiscoveryData": data}
        await self._call_if_there(f"Discover{change}", arguments, DISCOVER_DEADLINE)

    async def _bound(self, network: NetworkRecord, endpoint: EndpointRecord) -> list[Any] | None:
        try:
            told = await self._call("EndpointOperInfo", _ids(network, endpoint), wire.OperInfo, ASK_DEADLINE)
        except NotSupported:
            return None
        return self._told("EndpointOperInfo").ports(told.Value)

    async def _call(self, method: str, arguments: Mapping[str, Any] | None, reply: type[Any], deadline: float) -> Any:
        return await self._peer.call(f"NetworkDriver.{method}", arguments, reply, deadline=deadline)

    async def _call_if_there(self, method: str, arguments: Mapping[str, Any], deadline: float) -> bool:
        try:
            await self._call(method, arguments, wire.Empty, deadline)
        except NotSupported:
            return False
        return True

    def _told(self, method: str) -> wire.Told:
        return wire.Told(self._peer.name, f"NetworkDriver.{method}")


class NetworkAdapter(InterfaceAdapter):
    """Makes network drivers of plugins.

    Args:
        arrived, left: told the name of a plugin that has been connected, or is gone.
    """

    legacy = "NetworkDriver"

    def __init__(self, ctx: PluginContext, arrived: Callable[[str], None], left: Callable[[str], None]) -> None:
        self._ctx, self._arrived, self._left = ctx, arrived, left
        self._known: dict[str, RemoteNetworkDriver] = {}

    async def connect(self, peer: PluginPeer) -> Sequence[DriverSpec]:
        """Ask for its capabilities, and tell it of this node. Raises EngineError for capabilities that cannot be."""
        method = "NetworkDriver.GetCapabilities"
        told = await peer.call(method, None, wire.Capabilities, deadline=ASK_DEADLINE)
        connectivity = told.ConnectivityScope or told.Scope
        for what, scope in (("Scope", told.Scope), ("ConnectivityScope", connectivity)):
            if scope not in _SCOPES:
                wrong = f"invalid capability: {what} {scope!r:.40}, want 'local' or 'global'"
                raise wire.Told(peer.name, method).wrong(wrong)
        driver = RemoteNetworkDriver(
            peer,
            NetworkCapabilities(told.Scope, connectivity, gateway_at_join=True, checks_gateways=told.GwAllocChecker),
            self._ctx.log,
        )
        self._known[peer.name] = driver
        self._ctx.spawn(self._tell(driver, peer.name), name=f"tell plugin {peer.name} of this node")
        self._arrived(peer.name)
        return [DriverSpec(NetworkDriver, peer.name, driver)]

    async def disconnect(self, peer: PluginPeer) -> None:
        """Tell it that this node leaves, if it still listens."""
        driver = self._known.pop(peer.name, None)
        self._left(peer.name)
        if driver is not None:
            await self._tell(driver, peer.name, "Delete")

    async def _tell(self, driver: RemoteNetworkDriver, name: str, change: Literal["New", "Delete"] = "New") -> None:
        try:
            address = await blocking(own_address)
            if address:
                await driver.discover(change, address)
        except (EngineError, OSError) as error:
            self._ctx.log.debug("plugin %s: node discovery: %s", name, error)


def own_address() -> str:
    """The address of the interface that the default route leads over; "" without one. Blocking."""
    with Netlink() as netlink:
        addresses = netlink.addresses()
        for route in netlink.routes():
            if not route.destination.prefixlen:
                for index, address in addresses:
                    if index == route.link and address.version == route.destination.version:
                        return str(address.ip)
    return ""


def _ids(network: NetworkRecord, endpoint: EndpointRecord) -> dict[str, str]:
    return {"NetworkID": network.Id, "EndpointID": endpoint.Id}

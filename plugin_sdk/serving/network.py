"""NetworkDriver 1.0. Sources: moby, daemon/libnetwork/docs/remote.md and drivers/remote/api.

The protocol names networks and endpoints by ID alone after it has made them; the contract hands their records over at every
call. So the interface keeps the records, on disk, and gives them to the driver's `restore` when the plugin starts again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from kernel.contracts.common import Wire
from kernel.contracts.network import (
    EndpointRecord,
    IpamConfig,
    IpamPool,
    JoinInfo,
    NetworkCapabilities,
    NetworkRecord,
    PublishedPort,
)
from kernel.errors import NotFound
from plugin_sdk.serving.dispatch import DEADLINE, Interface, Method, Nothing, expect, within
from plugin_sdk.serving.memory import Memory
from plugin_sdk.times import now

W = TypeVar("W", bound=Wire)

_GENERIC = "com.docker.network.generic"
_PORTS = "com.docker.network.portmap"
_EXPOSED = "com.docker.network.endpoint.exposedports"
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 132: "sctp"}


class _Pool(Wire):
    AddressSpace: str = ""
    Pool: str = ""
    Gateway: str = ""
    AuxAddresses: dict[str, str] = {}


class _Network(Wire):
    NetworkID: str


class _CreateNetwork(_Network):
    Options: dict[str, Any] = {}
    IPv4Data: list[_Pool] = []
    IPv6Data: list[_Pool] = []


class _Endpoint(_Network):
    EndpointID: str
    Options: dict[str, Any] = {}


class _Interface(Wire):
    Address: str = ""
    AddressIPv6: str = ""
    MacAddress: str = ""


class _CreateEndpoint(_Endpoint):
    Interface: _Interface = _Interface()


class _Join(_Endpoint):
    SandboxKey: str = ""


class _Port(Wire):
    Proto: int = 6
    Port: int = 0
    HostIP: str = ""
    HostPort: int = 0
    HostPortEnd: int = 0


class NetworkInterface(Interface):
    """Serves a `NetworkDriver`."""

    type = "docker.networkdriver/1.0"
    legacy = "NetworkDriver"

    def __init__(self, driver: Any, folder: Path) -> None:
        super().__init__(driver, folder)
        self._memory = Memory(folder / "network.json")
        self._networks: dict[str, NetworkRecord] = {}
        self._endpoints: dict[str, EndpointRecord] = {}

    def methods(self) -> Mapping[str, Method]:
        """See `Interface.methods`."""
        table = {
            "GetCapabilities": Method(self._capabilities),
            "AllocateNetwork": Method(self._allocate, _Network),
            "FreeNetwork": Method(self._nothing, _Network),
            "CreateNetwork": Method(self._create_network, _CreateNetwork),
            "DeleteNetwork": Method(self._delete_network, _Network),
            "CreateEndpoint": Method(self._create_endpoint, _CreateEndpoint),
            "DeleteEndpoint": Method(self._delete_endpoint, _Endpoint),
            "EndpointOperInfo": Method(self._info, _Endpoint),
            "Join": Method(self._join, _Join),
            "Leave": Method(self._leave, _Endpoint),
            "ProgramExternalConnectivity": Method(self._program, _Endpoint),
            "RevokeExternalConnectivity": Method(self._revoke, _Endpoint),
            "DiscoverNew": Method(self._nothing),
            "DiscoverDelete": Method(self._nothing),
        }
        return {f"NetworkDriver.{name}": method for name, method in table.items()}

    async def open(self) -> None:
        """Tell the driver what exists; finish what the end of the last process cut off."""
        kept = await asyncio.to_thread(self._memory.load)
        for item in kept.get("Networks", []):
            network = NetworkRecord.model_validate(item)
            self._networks[network.Id] = network
        for item in kept.get("Endpoints", []):
            endpoint = EndpointRecord.model_validate(item)
            self._endpoints[endpoint.Id] = endpoint
        for network in [network for network in self._networks.values() if network.State != "ready"]:
            await within(DEADLINE, self.driver.delete_network(network), f"the removal of network {network.Id}")
            await self._forget(network)
        networks, endpoints = list(self._networks.values()), list(self._endpoints.values())
        await within(DEADLINE, self.driver.restore(networks, endpoints), "the driver's restore")

    async def _save(self) -> None:
        await self._memory.save(
            lambda: {
                "Networks": [network.model_dump() for network in self._networks.values()],
                "Endpoints": [endpoint.model_dump() for endpoint in self._endpoints.values()],
            }
        )

    async def _keep(self, record: NetworkRecord | EndpointRecord) -> None:
        if isinstance(record, NetworkRecord):
            self._networks[record.Id] = record
        else:
            self._endpoints[record.Id] = record
        await self._save()

    async def _forget(self, network: NetworkRecord) -> None:
        self._networks.pop(network.Id, None)
        self._endpoints = {key: item for key, item in self._endpoints.items() if item.NetworkID != network.Id}
        await self._save()

    def _found(self, asked: _Endpoint) -> tuple[NetworkRecord, EndpointRecord]:
        network, endpoint = self._networks.get(asked.NetworkID), self._endpoints.get(asked.EndpointID)
        if network is None:
            raise NotFound(f"network {asked.NetworkID} is not known to this plugin")
        if endpoint is None:
            raise NotFound(f"endpoint {asked.EndpointID} is not known to this plugin")
        return network, endpoint

    def _bare(self, asked: _Network) -> NetworkRecord:
        """The record, or for one that is not known enough of it for a delete."""
        return self._networks.get(asked.NetworkID) or NetworkRecord(Id=asked.NetworkID, Name="", Created="", Driver="")

    async def _capabilities(self, _: Nothing) -> Mapping[str, Any]:
        told = expect(self.driver.capabilities(), NetworkCapabilities, "capabilities")
        return {"Scope": told.scope, "ConnectivityScope": told.connectivity_scope, "GwAllocChecker": False}

    async def _allocate(self, _: _Network) -> Mapping[str, Any]:
        # Asked of drivers of global scope by a swarm's manager: the contract has nothing to reserve there.
        return {"Options": {}}

    async def _nothing(self, _: Wire) -> Mapping[str, Any]:
        return {}

    async def _create_network(self, asked: _CreateNetwork) -> Mapping[str, Any]:
        network = _network(asked)
        self.driver.validate(network)
        await self._keep(network)
        try:
            await self.driver.create_network(network)
        except Exception:
            await self._forget(network)
            raise
        await self._keep(network.model_copy(update={"State": "ready"}))
        return {}

    async def _delete_network(self, asked: _Network) -> Mapping[str, Any]:
        network = self._bare(asked)
        if network.Id in self._networks:
            await self._keep(network.model_copy(update={"State": "removing"}))
        await self.driver.delete_network(network)
        await self._forget(network)
        return {}

    async def _create_endpoint(self, asked: _CreateEndpoint) -> Mapping[str, Any]:
        network = self._networks.get(asked.NetworkID)
        if network is None:
            raise NotFound(f"network {asked.NetworkID} is not known to this plugin")
        endpoint = EndpointRecord(
            Id=asked.EndpointID,
            NetworkID=asked.NetworkID,
            ContainerID="",
            MacAddress=asked.Interface.MacAddress,
            IPv4Address=asked.Interface.Address,
            IPv6Address=asked.Interface.AddressIPv6,
            Ports=_published(asked.Options),
            Exposed=_exposed(asked.Options),
            DriverOpts={key: value for key, value in asked.Options.items() if isinstance(value, str)},
        )
        await self._keep(endpoint)
        try:
            made = expect(await self.driver.create_endpoint(network, endpoint), EndpointRecord, "create_endpoint")
        except Exception:
            self._endpoints.pop(endpoint.Id, None)
            await self._save()
            raise
        await self._keep(made)
        # A field that was given must come back empty.
        return {
            "Interface": {
                "Address": "" if endpoint.IPv4Address else made.IPv4Address,
                "AddressIPv6": "" if endpoint.IPv6Address else made.IPv6Address,
                "MacAddress": "" if endpoint.MacAddress else made.MacAddress,
            }
        }

    async def _delete_endpoint(self, asked: _Endpoint) -> Mapping[str, Any]:
        endpoint = self._endpoints.get(asked.EndpointID) or EndpointRecord(
            Id=asked.EndpointID, NetworkID=asked.NetworkID, ContainerID=""
        )
        await self.driver.delete_endpoint(self._bare(asked), endpoint)
        self._endpoints.pop(asked.EndpointID, None)
        await self._save()
        return {}

    async def _info(self, asked: _Endpoint) -> Mapping[str, Any]:
        self._found(asked)
        return {"Value": {}}

    async def _join(self, asked: _Join) -> Mapping[str, Any]:
        network, endpoint = self._found(asked)
        endpoint = endpoint.model_copy(update={"Sandbox": asked.SandboxKey})
        await self._keep(endpoint)
        # The protocol has no name for the interface: the engine gives it one when it moves it.
        info = expect(await self.driver.join(network, endpoint, Path(asked.SandboxKey), ""), JoinInfo, "join")
        return _joined(info)

    async def _leave(self, asked: _Endpoint) -> Mapping[str, Any]:
        network, endpoint = self._found(asked)
        await self.driver.leave(network, endpoint)
        await self._keep(endpoint.model_copy(update={"Sandbox": ""}))
        return {}

    async def _program(self, asked: _Endpoint) -> Mapping[str, Any]:
        network, endpoint = self._found(asked)
        if ports := _published(asked.Options):
            endpoint = endpoint.model_copy(update={"Ports": ports})
        made = await self.driver.program_external(network, endpoint)
        await self._keep(expect(made, EndpointRecord, "program_external"))
        return {}

    async def _revoke(self, asked: _Endpoint) -> Mapping[str, Any]:
        network, endpoint = self._found(asked)
        await self.driver.revoke_external(network, endpoint)
        return {}


def _network(asked: _CreateNetwork) -> NetworkRecord:
    generic = asked.Options.get(_GENERIC)
    options = {str(key): str(value) for key, value in generic.items()} if isinstance(generic, dict) else {}
    pools = [
        IpamPool(Subnet=pool.Pool, Gateway=pool.Gateway.partition("/")[0], AuxiliaryAddresses=pool.AuxAddresses)
        for pool in (*asked.IPv4Data, *asked.IPv6Data)
    ]
    return NetworkRecord(
        Id=asked.NetworkID,
        Name="",
        Created=now(),
        Driver="",
        EnableIPv4=_flag(asked.Options, "com.docker.network.enable_ipv4", bool(asked.IPv4Data)),
        EnableIPv6=_flag(asked.Options, "com.docker.network.enable_ipv6", bool(asked.IPv6Data)),
        Internal=_flag(asked.Options, "com.docker.network.internal", False),
        IPAM=IpamConfig(Config=pools),
        Options=options,
        State="creating",
    )


def _flag(options: Mapping[str, Any], name: str, otherwise: bool) -> bool:
    value = options.get(name, otherwise)
    return value.lower() == "true" if isinstance(value, str) else bool(value)


def _ports(options: Mapping[str, Any], name: str) -> list[_Port]:
    told = options.get(name)
    return [_Port.model_validate(item) for item in told] if isinstance(told, list) else []


def _published(options: Mapping[str, Any]) -> list[PublishedPort]:
    return [
        PublishedPort(
            Proto=_PROTOCOLS.get(port.Proto, str(port.Proto)),
            Port=port.Port,
            HostIp=port.HostIP,
            HostPort=port.HostPort,
            HostPortEnd=port.HostPortEnd if port.HostPortEnd != port.HostPort else 0,
        )
        for port in _ports(options, _PORTS)
    ]


def _exposed(options: Mapping[str, Any]) -> list[str]:
    return [f"{port.Port}/{_PROTOCOLS.get(port.Proto, port.Proto)}" for port in _ports(options, _EXPOSED)]


def _joined(info: JoinInfo) -> Mapping[str, Any]:
    reply: dict[str, Any] = {
        "Gateway": info.gateway,
        "GatewayIPv6": info.gateway6,
        # Type 0 has a next hop, type 1 is connected.
        "StaticRoutes": [
            {"Destination": route.destination, "RouteType": 0 if route.next_hop else 1, "NextHop": route.next_hop}
            for route in info.routes
        ],
        "DisableGatewayService": info.disable_gateway_service,
    }
    if info.src_name:
        names = {"SrcName": info.src_name, "DstPrefix": info.dst_prefix, "DstName": info.dst_name}
        reply["InterfaceName"] = names
    return reply

"""Networks: drivers (bridges, overlays, remote ones), address management, and the service over them.

Drivers and IPAM follow Docker's remote protocols (NetworkDriver and IpamDriver 1.0), so that one adapter serves any
plugin that speaks them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import ConfigDict

from kernel.contracts.common import Wire

if TYPE_CHECKING:
    from kernel.contracts.container_config import EndpointConfig
    from kernel.contracts.containers import ContainerRecord, Preparation


class IpamPool(Wire):
    """One subnet of a network. Gateway and aux addresses are plain addresses; Subnet and IPRange are CIDRs."""

    Subnet: str = ""
    IPRange: str = ""
    Gateway: str = ""
    AuxiliaryAddresses: dict[str, str] = {}
    PoolID: str = ""


class IpamConfig(Wire):
    """Address management of a network."""

    # Said again because pydantic would take the field `Config` for settings of the model.
    model_config = ConfigDict(frozen=True, extra="ignore")

    Driver: str = "default"
    Options: dict[str, str] = {}
    Config: list[IpamPool] = []


class NetworkRecord(Wire):
    """A network as stored.

    Attributes:
        State: written before a driver is called ("creating", "removing"), "ready" after; restore settles the rest.
    """

    Id: str
    Name: str
    Created: str
    Driver: str
    Scope: str = "local"
    EnableIPv4: bool = True
    EnableIPv6: bool = False
    Internal: bool = False
    Attachable: bool = False
    Ingress: bool = False
    ConfigOnly: bool = False
    IPAM: IpamConfig = IpamConfig()
    Options: dict[str, str] = {}
    Labels: dict[str, str] = {}
    State: Literal["creating", "ready", "removing"] = "ready"


class PublishedPort(Wire):
    """One published port.

    Attributes:
        Proto: "tcp", "udp" or "sctp".
        HostPort: 0 asks for an ephemeral one.
        HostPortEnd: end of the range to choose from; 0: only HostPort.
    """

    Proto: str = "tcp"
    Port: int
    HostIp: str = ""
    HostPort: int = 0
    HostPortEnd: int = 0


class EndpointRecord(Wire):
    """A container's place on a network, as stored; kept while the container is stopped.

    Attributes:
        Addresses are CIDRs; those and MacAddress are "" while the container is stopped and nothing was asked for.
        Ports: published on this endpoint.
        Interface: name inside the sandbox.
        Sandbox: path of the network namespace that it is plugged into; "" while stopped.
        DefaultRoute: it gives its sandbox the default route. A driver that sets addresses itself may set that route in
            the same breath (`JoinInfo.routes_set`).
        Source: the interface's name in the daemon's network namespace, where the engine has moved it from there into
            the sandbox; it goes back, under that name, between `leave` and `delete_endpoint`.
        WantsGateway: its driver names no gateway and leaves it to the engine to give the sandbox one.
    """

    Id: str
    NetworkID: str
    ContainerID: str
    ContainerName: str = ""
    MacAddress: str = ""
    IPv4Address: str = ""
    IPv6Address: str = ""
    Gateway: str = ""
    IPv6Gateway: str = ""
    Aliases: list[str] = []
    DNSNames: list[str] = []
    Ports: list[PublishedPort] = []
    Exposed: list[str] = []
    DriverOpts: dict[str, str] = {}
    GwPriority: int = 0
    Asked: dict[str, Any] = {}
    Interface: str = ""
    Sandbox: str = ""
    DefaultRoute: bool = False
    Source: str = ""
    WantsGateway: bool = False


@dataclass(frozen=True, slots=True)
class StaticRoute:
    """A route inside the sandbox; without a next hop it is connected."""

    destination: str
    next_hop: str = ""


@dataclass(frozen=True, slots=True)
class JoinInfo:
    """What a driver says when an endpoint joins a sandbox.

    Attributes:
        src_name: interface, in the daemon's network namespace, that the caller moves into the sandbox, names
            `dst_prefix` + number and addresses. "": the driver has done all of that itself; then `dst_name` says
            what the interface is called.
        gateway, gateway6: default routes for the caller to set (also in the second case unless `routes_set`).
        disable_gateway_service: do not add another network's gateway.
    """

    src_name: str = ""
    dst_prefix: str = "eth"
    dst_name: str = ""
    gateway: str = ""
    gateway6: str = ""
    routes: Sequence[StaticRoute] = ()
    routes_set: bool = False
    disable_gateway_service: bool = False


@dataclass(frozen=True, slots=True)
class NetworkCapabilities:
    """Facts about a network driver.

    Attributes:
        scope, connectivity_scope: "local" or "global".
        gateway_at_join: the gateway is what `join` says, not the address manager's, so that only then the engine chooses
            among the container's networks; `program_external` follows for the chosen one, with ports or without.
        checks_gateways: the driver is a `GatewayChecker` too.
    """

    scope: str = "local"
    connectivity_scope: str = "local"
    gateway_at_join: bool = False
    checks_gateways: bool = False


class NetworkDriver(Protocol):
    """One kind of network. Every call may be repeated after a crash; deletes of what is not there are fine."""

    def capabilities(self) -> NetworkCapabilities:
        """Facts about the driver."""

    def validate(self, network: NetworkRecord) -> None:
        """Refuse options that the driver does not know or that cannot be: InvalidParameter, Forbidden, NotSupported."""

    async def create_network(self, network: NetworkRecord) -> None:
        """Make it; addresses are decided."""

    async def delete_network(self, network: NetworkRecord) -> None:
        """Undo."""

    async def create_endpoint(self, network: NetworkRecord, endpoint: EndpointRecord) -> EndpointRecord:
        """Reserve what the endpoint needs; may fill fields that are empty (MacAddress, Ports with an ephemeral HostPort)."""

    async def delete_endpoint(self, network: NetworkRecord, endpoint: EndpointRecord) -> None:
        """Undo."""

    async def join(self, network: NetworkRecord, endpoint: EndpointRecord, sandbox: Path, interface: str) -> JoinInfo:
        """Plug into the network namespace at path `sandbox`; `interface` is the name to give there ("eth0")."""

    async def leave(self, network: NetworkRecord, endpoint: EndpointRecord) -> None:
        """Unplug; the namespace may be gone. `endpoint.Sandbox` is "" when it is about to be taken down as a whole."""

    async def program_external(self, network: NetworkRecord, endpoint: EndpointRecord) -> EndpointRecord:
        """This endpoint gives its sandbox the default route: publish its ports. Gives the ports with what was bound.

        Raises Conflict for a port in use: `driver failed programming external connectivity on endpoint NAME (ID): ...`.
        """

    async def revoke_external(self, network: NetworkRecord, endpoint: EndpointRecord) -> None:
        """Undo."""

    async def restore(self, networks: Sequence[NetworkRecord], endpoints: Sequence[EndpointRecord]) -> None:
        """After a start of the daemon: these of yours exist; mend what is missing, remove what nobody owns."""


class GatewayChecker(Protocol):
    """What a network driver can do besides (`NetworkCapabilities.checks_gateways`)."""

    async def check_gateways(self, network: NetworkRecord) -> tuple[bool, bool]:
        """Before addresses are decided: whether the network needs no gateway address for (IPv4, IPv6)."""


@dataclass(frozen=True, slots=True)
class Pool:
    """An address pool that an IPAM driver handed out. `data` may name a gateway (CIDR) under
    "com.docker.network.gateway", which is then not requested."""

    id: str
    subnet: str
    data: Mapping[str, str] = field(default_factory=dict)


class IpamDriver(Protocol):
    """Hands out subnets and addresses. What it handed out must survive a restart (or be replayed by `restore`).

    A driver may have two attributes besides, false where they are missing: `requires_mac` asks for the endpoint's hardware
    address in the options of `request_address`, under "com.docker.network.endpoint.macaddress"; `requires_replay` asks for
    all requests anew after a restart of the daemon or the driver, instead of `restore`.
    """

    async def request_pool(self, subnet: str, ip_range: str, options: Mapping[str, str], *, v6: bool = False) -> Pool:
        """A pool for a network; an empty subnet lets the driver choose one that overlaps no network nor route.

        Raises Forbidden ("Pool overlaps with other one on this address space") or NotFound when all are used up; both
        name the network or route in the way.
        """

    async def release_pool(self, pool_id: str) -> None:
        """Give back; an unknown one is fine."""

    async def request_address(self, pool_id: str, address: str, options: Mapping[str, str]) -> str:
        """CIDR of the address asked for, or of a free one. Raises Conflict ("Address already in use") or Unavailable."""

    async def release_address(self, pool_id: str, address: str) -> None:
        """Give back; an unknown one is fine."""

    async def restore(self, pools: Mapping[str, tuple[str, str]], addresses: Mapping[str, Sequence[str]]) -> None:
        """What is in use: pool ID to (subnet, range), pool ID to plain addresses. All else is free."""


class Networks(Protocol):
    """Service: networks and the containers on them. `ref` is a name, an ID, or a unique prefix of an ID."""

    def get(self, ref: str) -> NetworkRecord:
        """Raises NotFound ("network REF not found")."""

    def list(self) -> Sequence[NetworkRecord]:
        """All; a snapshot."""

    def endpoints(self, container_id: str) -> Sequence[EndpointRecord]:
        """The container's endpoints, in the order in which they were connected. From memory, never waits."""

    def sandbox(self, container_id: str) -> Path | None:
        """Path of the container's own network namespace while it has one."""

    async def connect(self, ref: str, container: ContainerRecord, config: EndpointConfig) -> None:
        """Connect a container, running or not."""

    async def disconnect(self, ref: str, container: ContainerRecord, *, force: bool = False) -> None:
        """Undo."""

    async def lend(self, guest: ContainerRecord, preparation: Preparation) -> None:
        """Networks for a run of something that is no container of `Containers`: a managed plugin.

        Does for `guest.HostConfig.NetworkMode` ("bridge", "none" or "host") what a container's start does: sandbox, address,
        default route, and read-only mounts of `/etc/hosts` and `/etc/resolv.conf` in `preparation`. What an earlier run of
        the same guest still had is given back first. Waits until the networks are restored. A failure leaves nothing behind.
        Raises InvalidParameter for another mode.
        """

    async def keep(self, guest_id: str) -> bool:
        """After a restart of the daemon: the guest still runs and keeps what it was lent. False when nothing is known of
        it, or a boot of the machine has taken it. What neither a container nor a guest has claimed when `engine_ready` comes is
        given back, enabled managed plugins' own excepted: they settle it themselves."""

    async def take_back(self, guest_id: str) -> None:
        """The guest's run is over. Idempotent."""

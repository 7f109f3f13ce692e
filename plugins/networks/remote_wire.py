"""Replies of network plugins, and what they are told: the shapes of the NetworkDriver 1.0 protocol, checked.

Source: libnetwork's "Remote Drivers" and its remote driver API; numbers of protocols are IANA's.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from plugin_sdk import PluginError, Wire
from plugin_sdk.network import EndpointRecord, JoinInfo, NetworkRecord, PublishedPort, StaticRoute
from plugins.networks.placing import valid_name
from plugins.networks.pools import net_version

GENERIC = "com.docker.network.generic"
ENABLE_IPV4, ENABLE_IPV6 = "com.docker.network.enable_ipv4", "com.docker.network.enable_ipv6"
INTERNAL = "com.docker.network.internal"
PORT_MAP, EXPOSED = "com.docker.network.portmap", "com.docker.network.endpoint.exposedports"

ROUTES_LIMIT = 512
"""Static routes that one endpoint may bring."""
PORTS_LIMIT = 4096

_PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "sctp": 132}
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z")


class Empty(Wire):
    """A reply of which nothing is read."""


class Capabilities(Wire):
    """Reply of GetCapabilities."""

    Scope: str = ""
    ConnectivityScope: str = ""
    GwAllocChecker: bool = False


class GatewayCheck(Wire):
    """Reply of GwAllocCheck."""

    SkipIPv4: bool = False
    SkipIPv6: bool = False


class EndpointInterface(Wire):
    """Addresses are CIDRs."""

    Address: str = ""
    AddressIPv6: str = ""
    MacAddress: str = ""


class CreatedEndpoint(Wire):
    """Reply of CreateEndpoint."""

    Interface: EndpointInterface | None = None


class OperInfo(Wire):
    """Reply of EndpointOperInfo."""

    Value: dict[str, Any] = {}


class MovedInterface(Wire):
    """What to move into the sandbox, and what to call it there."""

    SrcName: str = ""
    DstPrefix: str = ""
    DstName: str = ""


class Route(Wire):
    """RouteType 0: over NextHop, 1: connected."""

    Destination: str = ""
    RouteType: int = 0
    NextHop: str = ""


class Joined(Wire):
    """Reply of Join."""

    InterfaceName: MovedInterface | None = None
    Gateway: str = ""
    GatewayIPv6: str = ""
    StaticRoutes: list[Route] = []
    DisableGatewayService: bool = False


class Told:
    """Checks what a plugin answered to one call. Every method raises PluginError, naming the plugin and the call."""

    def __init__(self, plugin: str, call: str) -> None:
        self._plugin, self._call = plugin, call

    def wrong(self, why: str) -> PluginError:
        """The error to raise."""
        return PluginError(self._plugin, self._call, why)

    def address(self, text: str, version: int, what: str) -> str:
        """A plain address; "" stays ""."""
        if not text:
            return ""
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            raise self.wrong(f"answered the {what} {text!r:.80}, which is no address") from None
        if address.version != version or address.is_multicast or address.is_unspecified or address.is_loopback:
            raise self.wrong(f"answered the {what} {text}, which cannot be one (IPv{version})")
        return str(address)

    def interface(self, text: str, version: int, what: str) -> str:
        """An address with its prefix length."""
        plain, slash, _ = text.partition("/")
        try:
            address = ipaddress.ip_interface(text)
        except ValueError:
            raise self.wrong(f"answered the {what} {text!r:.80}, which is no address with a prefix") from None
        if not slash:
            raise self.wrong(f"answered the {what} {text}, without its prefix length")
        self.address(plain, version, what)
        return str(address)

    def mac(self, text: str) -> str:
        """A hardware address of one station."""
        mac = text.lower().replace("-", ":")
        if not _MAC.match(mac) or int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
            raise self.wrong(f"answered the MAC address {text!r:.80}, which is none of a single interface")
        return mac

    def endpoint(self, endpoint: EndpointRecord, told: EndpointInterface | None) -> EndpointRecord:
        """The endpoint with what the plugin chose. What it was given it must not answer."""
        if told is None:
            return endpoint
        given = (
            ("MacAddress", "MAC address", endpoint.MacAddress, told.MacAddress),
            ("IPv4Address", "IPv4 address", endpoint.IPv4Address, told.Address),
            ("IPv6Address", "IPv6 address", endpoint.IPv6Address, told.AddressIPv6),
        )
        changes: dict[str, str] = {}
        for name, words, known, text in given:
            if not text:
                continue
            if known:
                raise self.wrong(f"answered the {words} {text!r:.80}, but the endpoint has {known} and keeps it")
            if name == "MacAddress":
                changes[name] = self.mac(text)
            else:
                changes[name] = self.interface(text, 4 if name == "IPv4Address" else 6, words)
        return endpoint.model_copy(update=changes)

    def join(self, told: Joined) -> JoinInfo:
        """Names, gateways and routes."""
        names = told.InterfaceName or MovedInterface()
        for what, name in (("SrcName", names.SrcName), ("DstName", names.DstName)):
            if name and (not valid_name(name) or name == "lo"):
                raise self.wrong(f"answered {what} {name!r:.80}: a container's interface cannot be called so")
        if names.DstPrefix and not (valid_name(f"{names.DstPrefix}0") and len(names.DstPrefix) <= 12):
            raise self.wrong(f"answered DstPrefix {names.DstPrefix!r:.80}, with which no interface's name can begin")
        if len(told.StaticRoutes) > ROUTES_LIMIT:
            raise self.wrong(f"answered {len(told.StaticRoutes)} static routes; {ROUTES_LIMIT} are taken")
        return JoinInfo(
            src_name=names.SrcName,
            dst_prefix=names.DstPrefix or "eth",
            dst_name=names.DstName,
            gateway=self.address(told.Gateway, 4, "gateway"),
            gateway6=self.address(told.GatewayIPv6, 6, "IPv6 gateway"),
            routes=[self._route(route) for route in told.StaticRoutes],
            disable_gateway_service=told.DisableGatewayService,
        )

    def _route(self, told: Route) -> StaticRoute:
        try:
            net = ipaddress.ip_network(told.Destination, strict=False)
        except ValueError:
            raise self.wrong(f"answered a route to {told.Destination!r:.80}, which is no network") from None
        if net.is_multicast or net.is_loopback:
            raise self.wrong(f"answered a route to {net}, which no network leads to")
        if told.RouteType == 1:
            return StaticRoute(str(net))
        if told.RouteType != 0 or not told.NextHop:
            raise self.wrong(f"answered a route to {net} of type {told.RouteType} over {told.NextHop!r:.80}")
        return StaticRoute(str(net), self.address(told.NextHop, net.version, "next hop"))

    def ports(self, value: dict[str, Any]) -> list[PublishedPort] | None:
        """What is bound, as far as the plugin says so in its operational data."""
        told = value.get(PORT_MAP)
        if told is None:
            return None
        numbers = {number: name for name, number in _PROTOCOLS.items()}
        found: list[PublishedPort] = []
        try:
            for entry in told[:PORTS_LIMIT]:
                port, host = int(entry["Port"]), int(entry.get("HostPort") or 0)
                if not (0 < port < 65536 and 0 <= host < 65536):
                    raise ValueError("a port out of range")
                address = str(ipaddress.ip_address(entry["HostIP"])) if entry.get("HostIP") else ""
                found.append(
                    PublishedPort(Proto=numbers[int(entry["Proto"])], Port=port, HostIp=address, HostPort=host)
                )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self.wrong(f"answered a {PORT_MAP} that is none: {error!r:.80}") from None
        return found


def network_options(network: NetworkRecord) -> dict[str, Any]:
    """`Options` of CreateNetwork."""
    options: dict[str, Any] = {
        ENABLE_IPV4: network.EnableIPv4,
        ENABLE_IPV6: network.EnableIPv6,
        GENERIC: network.Options,
    }
    return {**options, INTERNAL: True} if network.Internal else options


def ipam_data(network: NetworkRecord, version: int) -> list[dict[str, Any]]:
    """`IPv4Data` or `IPv6Data` of CreateNetwork. A network without addresses of its own has libnetwork's null space."""
    anywhere = "0.0.0.0/0" if version == 4 else "::/0"
    found: list[dict[str, Any]] = []
    for pool in network.IPAM.Config:
        if not pool.Subnet:
            if (version == 6) == pool.PoolID.endswith("6"):
                found.append({"AddressSpace": "null", "Pool": anywhere, "Gateway": anywhere})
            continue
        if net_version(pool.Subnet) != version:
            continue
        length = ipaddress.ip_network(pool.Subnet).prefixlen
        entry: dict[str, Any] = {"AddressSpace": "LocalDefault", "Pool": pool.Subnet}
        if pool.Gateway:
            entry["Gateway"] = f"{pool.Gateway}/{length}"
        if pool.AuxiliaryAddresses:
            entry["AuxAddresses"] = {name: f"{text}/{length}" for name, text in pool.AuxiliaryAddresses.items()}
        found.append(entry)
    return found


def port_options(endpoint: EndpointRecord) -> dict[str, Any]:
    """Published and exposed ports, as the protocol wants them."""
    exposed = [text.partition("/") for text in endpoint.Exposed]
    return {
        PORT_MAP: [_published(port) for port in endpoint.Ports],
        EXPOSED: [{"Proto": _PROTOCOLS.get(kind or "tcp", 6), "Port": int(port)} for port, _, kind in exposed],
    }


def _published(port: PublishedPort) -> dict[str, Any]:
    end = port.HostPortEnd or port.HostPort
    bound = {"HostIP": port.HostIp, "HostPort": port.HostPort, "HostPortEnd": end}
    return {"Proto": _PROTOCOLS[port.Proto], "IP": "", "Port": port.Port, **bound}

"""What a container may ask of its network: modes, endpoints, ports; with dockerd's own refusals."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from plugin_sdk import InvalidParameter
from plugin_sdk.containers import ContainerConfig, EndpointConfig, HostConfig, PortBinding
from plugin_sdk.network import NetworkRecord, PublishedPort

PREDEFINED_MODES = ("host", "none", "bridge", "default", "nat")
_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}\Z")
_PROTOCOLS = ("tcp", "udp", "sctp")


@dataclass(frozen=True, slots=True)
class Mode:
    """A parsed `HostConfig.NetworkMode`.

    Attributes:
        kind: "host", "none", "container" or "network".
        ref: the other container, or the network's name or ID.
    """

    kind: str
    ref: str

    @property
    def user_defined(self) -> bool:
        """Names are resolved, aliases and fixed addresses allowed."""
        return self.kind == "network" and self.ref != "bridge"


def parse_mode(text: str) -> Mode:
    """ "" and "default" mean the network "bridge"."""
    if text in ("host", "none"):
        return Mode(text, text)
    kind, colon, ref = text.partition(":")
    if colon and kind == "container":
        return Mode("container", ref)
    return Mode("network", "bridge" if text in ("", "default") else text)


def check_conflicts(mode: Mode, config: ContainerConfig, host: HostConfig) -> None:
    """Options that contradict the mode. Raises InvalidParameter."""
    if mode.kind == "host" and host.Links:
        raise InvalidParameter(
            "conflicting options: host type networking can't be used with links. This would result in undefined behavior"
        )
    if mode.kind != "container":
        return
    if not mode.ref:
        raise InvalidParameter("Invalid network mode: invalid container format container:<name|id>")
    refusals = (
        (config.Hostname, "hostname and the network mode"),
        (
            host.Links,
            "container type network can't be used with links. This would result in undefined behavior",
        ),
        (host.Dns, "dns and the network mode"),
        (host.ExtraHosts, "custom host-to-IP mapping and the network mode"),
        (host.PortBindings or host.PublishAllPorts, "port publishing and the container type network mode"),
        (config.ExposedPorts, "port exposing and the container type network mode"),
    )
    for present, words in refusals:
        if present:
            raise InvalidParameter(f"conflicting options: {words}")


def check_mac(mac: str, network: str) -> None:
    """Raises InvalidParameter. "" is fine."""
    if mac and (not _MAC.match(mac) or int(mac[:2], 16) & 1):
        raise InvalidParameter(f"invalid config for network {network}: invalid MAC address {mac}")


def check_endpoint(config: EndpointConfig, network: NetworkRecord, asked_subnets: bool, *, where: str = "") -> None:
    """What is asked of one endpoint. `where` goes before the message. Raises InvalidParameter, with all the reasons."""
    reasons: list[str] = []
    predefined = network.Name in ("bridge", "host", "none")
    ipam = config.IPAMConfig
    if ipam is not None:
        for text, version in ((ipam.IPv4Address, 4), (ipam.IPv6Address, 6)):
            if text:
                _check_address(text, version, network, predefined, asked_subnets, reasons)
        reasons += [f"invalid link-local IP address: {text}" for text in ipam.LinkLocalIPs if not _is_address(text)]
    if config.Aliases and predefined:
        reasons.append("network-scoped aliases are only supported for user-defined networks")
    if reasons:
        lines = reasons[0] if len(reasons) == 1 else "\n".join(f"* {reason}" for reason in reasons)
        raise InvalidParameter(f"{where}invalid endpoint settings:\n{lines}")


def _check_address(
    text: str, version: int, network: NetworkRecord, predefined: bool, asked: bool, reasons: list[str]
) -> None:
    if predefined:
        reasons.append("user specified IP address is supported on user defined networks only")
    valid = _is_address(text, version)
    if not valid:
        reasons.append(f"invalid IPv{version} address: {text}")
    nets = [ipaddress.ip_network(pool.Subnet, strict=False) for pool in network.IPAM.Config if pool.Subnet]
    if not asked or not any(net.version == version for net in nets):
        reasons.append(
            "user specified IP address is supported only when connecting to networks with user configured subnets"
        )
    elif valid and not any(ipaddress.ip_address(text) in net for net in nets):
        reasons.append(f"no configured subnet or ip-range contain the IP address {text}")


def _is_address(text: str, version: int = 0) -> bool:
    try:
        return version in (0, ipaddress.ip_address(text).version)
    except ValueError:
        return False


def check_extra_hosts(entries: Iterable[str]) -> None:
    """`name:address`; the address may be `host-gateway`. Raises InvalidParameter."""
    for entry in entries:
        name, address = split_extra_host(entry)
        if not name or not address:
            raise InvalidParameter(f'bad format for add-host: "{entry}"')
        if address != "host-gateway" and not _is_address(address):
            raise InvalidParameter(f'invalid IP address in add-host: "{address}"')


def split_extra_host(entry: str) -> tuple[str, str]:
    """(name, address) of `name:address`; IPv6 may stand in brackets."""
    name, _, address = entry.partition(":")
    return name, address.strip().removeprefix("[").removesuffix("]")


def published_ports(config: ContainerConfig, host: HostConfig) -> list[PublishedPort]:
    """`PortBindings` and, with `PublishAllPorts`, the exposed ports that have none. Raises InvalidParameter."""
    found: list[PublishedPort] = []
    for spec, bindings in host.PortBindings.items():
        port, proto = parse_port(spec)
        for binding in bindings or [PortBinding()]:
            found.append(_published(port, proto, binding))
    if host.PublishAllPorts:
        named = {(entry.Port, entry.Proto) for entry in found}
        exposed = dict.fromkeys(parse_port(spec) for spec in exposed_ports(config.ExposedPorts, {}))
        found += [PublishedPort(Proto=proto, Port=port) for port, proto in exposed if (port, proto) not in named]
    return found


def exposed_ports(exposed: Mapping[str, Any], bindings: Mapping[str, Any]) -> list[str]:
    """`80/tcp` for each exposed or published port; ranges taken apart. Raises InvalidParameter."""
    specs: dict[str, None] = {}
    for spec in (*exposed, *bindings):
        numbers, _, proto = spec.partition("/")
        first, dash, last = numbers.partition("-")
        if dash and first.isdecimal() and last.isdecimal() and int(first) <= int(last) <= 65535:
            specs.update(dict.fromkeys(f"{number}/{proto or 'tcp'}" for number in range(int(first), int(last) + 1)))
        else:
            port, proto = parse_port(spec)
            specs[f"{port}/{proto}"] = None
    return list(specs)


def parse_port(spec: str) -> tuple[int, str]:
    """(80, "tcp") of `80/tcp` or `80`. Raises InvalidParameter."""
    number, _, proto = spec.partition("/")
    proto = proto.lower() or "tcp"
    if not number.isdecimal() or not 1 <= int(number) <= 65535:
        raise InvalidParameter(f'invalid port specification: "{spec}"')
    if proto not in _PROTOCOLS:
        raise InvalidParameter(
            f"invalid port specification {spec!r}: unknown protocol {proto!r}, want tcp, udp or sctp"
        )
    return int(number), proto


def _published(port: int, proto: str, binding: PortBinding) -> PublishedPort:
    first, dash, last = binding.HostPort.strip().partition("-")
    for text in (first, last):
        if text and (not text.isdecimal() or int(text) > 65535):
            raise InvalidParameter(f'invalid port specification: "{binding.HostPort}"')
    if dash and (not first or not last or int(first) > int(last)):
        raise InvalidParameter(f'invalid port specification: "{binding.HostPort}"')
    address = binding.HostIp.removeprefix("[").removesuffix("]")
    if address and not _is_address(address):
        raise InvalidParameter(f"invalid port binding: {binding.HostIp!r} is not an IP address")
    return PublishedPort(
        Proto=proto, Port=port, HostIp=address, HostPort=int(first or 0), HostPortEnd=int(last) if dash else 0
    )


def check_server(server: str) -> None:
    """A DNS server's address. Raises InvalidParameter."""
    if not _is_address(server):
        raise InvalidParameter(f"invalid DNS server address: {server!r} is not an IP address")

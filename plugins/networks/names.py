"""Who is called what on which network; kept in step with the endpoints that are plugged in."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from plugin_sdk.network import EndpointRecord, NetworkRecord


@dataclass(slots=True)
class View:
    """What one sandbox sees.

    Attributes:
        networks: those it is on, best first: ID to name.
        aliases: names of its own for others (links): alias to name.
        upstreams: resolvers for everything else; empty: nothing else is answered (internal networks).
    """

    networks: Mapping[str, NetworkRecord]
    aliases: Mapping[str, str] = field(default_factory=dict)
    upstreams: Sequence[str] = ()


class NameTable:
    """Names and addresses of plugged-in endpoints, by network."""

    def __init__(self) -> None:
        self._names: dict[str, dict[str, dict[str, EndpointRecord]]] = {}
        self._addresses: dict[str, dict[str, EndpointRecord]] = {}

    def add(self, endpoint: EndpointRecord) -> None:
        """An endpoint is plugged in."""
        names = self._names.setdefault(endpoint.NetworkID, {})
        for name in endpoint.DNSNames:
            names.setdefault(name.lower(), {})[endpoint.Id] = endpoint
        addresses = self._addresses.setdefault(endpoint.NetworkID, {})
        for text in _plain(endpoint):
            addresses[text] = endpoint

    def remove(self, endpoint: EndpointRecord) -> None:
        """It is unplugged; an unknown one is fine."""
        names = self._names.get(endpoint.NetworkID, {})
        for name in endpoint.DNSNames:
            holders = names.get(name.lower(), {})
            holders.pop(endpoint.Id, None)
            if not holders:
                names.pop(name.lower(), None)
        addresses = self._addresses.get(endpoint.NetworkID, {})
        for text in _plain(endpoint):
            if text in addresses and addresses[text].Id == endpoint.Id:
                del addresses[text]
        for table in (self._names, self._addresses):
            if not table.get(endpoint.NetworkID, True):
                del table[endpoint.NetworkID]

    def addresses(self, view: View, name: str, version: int) -> list[str] | None:
        """Addresses of a name (lower case, no final dot); [] when it is known and has none; None when it is unknown."""
        target = view.aliases.get(name, name)
        for network_id, network in view.networks.items():
            names = self._names.get(network_id, {})
            holders = names.get(target)
            suffix = f".{network.Name.lower()}"
            if holders is None and target.endswith(suffix):
                short = target.removesuffix(suffix)
                holders = names.get(view.aliases.get(short, short))
            if holders:
                return _shuffled(
                    str(address.ip)
                    for endpoint in holders.values()
                    for address in _interfaces(endpoint)
                    if address.version == version
                )
        return None

    def name_of(self, view: View, address: str) -> str | None:
        """`name.network` of an address, for reverse lookups."""
        for network_id, network in view.networks.items():
            endpoint = self._addresses.get(network_id, {}).get(address)
            if endpoint is not None and endpoint.DNSNames:
                return f"{endpoint.DNSNames[0]}.{network.Name}"
        return None

    def foreign(self, view: View, address: str) -> bool:
        """The address lies in one of the view's networks, so that nobody outside can know its name."""
        ip = ipaddress.ip_address(address)
        return any(
            ip in ipaddress.ip_network(pool.Subnet, strict=False)
            for network in view.networks.values()
            for pool in network.IPAM.Config
            if pool.Subnet
        )


def dns_names(container_name: str, container_id: str, hostname: str, aliases: Iterable[str]) -> list[str]:
    """The names of an endpoint on a user-defined network, each once."""
    return list(dict.fromkeys(name for name in (container_name, *aliases, container_id[:12], hostname) if name))


def _interfaces(endpoint: EndpointRecord) -> list[ipaddress.IPv4Interface | ipaddress.IPv6Interface]:
    return [ipaddress.ip_interface(text) for text in (endpoint.IPv4Address, endpoint.IPv6Address) if text]


def _plain(endpoint: EndpointRecord) -> list[str]:
    return [str(address.ip) for address in _interfaces(endpoint)]


def _shuffled(items: Iterable[str]) -> list[str]:
    found = list(items)
    random.shuffle(found)
    return found

"""Bridges and veth pairs. Blocking.

Whatever this module makes carries the engine's ID in its alias, so that two engines in one network namespace never take
each other's interfaces for their own, and a restart knows what is left over.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from plugin_sdk import Conflict, EngineError
from plugin_sdk.netlink import (
    Interface,
    Link,
    Message,
    Netlink,
    NetlinkError,
    add_address,
    add_bridge,
    add_route,
    add_veth,
    default_net,
    delete_address,
    delete_link,
    inside,
    set_bridge_port,
    set_link,
)
from plugin_sdk.network import EndpointRecord

_BRIDGE_FILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
_GONE = (errno.ENODEV, errno.ENOENT)


@dataclass(frozen=True, slots=True)
class BridgePlan:
    """A bridge as it should be. `addresses` are the gateways, with prefix; `mtu` 0 leaves it alone."""

    name: str
    addresses: Sequence[Interface]
    mtu: int = 0
    isolated: bool = False


class Links:
    """Makes and unmakes interfaces, in the daemon's network namespace and in sandboxes.

    Args:
        engine_id: written into the alias of all that it makes.
    """

    def __init__(self, engine_id: str) -> None:
        self._mark = f"engine {engine_id}"

    def owned(self, link: Link) -> bool:
        """This engine made it."""
        return link.alias.split(" ")[:2] == self._mark.split(" ")

    def claim_bridge(self, wanted: str, fallback: str) -> str:
        """`wanted` if it is free or ours, and then it exists, so that nobody else takes it; else `fallback`."""
        with Netlink() as netlink:
            for name in (wanted, fallback):
                try:
                    # One after the other: the alias of a bridge that exists is somebody else's.
                    netlink.run(add_bridge(name))
                    netlink.run(set_link(name, alias=self._mark))
                    return name
                except NetlinkError as error:
                    if error.errno != errno.EEXIST:
                        raise
                if any(link.name == name and self.owned(link) for link in netlink.links()):
                    return name
        raise Conflict(f"the bridges {wanted} and {fallback} both belong to others; choose one with --bridge")

    def ensure_bridge(self, plan: BridgePlan) -> int:
        """Make the bridge, or adjust one that exists; gives its index. One that others made keeps its own addresses."""
        with Netlink() as netlink:
            existing = next((link for link in netlink.links() if link.name == plan.name), None)
            mac = mac_of(plan.addresses[0]) if plan.addresses else ""
            if existing is None:
                netlink.run(add_bridge(plan.name))
                netlink.run(set_link(plan.name, alias=self._mark))
            elif existing.kind != "bridge":
                raise Conflict(f"{plan.name} exists and is no bridge; choose another name")
            index = socket.if_nametoindex(plan.name)
            present = {address for link, address in netlink.addresses() if link == index}
            messages = [add_address(index, address) for address in plan.addresses if address not in present]
            if existing is None or self.owned(existing):
                wanted = set(plan.addresses)
                stale = [a for a in present if a not in wanted and not a.ip.is_link_local]
                messages = [delete_address(index, address) for address in stale] + messages
                # An address of its own: else a bridge takes that of a port, and changes it when the port goes.
                messages.append(set_link(index, mac=mac))
            _set_sysctls(plan)
            netlink.run(*messages, set_link(index, up=True, mtu=plan.mtu))
            return index

    def remove_bridge(self, name: str) -> None:
        """Remove it, if this engine made it."""
        with Netlink() as netlink:
            if any(link.name == name and self.owned(link) for link in netlink.links()):
                netlink.run(delete_link(name), ignore=_GONE)

    def bridge_addresses(self, name: str) -> list[Interface]:
        """Addresses of an existing interface; [] when there is none."""
        with Netlink() as netlink:
            index = next((link.index for link in netlink.links() if link.name == name), None)
            return [address for link, address in netlink.addresses() if link == index and not address.ip.is_link_local]

    def plug(self, bridge: int, plan: BridgePlan, endpoint: EndpointRecord, sandbox: Path, interface: str) -> None:
        """A veth pair from the bridge into the sandbox, configured. Repeating it is fine."""
        name = host_end(endpoint)
        descriptor = os.open(sandbox, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with Netlink() as netlink:
                pair = (
                    add_veth(name, interface, descriptor, master=bridge, mtu=plan.mtu, peer_mac=endpoint.MacAddress),
                    set_link(name, alias=f"{self._mark} {endpoint.Id}"),
                )
                try:
                    netlink.run(*pair)
                except NetlinkError as error:
                    if error.errno != errno.EEXIST:
                        raise
                    netlink.run(delete_link(name), ignore=_GONE)
                    netlink.run(*pair)
                hairpin = bool(endpoint.Ports) and _bridges_filter()
                if plan.isolated or hairpin:
                    index = socket.if_nametoindex(name)
                    netlink.run(set_bridge_port(index, isolated=plan.isolated, hairpin=hairpin))
            with inside(descriptor), Netlink() as netlink:
                netlink.run(*_inner(endpoint, interface))
        finally:
            os.close(descriptor)

    def unplug(self, endpoint: EndpointRecord) -> None:
        """Remove the pair."""
        with Netlink() as netlink:
            netlink.run(delete_link(host_end(endpoint)), ignore=_GONE)

    def detach(self, endpoint: EndpointRecord) -> None:
        """Take the pair off the bridge: 0.1 ms, where removing it takes 25. Its address answers no more."""
        with Netlink() as netlink:
            netlink.run(set_link(host_end(endpoint), master=0), ignore=_GONE)

    def sweep(self, endpoints: Collection[str], bridges: Collection[str]) -> list[str]:
        """Remove what this engine made and nobody owns any more; gives the names.

        Args:
            endpoints: IDs of those that are plugged in.
            bridges: names of the networks' bridges.
        """
        with Netlink() as netlink:
            gone = []
            for link in netlink.links():
                if not self.owned(link):
                    continue
                owner = link.alias.split(" ")[2:]
                if (owner and owner[0] not in endpoints) or (not owner and link.name not in bridges):
                    netlink.run(delete_link(link.name), ignore=_GONE)
                    gone.append(link.name)
            return gone


def host_end(endpoint: EndpointRecord) -> str:
    """Name of the pair's end in the daemon's namespace: follows from the endpoint, so that it need not be stored."""
    return f"veth{endpoint.Id[:8]}"


def mac_of(address: Interface) -> str:
    """A hardware address made of an IPv4 address: whoever gets the address next has the same, and no ARP cache is stale."""
    raw = address.ip.packed
    return bytes((0x02, 0x42, *raw[-4:])).hex(":")


def write_sysctl(name: str, value: str, *, required: bool = True) -> None:
    """`net/ipv4/ip_forward` and the like, in the calling thread's network namespace. Raises EngineError."""
    path = Path("/proc/sys") / name
    try:
        if path.read_text().strip() != value:
            path.write_text(value)
    except OSError as error:
        if required:
            raise EngineError(f"cannot set {path} to {value}: {error.strerror}") from None


def forward_ipv6() -> None:
    """Forward IPv6. Interfaces that learn their routes from router advertisements go on doing so: without this, the
    kernel stops listening to them when it forwards, and the host loses its default route. Raises EngineError."""
    for path in Path("/proc/sys/net/ipv6/conf").glob("*/accept_ra"):
        if path.parent.name not in ("all", "default") and path.read_text().strip() == "1":
            write_sysctl(f"net/ipv6/conf/{path.parent.name}/accept_ra", "2", required=False)
    write_sysctl("net/ipv6/conf/all/forwarding", "1")


def _inner(endpoint: EndpointRecord, interface: str) -> list[Message]:
    index = socket.if_nametoindex(interface)
    if endpoint.IPv6Address:
        write_sysctl(f"net/ipv6/conf/{interface}/disable_ipv6", "0")
    messages = [set_link(index, up=True)]
    for text in (endpoint.IPv4Address, endpoint.IPv6Address):
        if text:
            messages.append(add_address(index, ipaddress.ip_interface(text)))
    if endpoint.DefaultRoute:
        for text in (endpoint.Gateway, endpoint.IPv6Gateway):
            if text:
                gateway = ipaddress.ip_address(text)
                messages.append(add_route(index, default_net(gateway.version), gateway, replace=True))
    return messages


def _bridges_filter() -> bool:
    # With br_netfilter a packet to a port that its sender itself publishes is translated while it is being bridged, and
    # would have to leave by the port that it came from.
    try:
        return _BRIDGE_FILTER.read_text().strip() == "1"
    except OSError:
        return False


def _set_sysctls(plan: BridgePlan) -> None:
    # 127.0.0.1 of the host is led to containers; the firewall keeps containers away from it (chain `guard`).
    write_sysctl(f"net/ipv4/conf/{plan.name}/route_localnet", "1", required=False)
    # A container must not become the host's IPv6 router by sending advertisements.
    write_sysctl(f"net/ipv6/conf/{plan.name}/accept_ra", "0", required=False)
    if any(address.version == 6 for address in plan.addresses):
        write_sysctl(f"net/ipv6/conf/{plan.name}/disable_ipv6", "0", required=False)

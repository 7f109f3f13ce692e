"""Interfaces and default routes inside sandboxes, for drivers that leave them to the engine. Blocking.

An interface's name may come from a plugin that is mistaken or hostile, so `place` takes only what looks made for a container:
none that is the host's, a bridge, a bridge's port, or that carries the host's addresses.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
import struct
from pathlib import Path

from plugin_sdk.netlink import (
    Link,
    Message,
    Netlink,
    NetlinkError,
    Route,
    add_address,
    add_route,
    default_net,
    delete_route,
    inside,
    set_link,
)
from plugin_sdk.network import EndpointRecord, JoinInfo

_GONE = (errno.ESRCH, errno.ENODEV, errno.ENOENT)
_NAME = re.compile(r"[^\s/:%\x00-\x1f\x7f]{1,15}\Z", re.ASCII)
_MASTERS = ("bridge", "bond", "team", "vrf", "openvswitch")
"""Kinds of interfaces on which others hang."""
_USUAL_PREFIX = "eth"
_NUMBERS = 100
_ETH_ARP = 0x0806


def valid_name(name: str) -> bool:
    """Whether an interface can be called so."""
    return bool(_NAME.match(name)) and name.isascii() and name not in (".", "..", "all", "default")


def place(sandbox: Path, info: JoinInfo, endpoint: EndpointRecord) -> tuple[str, str]:
    """Move the driver's interface into the sandbox, name it, and give it addresses; gives its name there and its MAC.

    Raises OSError: there is no such interface, or it is one that may not be moved.
    """
    descriptor = os.open(sandbox, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with Netlink() as netlink:
            index = _source(netlink, info.src_name)
            with inside(descriptor), Netlink() as there:
                taken = {link.name for link in there.links()}
            name = _move(netlink, index, descriptor, info, endpoint, taken)
        try:
            with inside(descriptor), Netlink() as netlink:
                return name, _address(netlink, name, endpoint)
        except OSError:
            take_out(sandbox, name, info.src_name)
            raise
    finally:
        os.close(descriptor)


def _source(netlink: Netlink, name: str) -> int:
    """Index of an interface that a container may have. Raises OSError."""
    links = netlink.links()
    link = next((link for link in links if link.name == name), None)
    if link is None:
        raise OSError(f"there is no interface {name!r} to move into the container")
    if why := _not_to_be_moved(link, netlink):
        raise OSError(f"interface {name!r} is not moved into the container: {why}")
    return link.index


def _not_to_be_moved(link: Link, netlink: Netlink) -> str:
    if link.name == "lo":
        return "it is the host's loopback"
    if link.kind in _MASTERS:
        return f"it is a {link.kind}"
    if link.master:
        return "it is the port of a bridge"
    own = [str(address) for index, address in netlink.addresses() if index == link.index and not address.is_link_local]
    if own:
        return f"it has addresses of the host ({', '.join(own)})"
    if any(route.link == link.index and not route.destination.is_link_local for route in _unicast(netlink)):
        return "the host's routes lead over it"
    return ""


def _unicast(netlink: Netlink) -> list[Route]:
    return [route for route in netlink.routes() if not route.destination.is_multicast]


def _move(
    netlink: Netlink, index: int, descriptor: int, info: JoinInfo, endpoint: EndpointRecord, taken: set[str]
) -> str:
    for name in _names(info, endpoint):
        if name in taken:
            if info.dst_name:
                raise OSError(f"the container has an interface {name!r} already")
            continue
        try:
            netlink.run(set_link(index, up=False), set_link(index, netns=descriptor, name=name))
        except NetlinkError as error:
            # Another network's interface may have come in between under that name.
            if error.errno != errno.EEXIST or info.dst_name:
                raise
        else:
            return name
    raise OSError("no name is free for the container's interface")


def _names(info: JoinInfo, endpoint: EndpointRecord) -> list[str]:
    if info.dst_name:
        return [info.dst_name]
    prefix = info.dst_prefix or _USUAL_PREFIX
    own = [endpoint.Interface] if prefix == _USUAL_PREFIX and endpoint.Interface else []
    return own + [name for number in range(_NUMBERS) if valid_name(name := f"{prefix}{number}")]


def _address(netlink: Netlink, name: str, endpoint: EndpointRecord) -> str:
    """Inside the sandbox: addresses, up; gives the MAC."""
    index = socket.if_nametoindex(name)
    if endpoint.IPv6Address:
        Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("0")
        # Neighbours may still know the address under another interface's MAC; see `announcer` for IPv4.
        Path(f"/proc/sys/net/ipv6/conf/{name}/ndisc_notify").write_text("1")
    if endpoint.MacAddress:
        netlink.run(set_link(index, mac=endpoint.MacAddress))
    own = [ipaddress.ip_interface(text) for text in (endpoint.IPv4Address, endpoint.IPv6Address) if text]
    netlink.run(*[add_address(index, address) for address in own], set_link(index, up=True))
    return next((link.mac for link in netlink.links() if link.index == index), endpoint.MacAddress)


def take_out(sandbox: Path, interface: str, name: str) -> None:
    """The way back of `place`: into this namespace, under its old name. What is not there any more is fine."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with inside(sandbox), Netlink() as netlink:
            index = next((link.index for link in netlink.links() if link.name == interface), 0)
            if index:
                netlink.run(set_link(index, up=False), set_link(index, netns=home, name=name), ignore=_GONE)
    except FileNotFoundError:
        return
    finally:
        os.close(home)


def announcer(sandbox: Path, interface: str) -> socket.socket:
    """A socket for `announcement`s on an interface of the sandbox."""
    with inside(sandbox):
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sender.bind((interface, _ETH_ARP))
        except OSError:
            sender.close()
            raise
    return sender


def announcement(mac: str, address: str) -> bytes:
    """A gratuitous ARP request (RFC 5227): neighbours that know the IPv4 address (CIDR) take over its new MAC."""
    source, plain = bytes.fromhex(mac.replace(":", "")), ipaddress.ip_interface(address).ip.packed
    header = b"\xff" * 6 + source + struct.pack("!H", _ETH_ARP)
    return header + struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + source + plain + bytes(6) + plain


def add_routes(sandbox: Path, info: JoinInfo, interface: str) -> None:
    """The driver's static routes, for an interface that is in place."""
    messages: list[Message] = []
    with inside(sandbox), Netlink() as netlink:
        for route in info.routes:
            hop = ipaddress.ip_address(route.next_hop) if route.next_hop else None
            index = socket.if_nametoindex(interface)
            messages.append(add_route(index, ipaddress.ip_network(route.destination, strict=False), hop, replace=True))
        if messages:
            netlink.run(*messages)


def set_default_route(sandbox: Path, endpoint: EndpointRecord | None) -> None:
    """Lead the sandbox's default routes over this endpoint; None: nowhere."""
    with inside(sandbox), Netlink() as netlink:
        old = [route for route in netlink.routes() if not route.destination.prefixlen]
        messages = [delete_route(route.link, route.destination, route.gateway) for route in old]
        if endpoint is not None:
            index = socket.if_nametoindex(endpoint.Interface)
            for text in (endpoint.Gateway, endpoint.IPv6Gateway):
                if text:
                    gateway = ipaddress.ip_address(text)
                    messages.append(add_route(index, default_net(gateway.version), gateway, replace=True))
        if messages:
            netlink.run(*messages, ignore=_GONE)

"""Interfaces and default routes inside sandboxes, for drivers that leave them to the engine. Blocking."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from pathlib import Path

from plugin_sdk.netlink import (
    Message,
    Netlink,
    add_address,
    add_route,
    default_net,
    delete_route,
    inside,
    set_link,
)
from plugin_sdk.network import EndpointRecord, JoinInfo

_GONE = (errno.ESRCH, errno.ENODEV, errno.ENOENT)


def place(info: JoinInfo, endpoint: EndpointRecord, sandbox: Path) -> None:
    """Move the driver's interface into the sandbox, name it, and give it addresses and routes."""
    name = info.dst_name or endpoint.Interface
    descriptor = os.open(sandbox, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with Netlink() as netlink:
            index = socket.if_nametoindex(info.src_name)
            netlink.run(set_link(index, up=False), set_link(index, netns=descriptor, name=name))
        with inside(descriptor), Netlink() as netlink:
            index = socket.if_nametoindex(name)
            if endpoint.IPv6Address:
                Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("0")
            messages = [set_link(index, up=True, mac=endpoint.MacAddress)]
            for text in (endpoint.IPv4Address, endpoint.IPv6Address):
                if text:
                    messages.append(add_address(index, ipaddress.ip_interface(text)))
            netlink.run(*messages)
            _add_routes(netlink, info, index)
    finally:
        os.close(descriptor)


def add_routes(info: JoinInfo, sandbox: Path, interface: str) -> None:
    """The driver's static routes, for an interface that is in place."""
    with inside(sandbox), Netlink() as netlink:
        _add_routes(netlink, info, socket.if_nametoindex(interface))


def _add_routes(netlink: Netlink, info: JoinInfo, index: int) -> None:
    messages: list[Message] = []
    for route in info.routes:
        hop = ipaddress.ip_address(route.next_hop) if route.next_hop else None
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

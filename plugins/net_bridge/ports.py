"""Host ports: who has which, checked against everything else on the host by really binding them. Nothing here waits."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from plugin_sdk import Conflict, InvalidParameter, NotSupported
from plugin_sdk.network import EndpointRecord, PublishedPort

_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_DEFAULT_RANGE = (32768, 60999)
_KINDS = {"tcp": (socket.SOCK_STREAM, 0), "udp": (socket.SOCK_DGRAM, 0), "sctp": (socket.SOCK_STREAM, 132)}


@dataclass(slots=True)
class _Held:
    port: PublishedPort
    endpoint: str
    socket: socket.socket | None


class PortAllocator:
    """Holds a bound socket for each published port, so that no other program can take it."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, int], list[_Held]] = {}
        self._next = 0

    def take(self, endpoint: EndpointRecord, host_ip: str) -> list[PublishedPort]:
        """Ports of an endpoint, all or none; what it already holds is kept.

        Args:
            host_ip: for ports that name no address; "": all addresses, of IPv6 too if the endpoint has one.

        Raises:
            Conflict: a port is in use, in dockerd's words. InvalidParameter: no such address on this host.
        """
        taken: list[PublishedPort] = []
        fresh: list[PublishedPort] = []
        try:
            for wanted in endpoint.Ports:
                for port in self._take_one(endpoint, wanted, _addresses(wanted, endpoint, host_ip), fresh):
                    if port not in taken:
                        taken.append(port)
        except BaseException:
            for port in fresh:
                self._drop(port, endpoint.Id)
            raise
        return taken

    def give_back(self, endpoint_id: str) -> None:
        """All of an endpoint's ports."""
        for held in [held for group in self._held.values() for held in group if held.endpoint == endpoint_id]:
            self._drop(held.port, endpoint_id)

    def close(self) -> None:
        """Close all sockets."""
        for group in self._held.values():
            for held in group:
                if held.socket is not None:
                    held.socket.close()
        self._held = {}

    def _take_one(
        self, endpoint: EndpointRecord, wanted: PublishedPort, addresses: list[str], fresh: list[PublishedPort]
    ) -> list[PublishedPort]:
        failure: Conflict | None = None
        for number in self._candidates(wanted):
            found: list[PublishedPort] = []
            try:
                for address in addresses:
                    port = PublishedPort(Proto=wanted.Proto, Port=wanted.Port, HostIp=address, HostPort=number)
                    if self._hold(endpoint, port):
                        fresh.append(port)
                    found.append(port)
                return found
            except Conflict as error:
                failure = error
                for port in found:
                    if port in fresh:
                        fresh.remove(port)
                        self._drop(port, endpoint.Id)
        if failure is not None and wanted.HostPort and wanted.HostPortEnd <= wanted.HostPort:
            raise failure
        raise Conflict(f"{_failed(endpoint)}: all ports are allocated")

    def _candidates(self, wanted: PublishedPort) -> Iterable[int]:
        if wanted.HostPort:
            return range(wanted.HostPort, max(wanted.HostPortEnd, wanted.HostPort) + 1)
        first, last = _ephemeral_range()
        start = self._next if first <= self._next <= last else first
        self._next = start + 1
        return chain(range(start, last + 1), range(first, start))

    def _hold(self, endpoint: EndpointRecord, port: PublishedPort) -> bool:
        """Gives False when the endpoint has it already."""
        group = self._held.get((port.Proto, port.HostPort), [])
        for held in group:
            if held.endpoint == endpoint.Id and held.port == port:
                return False
            if _overlap(held.port.HostIp, port.HostIp):
                shown = f"[{port.HostIp}]" if ":" in port.HostIp else port.HostIp
                raise Conflict(
                    f"{_failed(endpoint)}: Bind for {shown}:{port.HostPort} failed: port is already allocated"
                )
        bound = _bind(endpoint, port)
        self._held.setdefault((port.Proto, port.HostPort), []).append(_Held(port, endpoint.Id, bound))
        return True

    def _drop(self, port: PublishedPort, endpoint_id: str) -> None:
        key = (port.Proto, port.HostPort)
        left = []
        for held in self._held.pop(key, []):
            if held.port == port and held.endpoint == endpoint_id:
                if held.socket is not None:
                    held.socket.close()
            else:
                left.append(held)
        if left:
            self._held[key] = left


def _addresses(wanted: PublishedPort, endpoint: EndpointRecord, host_ip: str) -> list[str]:
    if wanted.HostIp == "::1":
        raise NotSupported(f"{_failed(endpoint)}: ports cannot be published on [::1]; publish on 127.0.0.1 instead")
    if wanted.HostIp:
        return [wanted.HostIp]
    if host_ip and (endpoint.IPv4Address or ":" in host_ip):
        return [host_ip]
    return (["0.0.0.0"] if endpoint.IPv4Address else []) + (["::"] if endpoint.IPv6Address else [])


def _bind(endpoint: EndpointRecord, port: PublishedPort) -> socket.socket | None:
    kind, protocol = _KINDS[port.Proto]
    version = ipaddress.ip_address(port.HostIp).version
    try:
        held = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, kind | socket.SOCK_CLOEXEC, protocol)
    except OSError as error:
        if error.errno in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.ESOCKTNOSUPPORT):
            # Without the protocol in this kernel nobody else can bind the port either.
            return None
        raise
    try:
        if version == 6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        _bind_patiently(held, port)
    except OSError as error:
        held.close()
        target = endpoint.IPv4Address.partition("/")[0] or endpoint.IPv6Address.partition("/")[0]
        shown = f"[{port.HostIp}]" if version == 6 else port.HostIp
        reason = os.strerror(error.errno or 0).lower()
        words = f"{_failed(endpoint)}: failed to bind host port for {shown}:{port.HostPort}:{target}:{port.Port}/{port.Proto}: {reason}"
        if error.errno == errno.EADDRNOTAVAIL:
            raise InvalidParameter(words) from None
        raise Conflict(words) from None
    return held


def _bind_patiently(held: socket.socket, port: PublishedPort) -> None:
    try:
        held.bind((port.HostIp, port.HostPort))
    except OSError as error:
        if error.errno != errno.EADDRINUSE or port.Proto != "tcp":
            raise
        # Dying connections of a program that has ended are no reason to refuse; a listener still is, and refuses this too.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((port.HostIp, port.HostPort))
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)


def _overlap(one: str, other: str) -> bool:
    if (":" in one) != (":" in other):
        return False
    return one == other or one in ("0.0.0.0", "::") or other in ("0.0.0.0", "::")


def _failed(endpoint: EndpointRecord) -> str:
    return f"driver failed programming external connectivity on endpoint {endpoint.ContainerName} ({endpoint.Id})"


def _ephemeral_range() -> tuple[int, int]:
    try:
        first, last = _RANGE_FILE.read_text().split()
        return int(first), int(last)
    except (OSError, ValueError):
        return _DEFAULT_RANGE

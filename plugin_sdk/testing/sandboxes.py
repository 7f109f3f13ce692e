"""Network namespaces for checks: what a container's sandbox is to a network driver. The functions block."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from kernel.contracts.network import EndpointRecord, JoinInfo
from kernel.errors import NotSupported
from plugin_sdk.netlink import Netlink, add_address, inside, set_link

_READY_SECONDS = 5.0


class Sandbox:
    """A network namespace that lasts until `close`. Needs root and util-linux' `unshare`."""

    def __init__(self) -> None:
        try:
            self._holder = subprocess.Popen(
                ["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        except FileNotFoundError:
            raise NotSupported("the program unshare (util-linux) is needed to try network drivers") from None
        self.path = Path(f"/proc/{self._holder.pid}/ns/net")
        own, end = os.readlink("/proc/self/ns/net"), time.monotonic() + _READY_SECONDS
        try:
            while os.readlink(self.path) == own or not self._named("cat"):
                if self._holder.poll() is not None or time.monotonic() > end:
                    raise NotSupported("no network namespace can be made here: is this root?")
                time.sleep(0.002)
            with self.entered() as netlink:
                netlink.run(set_link("lo", up=True))
        except BaseException:
            self.close()
            raise

    def _named(self, name: str) -> bool:
        return Path(f"/proc/{self._holder.pid}/comm").read_text().strip() == name

    @contextlib.contextmanager
    def entered(self) -> Iterator[Netlink]:
        """This thread is inside."""
        with inside(self.path), Netlink() as netlink:
            yield netlink

    def links(self) -> dict[str, str]:
        """Interfaces but the loopback: name to hardware address."""
        with self.entered() as netlink:
            return {link.name: link.mac for link in netlink.links() if link.name != "lo"}

    def addresses(self) -> set[str]:
        """Addresses with prefix length, those of the loopback and link-local ones left out."""
        with self.entered() as netlink:
            found = [interface for _, interface in netlink.addresses()]
        return {str(each) for each in found if not each.ip.is_loopback and not each.ip.is_link_local}

    def place(self, info: JoinInfo, endpoint: EndpointRecord) -> str:
        """Do what the engine does with a driver's answer to `join`; gives the interface's name inside.

        Source: Docker's remote network driver protocol, "Join": the engine moves SrcName into the sandbox, names and
        addresses it.
        """
        name = info.dst_name or endpoint.Interface
        if not info.src_name:
            return name
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with Netlink() as netlink:
                index = socket.if_nametoindex(info.src_name)
                netlink.run(set_link(index, up=False), set_link(index, netns=descriptor, name=name))
        finally:
            os.close(descriptor)
        with self.entered() as netlink:
            index = socket.if_nametoindex(name)
            given = [text for text in (endpoint.IPv4Address, endpoint.IPv6Address) if text]
            addresses = [add_address(index, ipaddress.ip_interface(text)) for text in given]
            netlink.run(set_link(index, up=True, mac=endpoint.MacAddress), *addresses)
        return name

    def listen(self) -> socket.socket:
        """A TCP socket inside that listens on all addresses."""
        with self.entered():
            listener = socket.create_server(("0.0.0.0", 0))
        listener.settimeout(10)
        return listener

    def reaches(self, address: str, port: int, *, seconds: float = 5.0) -> bool:
        """A TCP connection from inside comes about."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with self.entered():
                client = socket.socket(socket.AF_INET)
            with client:
                client.settimeout(1)
                if client.connect_ex((address, port)) == 0:
                    return True
            time.sleep(0.05)
        return False

    def close(self) -> None:
        """Let it go, with all that is in it."""
        self._holder.kill()
        self._holder.wait()
        if self._holder.stdin is not None:
            self._holder.stdin.close()

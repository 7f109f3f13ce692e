"""Records as datagrams: over UDP, and to sockets of this machine (syslog, journald).

UDP tells nobody whether a datagram arrived. What can be known is used: a port where nobody listens answers with an ICMP
message, which the kernel reports on the socket. On this machine that is at once and exact.
"""

from __future__ import annotations

import array
import asyncio
import errno
import fcntl
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress

from plugin_sdk import Unavailable

from .links import CONNECT_DEADLINE, STALL_DEADLINE, Address, Progress

BURST = 64
"""Datagrams after which a short rest lets the receiver's buffer empty: UDP drops what finds no room."""
REST = 0.002
PROBE = 0.1
"""Seconds after a failure that a first datagram gets to be refused before the others follow."""
SEND_BUFFER = 8 << 20
"""Bytes asked for: a datagram to a local socket has to fit. The kernel gives what it allows."""

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class DatagramLink:
    """Fulfils `links.Link`.

    Args:
        address: of scheme udp or unixgram.
        divide: a record as datagrams, each of which may be sent before the last one has arrived.
        by_memory: a datagram that is too large goes as a sealed memfd, as systemd-journald takes it.
    """

    def __init__(
        self,
        address: Address,
        *,
        divide: Callable[[bytes], Sequence[bytes]] | None = None,
        by_memory: bool = False,
    ) -> None:
        self.address = address
        self._divide = divide
        self._by_memory = by_memory
        self._socket: socket.socket | None = None
        self._doubtful = False
        self._count = 0
        self._turn = 0

    async def connect(self) -> None:
        """See `Link.connect`."""
        if self._socket is not None:
            return
        try:
            async with asyncio.timeout(CONNECT_DEADLINE):
                self._socket = await self._connected()
        except TimeoutError:
            raise Unavailable(
                f"dial {self.address}: the name could not be looked up within {CONNECT_DEADLINE:g} s"
            ) from None
        except OSError as error:
            raise Unavailable(f"dial {self.address}: connect: {error.strerror or error}") from None

    async def _connected(self) -> socket.socket:
        if self.address.path:
            return _local(self.address.path)
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self.address.host, self.address.port, type=socket.SOCK_DGRAM)
        problem: OSError | None = None
        # A name may have two addresses of which one is served: connecting tells nothing, a refusal does.
        turn = self._turn % len(found) if found else 0
        for family, kind, protocol, _, where in [*found[turn:], *found[:turn]]:
            made = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
            try:
                # Of a datagram socket this waits for nothing.
                made.connect(where)
                return made
            except OSError as error:
                made.close()
                problem = error
        raise problem or OSError(errno.EADDRNOTAVAIL, "the name has no address")

    async def send(self, records: Sequence[bytes], progress: Progress) -> None:
        """See `Link.send`."""
        await self.connect()
        assert self._socket is not None
        try:
            for record in records:
                await self._send(self._socket, record)
                progress.sent += 1
        except TimeoutError:
            await self.close()
            raise Unavailable(f"write {self.address}: the receiver took nothing for {STALL_DEADLINE:g} s") from None
        except OSError as error:
            await self.close()
            self._doubtful = True
            self._turn += 1
            raise Unavailable(f"write {self.address}: {error.strerror or error}") from None

    async def _send(self, made: socket.socket, record: bytes) -> None:
        for datagram in self._divide(record) if self._divide is not None else (record,):
            await self._put(made, datagram)
            self._count += 1
            if not self.address.path and self._count % BURST == 0:
                await asyncio.sleep(REST)
        if not self.address.path:
            await self._heard(made)

    async def _heard(self, made: socket.socket) -> None:
        """Raise the refusal of what was just sent, as far as it has come."""
        if self._doubtful:
            await asyncio.sleep(PROBE)
            self._doubtful = False
        failed = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failed:
            raise OSError(failed, os.strerror(failed))

    async def _put(self, made: socket.socket, datagram: bytes) -> None:
        while True:
            try:
                made.send(datagram)
                return
            except BlockingIOError:
                await _writable(made)
            except OSError as error:
                if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS) or not self._by_memory:
                    raise
                await self._put_memory(made, datagram)
                return

    async def _put_memory(self, made: socket.socket, datagram: bytes) -> None:
        descriptor = os.memfd_create("log-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            view = memoryview(datagram)
            while view:
                view = view[os.write(descriptor, view) :]
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            rights = array.array("i", [descriptor]).tobytes()
            while True:
                try:
                    made.sendmsg([], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
                    return
                except BlockingIOError:
                    await _writable(made)
        finally:
            os.close(descriptor)

    async def close(self) -> None:
        """See `Link.close`."""
        made, self._socket = self._socket, None
        if made is not None:
            made.close()


def _local(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        with suppress(OSError):
            made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        made.connect(path)
    except BaseException:
        made.close()
        raise
    return made


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def _writable(made: socket.socket) -> None:
    """Raises TimeoutError."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(made, _set, ready)
    try:
        async with asyncio.timeout(STALL_DEADLINE):
            await ready
    finally:
        loop.remove_writer(made)

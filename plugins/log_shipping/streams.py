"""Records over TCP, TLS and stream sockets of this machine.

What was written to such a socket may still be lost with its receiver. The kernel knows how much the other side has: of a
TCP connection what the peer's kernel acknowledged, of a local socket whether all was read (ioctl SIOCOUTQ, tcp(7),
unix(7)). A record counts as sent when that is so; if a connection breaks, the others are sent again.

A peer that has read all it acknowledged closes with FIN. One that dies with unread bytes resets the connection, and how many
those are nobody can say: then all records of the present `send` are sent again, rather twice than not at all.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import ssl
import struct
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

from plugin_sdk import InvalidParameter, Unavailable

from .links import CONNECT_DEADLINE, STALL_DEADLINE, Address, Progress

WINDOW = 64 << 10
"""Bytes under way at most."""
REPLY_LIMIT = 64 << 10
GOODBYE = 1.0
"""Seconds for the end of a TLS connection. All that counts as sent has arrived before."""

_SIOCOUTQ = 0x5411
_TCP_USER_TIMEOUT = 18
_PAUSES = (0.0002, 0.02)


class _Wire(asyncio.Protocol):
    """The protocol's side of a connection: says when it broke, and keeps what comes back."""

    def __init__(self) -> None:
        self.broken = ""
        self.ended = False
        self.reset = False
        self.received = bytearray()
        self.came = asyncio.Event()
        self.over = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        # Receivers that answer unasked are not listened to without bound.
        self.received += data[: REPLY_LIMIT - len(self.received)]
        self.came.set()

    def eof_received(self) -> None:
        self.ended = True
        self.broken = self.broken or "the receiver closed the connection"
        self.came.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.reset = self.reset or error is not None
        self.broken = self.broken or (str(error) if error else "the connection was closed")
        self.came.set()
        self.over.set()


class StreamLink:
    """Fulfils `links.Link`.

    Args:
        security: makes the settings of TLS; blocking, called at each connecting. None: no TLS.
        server_name: the name that the certificate must have, if not the address's.
    """

    def __init__(
        self, address: Address, security: Callable[[], ssl.SSLContext] | None = None, server_name: str = ""
    ) -> None:
        self.address = address
        self._security = security
        self._server_name = server_name
        self._wire: _Wire | None = None
        self._transport: Any = None
        self._under: Any = None
        self._written = 0
        self._confirmed = 0

    async def connect(self) -> None:
        """See `Link.connect`."""
        if self._wire is not None and not self._wire.broken:
            return
        self._drop()
        try:
            async with asyncio.timeout(CONNECT_DEADLINE):
                await self._connect()
        except TimeoutError:
            self._drop()
            raise Unavailable(f"dial {self.address}: no connection within {CONNECT_DEADLINE:g} s") from None
        except ssl.SSLCertVerificationError as error:
            self._drop()
            raise InvalidParameter(f"dial {self.address}: tls: {error.verify_message or error}") from None
        except OSError as error:
            self._drop()
            raise Unavailable(f"dial {self.address}: connect: {_words(error)}") from None

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        context = await asyncio.to_thread(self._security) if self._security is not None else None
        wire = _Wire()
        if self.address.path:
            self._transport, _ = await loop.create_unix_connection(lambda: wire, self.address.path)
        else:
            # Names are looked up in a thread.
            self._transport, _ = await loop.create_connection(lambda: wire, self.address.host, self.address.port)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._socket.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, int(STALL_DEADLINE * 1000))
        self._under = self._transport
        if context is not None:
            name = self._server_name or self.address.host
            self._transport = await loop.start_tls(self._under, wire, context, server_hostname=name)
        self._written = self._confirmed = 0
        self._wire = wire

    @property
    def _socket(self) -> Any:
        return self._transport.get_extra_info("socket")

    async def send(self, records: Sequence[bytes], progress: Progress) -> None:
        """See `Link.send`."""
        await self.connect()
        ends = [self._written + end for end in accumulate(map(len, records))]
        try:
            await self._send(records)
        except BaseException as error:
            if not self._unread(error):
                progress.sent = bisect_right(ends, self._confirmed)
            self._drop()
            if isinstance(error, OSError):
                raise Unavailable(f"write {self.address}: {_words(error)}") from None
            raise
        progress.sent = len(records)

    def _unread(self, error: BaseException) -> bool:
        """The receiver may not have read what its kernel acknowledged."""
        ended = self._wire is not None and self._wire.ended
        reset = isinstance(error, OSError) and error.errno != errno.ETIMEDOUT
        return reset and not ended and not self.address.path

    async def _send(self, records: Sequence[bytes]) -> None:
        batch: list[bytes] = []
        size = 0
        for record in records:
            batch.append(record)
            size += len(record)
            if size >= WINDOW // 2:
                await self._write(b"".join(batch))
                batch, size = [], 0
        await self._write(b"".join(batch))
        await self._until(0)

    async def _write(self, data: bytes) -> None:
        await self._until(WINDOW // 2)
        self._transport.write(data)
        self._written += len(data)

    async def _until(self, left: int) -> None:
        """Wait until the receiver has all but `left` bytes. Raises OSError."""
        loop = asyncio.get_running_loop()
        pause, since, before = _PAUSES[0], loop.time(), -1
        while (waiting := self._waiting()) > left:
            if waiting != before:
                since, before = loop.time(), waiting
            elif loop.time() - since > STALL_DEADLINE:
                raise OSError(errno.ETIMEDOUT, f"the receiver took nothing for {STALL_DEADLINE:g} s")
            await asyncio.sleep(pause)
            pause = min(pause * 2, _PAUSES[1])

    def _waiting(self) -> int:
        """Bytes written that the receiver may not have; notes what it has. Raises OSError when the connection broke."""
        wire = self._wire
        assert wire is not None
        if wire.broken and self._transport.is_closing():
            raise OSError(errno.ECONNRESET, wire.broken)
        queued = fcntl.ioctl(self._socket.fileno(), _SIOCOUTQ, b"\0\0\0\0")
        waiting: int = self._under.get_write_buffer_size() + struct.unpack("i", queued)[0]
        if self._transport is not self._under:
            waiting += self._transport.get_write_buffer_size()
        failed = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failed or wire.reset:
            # A receiver that died with unread bytes resets; the queue is empty then, and says nothing.
            raise OSError(failed or errno.ECONNRESET, wire.broken or "connection reset by peer")
        if not waiting:
            self._confirmed = self._written
        elif self._transport is self._under and not self.address.path:
            self._confirmed = max(self._confirmed, self._written - waiting)
        if wire.broken and waiting:
            raise OSError(errno.EPIPE, wire.broken)
        return waiting

    async def reply(self, deadline: float) -> bytes:
        """What the receiver has sent since the last call; waits for some. Raises Unavailable."""
        wire = self._wire
        if wire is None:
            raise Unavailable(f"read {self.address}: not connected")
        try:
            async with asyncio.timeout(deadline):
                while not wire.received:
                    if wire.broken:
                        raise Unavailable(f"read {self.address}: {wire.broken}")
                    wire.came.clear()
                    await wire.came.wait()
        except TimeoutError:
            raise Unavailable(f"read {self.address}: no answer within {deadline:g} s") from None
        data = bytes(wire.received)
        wire.received.clear()
        return data

    def _drop(self) -> None:
        """Let go at once: what waits in a broken connection is sent again."""
        if self._transport is not None:
            self._transport.abort()
        self._transport = self._under = self._wire = None

    async def close(self) -> None:
        """See `Link.close`."""
        wire = self._wire
        transport, self._transport, self._under, self._wire = self._transport, None, None, None
        if transport is None:
            return
        transport.close()
        try:
            if wire is not None:
                async with asyncio.timeout(GOODBYE):
                    await wire.over.wait()
        except TimeoutError:
            pass
        finally:
            transport.abort()


def _words(error: OSError) -> str:
    # A look-up of names has numbers of its own.
    if error.errno and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno).lower()
    return error.strerror or str(error)

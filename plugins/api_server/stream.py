"""A hijacked connection."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plugins.api_server.protocol import HttpProtocol

HIGH = 256 * 1024
"""Bytes that wait for `read` before reading from the client pauses."""


class ConnectionStream:
    """Fulfils `kernel.contracts.api.RawStream` on a connection's protocol."""

    def __init__(self, protocol: HttpProtocol, first: bytes, *, eof: bool) -> None:
        """`first`: what the client had sent behind its request; `eof`: and then ended its side."""
        self._protocol = protocol
        self._parts = [first] if first else []
        self._size = len(first)
        self._eof = eof
        self._gone = asyncio.Event()
        self._readable: asyncio.Future[None] | None = None
        self.ended = False

    def feed(self, data: bytes) -> bool:
        """Something came; False: the reader is behind, stop reading."""
        self._parts.append(data)
        self._size += len(data)
        self._notify()
        return self._size < HIGH

    def feed_eof(self) -> None:
        """The client ended its side."""
        self._eof = True
        self._notify()

    def client_gone(self) -> None:
        """The connection broke or was closed."""
        self._eof = True
        self._gone.set()
        self._notify()

    def _notify(self) -> None:
        if self._readable is not None and not self._readable.done():
            self._readable.set_result(None)

    async def read(self) -> bytes:
        """What has come; b"" when the client has ended its side or is gone."""
        while not self._parts:
            if self._eof or self.ended:
                return b""
            self._readable = asyncio.get_running_loop().create_future()
            await self._readable
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        self._protocol.want_more()
        return data

    async def write(self, data: bytes) -> None:
        """Send; waits while the client reads too slowly. Raises ConnectionError when it is gone."""
        if self.ended or self._gone.is_set():
            raise ConnectionResetError("the client is gone")
        self._protocol.write(data)
        await self._protocol.drain()

    async def end(self) -> None:
        """Flush and close: the client gets all that was written, then the end."""
        if not self.ended:
            self.ended = True
            self._notify()
            self._protocol.linger()

    async def gone(self) -> None:
        """Returns when the connection is broken or closed."""
        await self._gone.wait()

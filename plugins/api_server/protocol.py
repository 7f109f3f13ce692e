"""HTTP/1.1 on one connection: a protocol class for uvicorn that can hand the raw connection to a route.

uvicorn's own class parses whatever comes, so bytes that a client sends right behind its request are lost to a stream,
and closes the connection when a client ends its side. This one gives the parser a request's head alone, frames the body
itself, and leaves all that follows where it is until the answer is complete or the connection is taken over.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from enum import Enum
from typing import Any

from plugins.api_server import errors
from plugins.api_server.chunked import ChunkedDecoder, ChunkedError
from plugins.api_server.exchange import STATUS_LINES, Exchange
from plugins.api_server.hangup import HangupWatch
from plugins.api_server.head import BadHead, Head, date_line, parse
from plugins.api_server.stream import ConnectionStream

HEAD_LIMIT = 64 * 1024
"""Bytes of a request's line and headers."""
BEHIND_LIMIT = 64 * 1024
"""Bytes of further requests that wait while one is answered."""
HEAD_DEADLINE = 60.0
"""Seconds that a new connection, or one that has begun a request, has for the request's head."""
LINGER = 2.0
"""Seconds that a client has to close a connection whose last answer it has got."""


class Phase(Enum):
    """What comes next from the client."""

    HEAD = 1
    SIZED = 2
    CHUNKED = 3
    WAIT = 4
    RAW = 5
    DISCARD = 6


class HttpProtocol(asyncio.Protocol):
    """One connection. The constructor's arguments are those that uvicorn gives its protocol classes.

    `app_state` holds what all connections share: "hangups" (HangupWatch) and "headers" (bytes of header lines that
    every answer carries).
    """

    def __init__(
        self,
        config: Any,
        server_state: Any,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self._config = config
        self._state = server_state
        self._app: Callable[..., Any] = config.loaded_app
        self._app_state = app_state
        self._hangups: HangupWatch = app_state["hangups"]
        self._loop = _loop or asyncio.get_running_loop()
        self._transport: Any = None
        self._socket: Any = None
        self._unix = False
        self._watched = -1
        self._client: dict[str, Any] = {}
        self._phase = Phase.HEAD
        self._buffer = bytearray()
        self._sized_left = 0
        self._chunked = ChunkedDecoder()
        self._exchange: Exchange | None = None
        self._eof = False
        self._closed = False
        self._reading = True
        self._writable: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    # Called by the transport

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._state.connections.add(self)
        self._socket = transport.get_extra_info("socket")
        self._unix = self._socket.family == socket.AF_UNIX
        if certificates := transport.get_extra_info("engine.certificates"):
            self._client = {
                "engine.certificates": certificates,
                "engine.peer": transport.get_extra_info("engine.peer") or "",
            }
        self._arm(HEAD_DEADLINE, self.abort)

    def data_received(self, data: bytes) -> None:
        if self._phase is Phase.RAW:
            stream = self._exchange.stream if self._exchange else None
            if stream is not None and not stream.feed(data):
                self._pause()
            return
        if self._phase is Phase.SIZED and not self._buffer and len(data) <= self._sized_left:
            self._sized_left -= len(data)
            self._body(data, self._sized_left == 0)
        elif self._phase is not Phase.DISCARD:
            self._buffer += data
            self._advance()

    def eof_received(self) -> bool:
        self._eof = True
        exchange = self._exchange
        if exchange is None:
            self.close()
        elif exchange.stream is not None:
            exchange.stream.feed_eof()
            if exchange.stream.ended:
                self.close()
        elif self._phase is Phase.DISCARD:
            self.close()
        elif not exchange.body_complete:
            exchange.client_gone()
        if self._closed:
            return False
        if self._unix:
            self._watched = self._socket.fileno()
            self._hangups.watch(self._watched, self.client_gone)
        elif exchange is not None and exchange.stream is None and exchange.begun:
            # Over TCP a client that closed looks like one that ended its side; nobody waits for it on a quiet stream.
            exchange.client_gone()
        return True

    def client_gone(self) -> None:
        """The whole connection is closed at the other end; the TLS layer and the hangup watch say so."""
        if self._exchange is not None and self._exchange.stream is not None:
            self._exchange.stream.client_gone()
        self.close()
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._state.connections.discard(self)
        self._hangups.forget(self._watched)
        self._disarm()
        self.resume_writing()
        if (exchange := self._exchange) is not None:
            if exchange.stream is not None:
                exchange.stream.client_gone()
            exchange.client_gone()

    def pause_writing(self) -> None:
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # Requests

    def _advance(self) -> None:
        """Make what can be made of the buffer."""
        while self._buffer and not self._closed:
            if self._phase is Phase.HEAD:
                if not self._head():
                    return
            elif self._phase is Phase.SIZED:
                taken = bytes(self._buffer[: self._sized_left])
                del self._buffer[: self._sized_left]
                self._sized_left -= len(taken)
                self._body(taken, self._sized_left == 0)
            elif self._phase is Phase.CHUNKED:
                try:
                    data, complete = self._chunked.feed(self._buffer)
                except ChunkedError as error:
                    self._refuse(400, f"bad chunked body: {error}")
                    return
                self._body(data, complete)
                if not complete:
                    return
            else:
                if len(self._buffer) > BEHIND_LIMIT:
                    self._pause()
                return

    def _body(self, data: bytes, complete: bool) -> None:
        exchange = self._exchange
        assert exchange is not None
        if data and not exchange.feed(data):
            self._pause()
        if complete:
            self._phase = Phase.WAIT
            exchange.end_of_body()

    def _head(self) -> bool:
        """Take a request's head off the buffer and start its answer; False: not all has come, or it was refused."""
        if self._buffer.startswith((b"\r", b"\n")):
            del self._buffer[: len(self._buffer) - len(self._buffer.lstrip(b"\r\n"))]
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or end > HEAD_LIMIT:
            if len(self._buffer) > HEAD_LIMIT:
                self._refuse(431, f"the request's headers are longer than {HEAD_LIMIT} bytes")
            elif self._buffer and self._timer is None:
                self._arm(HEAD_DEADLINE, self.abort)
            return False
        self._disarm()
        raw = bytes(self._buffer[: end + 4])
        del self._buffer[: end + 4]
        try:
            head = parse(raw)
        except BadHead as error:
            self._refuse(400, f"bad request: {error}")
            return False
        if head.upgrade == b"websocket":
            self._websocket(raw)
            return False
        self._begin(head)
        return True

    def _begin(self, head: Head) -> None:
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": head.version,
            "server": None,
            "client": None,
            "scheme": "http",
            "method": head.method,
            "root_path": "",
            "path": head.path,
            "raw_path": head.raw_path,
            "query_string": head.query,
            "headers": head.headers,
            **self._client,
        }
        exchange = Exchange(self, scope, keep_alive=not head.close, expects=head.expects)
        self._exchange = exchange
        if head.chunked:
            self._phase, self._chunked = Phase.CHUNKED, ChunkedDecoder()
        elif head.length:
            self._phase, self._sized_left = Phase.SIZED, head.length
        else:
            self._phase = Phase.WAIT
            exchange.end_of_body()
        task = exchange.start(self._app, self._loop)
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    def _refuse(self, status: int, text: str) -> None:
        """Answer what is no request, and close."""
        exchange, body = self._exchange, errors.message(text)
        if exchange is not None and exchange.begun:
            self.abort()
            return
        if exchange is not None:
            exchange.client_gone()
        head = STATUS_LINES[status] + self.common_headers() + b"Content-Type: application/json\r\n"
        self.write(head + b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body))
        self.linger()

    def _websocket(self, head: bytes) -> None:
        """Hand the connection to uvicorn's websocket protocol."""
        try:
            from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
        except ImportError:
            self._refuse(501, "websockets need the Python package `websockets`, which is not installed")
            return
        self._state.connections.discard(self)
        self._closed = True
        protocol = WebSocketsSansIOProtocol(
            config=self._config, server_state=self._state, app_state=self._client, _loop=self._loop
        )
        protocol.connection_made(self._transport)
        self._transport.set_protocol(protocol)
        protocol.data_received(head + bytes(self._buffer))

    # Called by the exchange and the stream

    def common_headers(self) -> bytes:
        """Header lines that every answer carries, with their line ends."""
        headers: bytes = self._app_state["headers"]
        return headers + date_line()

    def write(self, data: bytes) -> None:
        """Send, or queue for sending."""
        if not self._closed:
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait while too much is queued."""
        if self._writable is not None:
            await self._writable

    def want_more(self) -> None:
        """The reader has taken what there was."""
        if not self._reading and not self._closed and not self._eof:
            self._reading = True
            self._transport.resume_reading()

    def _pause(self) -> None:
        if self._reading and not self._closed and not self._eof:
            self._reading = False
            self._transport.pause_reading()

    def take_over(self) -> ConnectionStream:
        """Make the connection a raw stream; what has come already is its beginning."""
        self._phase = Phase.RAW
        first = bytes(self._buffer)
        self._buffer.clear()
        return ConnectionStream(self, first, eof=self._eof)

    def exchange_done(self, exchange: Exchange) -> None:
        """The application has returned; go on with the next request, or close."""
        self._state.total_requests += 1
        if exchange.stream is not None:
            if not exchange.stream.ended:
                exchange.stream.ended = True
                self.linger()
            return
        if self._closed or self._phase is Phase.DISCARD:
            return
        if not exchange.complete:
            self.abort()
        elif not exchange.keep_alive or not exchange.body_complete or self._eof:
            self.linger()
        else:
            self._exchange = None
            self._phase = Phase.HEAD
            self.want_more()
            self._advance()

    def linger(self) -> None:
        """Close once the client has all that was written.

        Closing a socket with unread input would make the kernel drop output that is still on its way, so the client
        is first told of the end, and what it still sends is thrown away until it closes or some time has passed.
        """
        if self._closed:
            return
        self._phase = Phase.DISCARD
        self._buffer.clear()
        if self._eof:
            self.close()
            return
        self.want_more()
        self._transport.write_eof()
        self._arm(LINGER, self._lingered)

    def _lingered(self) -> None:
        self._timer = None
        if self._transport.get_write_buffer_size() and not self._closed:
            self._arm(LINGER, self._lingered)
        else:
            self.close()

    def abort(self) -> None:
        """Close at once."""
        self._disarm()
        self._transport.abort()

    def shutdown(self) -> None:
        """The server stops: close when idle, else after the present answer. (uvicorn's name for it.)"""
        if self._exchange is None:
            self.close()
        else:
            self._exchange.keep_alive = False

    def close(self) -> None:
        """Close after what is queued was sent."""
        self._disarm()
        if not self._closed:
            self._closed = True
            self._hangups.forget(self._watched)
            self._transport.close()

    def _arm(self, seconds: float, action: Callable[[], None]) -> None:
        self._disarm()
        self._timer = self._loop.call_later(seconds, action)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

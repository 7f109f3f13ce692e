"""One request and its answer, as ASGI sees them."""

from __future__ import annotations

import asyncio
import http
import logging
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from plugin_sdk.api import ABANDON, HIJACK
from plugins.api_server.stream import ConnectionStream

if TYPE_CHECKING:
    from plugins.api_server.protocol import HttpProtocol

EXCHANGE = "engine.exchange"
"""Key of the scope's `extensions` under which the application finds the Exchange."""
BODY_HIGH = 256 * 1024
"""Bytes of a request's body that wait for the route before reading from the client pauses."""

RAW_STREAM = b"application/vnd.docker.raw-stream"

_BAD_HEADER = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in http.HTTPStatus}

# Header names do not care about case, but scripts that read them sometimes do.
_TITLED: dict[bytes, bytes] = {}

log = logging.getLogger("engine.api_server")


class Exchange:
    """The request's body in, the response out; or the connection itself, for a route that hijacks it.

    Attributes:
        lost: the client is gone: nothing that is sent arrives.
        stream: the connection as a raw stream, once it was hijacked.
        complete: the whole response was sent.
        body_complete: the whole request has come.
        keep_alive: the connection may serve another request.
    """

    def __init__(self, protocol: HttpProtocol, scope: dict[str, Any], *, keep_alive: bool, expects: bool) -> None:
        self.lost = False
        self.stream: ConnectionStream | None = None
        self.complete = False
        self.body_complete = False
        self.keep_alive = keep_alive
        self._protocol = protocol
        self._scope = scope
        self._expects = expects
        self._head = False
        self._unsent = b""
        self._chunked = False
        self._left = 0
        self._parts: list[bytes] = []
        self._size = 0
        self._ended = False
        self._abandon = scope["method"] in ("GET", "HEAD")  # reading changes nothing: nobody needs its end
        self._task: asyncio.Task[None] | None = None
        self._wake: asyncio.Future[None] | None = None
        scope["extensions"] = {
            HIJACK: self.hijack,
            ABANDON: self.abandon,
            EXCHANGE: self,
        }

    @property
    def begun(self) -> bool:
        """Something was sent, or the connection hijacked: no error status can be sent any more."""
        return self._head or self.stream is not None

    def start(self, app: Callable[..., Any], loop: asyncio.AbstractEventLoop) -> asyncio.Task[None]:
        """Run the application."""
        self._task = loop.create_task(self._run(app))
        return self._task

    async def _run(self, app: Callable[..., Any]) -> None:
        try:
            await app(self._scope, self.receive, self.send)
        except asyncio.CancelledError:
            if not self.lost:
                self.abort()
        except Exception:
            log.exception("%s %s failed", self._scope["method"], self._scope["path"])
            self.abort()
        finally:
            self._protocol.exchange_done(self)

    # What comes from the client

    def feed(self, data: bytes) -> bool:
        """A piece of the body has come; False: the route is behind, stop reading."""
        self._parts.append(data)
        self._size += len(data)
        self._notify()
        return self._size < BODY_HIGH

    def end_of_body(self) -> None:
        """The whole body has come."""
        self.body_complete = True
        self._notify()

    def client_gone(self) -> None:
        """The client has left: what only serves it is cancelled."""
        self.lost = True
        self._notify()
        if self._task is not None and self.stream is None and not self.complete and (self._head or self._abandon):
            self._task.cancel()

    def abandon(self) -> None:
        """See `ABANDON`."""
        self._abandon = True
        if self.lost and self._task is not None:
            self._task.cancel()

    def cancel(self) -> None:
        """The server stops."""
        if self._task is not None:
            self._task.cancel()

    def abort(self) -> None:
        """Break the connection off: the client must see that the answer is not whole."""
        self._protocol.abort()

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def receive(self) -> dict[str, Any]:
        """ASGI: a piece of the body, and after it the client's disconnect."""
        if self._expects and not self.begun:
            self._expects = False
            self._protocol.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while True:
            if self._parts or (self.body_complete and not self._ended):
                data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
                self._parts.clear()
                self._size = 0
                self._ended = self.body_complete
                self._protocol.want_more()
                return {"type": "http.request", "body": data, "more_body": not self._ended}
            if self.lost or self.complete:
                return {"type": "http.disconnect"}
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake

    # What goes to the client

    async def send(self, event: dict[str, Any]) -> None:
        """ASGI. Raises ConnectionResetError when the client is gone."""
        if self.lost:
            raise ConnectionResetError("the client is gone")
        if self.stream is not None or self.complete:
            raise RuntimeError(f"{event['type']} sent after the response was complete")
        if event["type"] == "http.response.start":
            self._start_response(event["status"], event.get("headers", ()))
            return
        self._send_body(event.get("body", b""), event.get("more_body", False))
        if not self.complete:
            await self._protocol.drain()

    def _start_response(self, status: int, headers: Any) -> None:
        if self._head:
            raise RuntimeError("a second response was started")
        out = [STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status, self._protocol.common_headers()]
        length: int | None = None
        for name, value in headers:
            if _BAD_HEADER.search(value) or _BAD_HEADER.search(name):
                raise RuntimeError(f"invalid header {name!r}: {value!r}")
            if name == b"content-length":
                length = int(value)
            out += (_TITLED.get(name) or _title(name), b": ", value, b"\r\n")
        if not self.body_complete:
            # What still comes of the request is not wanted; the next request could not be told from it.
            self.keep_alive = False
        if not self.keep_alive:
            out.append(b"Connection: close\r\n")
        bodiless = self._scope["method"] == "HEAD" or status in (204, 304)
        self._chunked = length is None and not bodiless
        if self._chunked and self._scope["http_version"] == "1.0":
            self._chunked = self.keep_alive = False
            self._left = -1
        elif self._chunked:
            out.append(b"Transfer-Encoding: chunked\r\n")
        else:
            self._left = 0 if bodiless else length or 0
        self._bodiless = bodiless
        self._head = True
        out.append(b"\r\n")
        # Most bodies follow at once, and go with the head in one packet.
        self._unsent = b"".join(out)
        asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        if self._unsent:
            head, self._unsent = self._unsent, b""
            self._protocol.write(head)

    def _send_body(self, data: bytes, more: bool) -> None:
        if not self._head:
            raise RuntimeError("a body was sent before the response was started")
        if self._bodiless:
            data = b""
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            if not more:
                data += b"0\r\n\r\n"
        elif self._left >= 0:
            self._left -= len(data)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the response's length is not its Content-Length")
        if self._unsent:
            data, self._unsent = self._unsent + data, b""
        if data:
            self._protocol.write(data)
        if not more:
            self.complete = True
            self._notify()

    async def hijack(self, content_type: str = RAW_STREAM.decode()) -> ConnectionStream:
        """See `kernel.contracts.api.Hijack`."""
        if self.begun:
            raise RuntimeError("the response was started already")
        if self.lost:
            raise ConnectionResetError("the client is gone")
        if any(name == b"upgrade" for name, _ in self._scope["headers"]):
            kind = content_type.encode("latin-1")
            head = b"HTTP/1.1 101 UPGRADED\r\nContent-Type: %b\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n" % kind
        else:
            head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n" % RAW_STREAM
        self.stream = self._protocol.take_over()
        self._protocol.write(head + self._protocol.common_headers() + b"\r\n")
        return self.stream


def _title(name: bytes) -> bytes:
    return _TITLED.setdefault(name, name.title())

"""The protocol's outer half as an ASGI application: paths, JSON, statuses.

POST `/<Interface>.<Method>`. An empty body means no arguments; 404 an unknown method; any other failure is `{"Err": ...}` with
status 500 (400 for arguments that cannot be read). Source: moby, pkg/plugins and Docker's "Docker Plugin API".
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any

from pydantic import ValidationError

from kernel.contracts.common import Wire
from kernel.errors import EngineError, InvalidParameter, TooLarge
from plugin_sdk.serving.dispatch import DEADLINE, Interface, Method, Stream, within

ACTIVATE = "Plugin.Activate"
BODY_LIMIT = 16 << 20
"""Bytes of a request; authorization plugins are shown bodies of up to 4 MiB, in base64."""
_TYPE = b"application/vnd.docker.plugins.v1.2+json"
_STREAM_TYPE = b"application/octet-stream"

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

log = logging.getLogger("plugin")


class App:
    """Answers for all interfaces.

    Attributes:
        types: as in config.json.
    """

    def __init__(self, interfaces: Iterable[Interface]) -> None:
        self._methods: dict[str, tuple[Interface, Method | Stream]] = {}
        self.types: list[str] = []
        self._implements: list[str] = []
        for interface in interfaces:
            self.types.append(interface.type)
            self._implements.append(interface.legacy)
            self._methods |= {path: (interface, method) for path, method in interface.methods().items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        assert scope["type"] == "http"
        path = str(scope["path"]).lstrip("/")
        if scope["method"] != "POST":
            await _reply(send, 405, {"Err": "the plugin protocol knows POST only"})
        elif path == ACTIVATE:
            await _reply(send, 200, {"Implements": self._implements})
        elif path not in self._methods:
            await _reply(send, 404, {"Err": f"{path} is not implemented by this plugin"})
        else:
            await self._call(path, receive, send)

    async def _call(self, path: str, receive: Receive, send: Send) -> None:
        interface, method = self._methods[path]
        try:
            arguments = _arguments(await _body(receive), method.arguments)
        except EngineError as error:
            await _reply(send, 400, {interface.error: f"{path}: {error}"})
            return
        try:
            if isinstance(method, Stream):
                await _stream(method.answer(arguments), receive, send)
                return
            reply = await within(method.deadline, method.answer(arguments), path)
        except _BrokenOff:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the driver raises, the engine must be told
            await _reply(send, 500, {interface.error: _reason(path, error)})
        else:
            await _reply(send, 200, {interface.error: ""} | dict(reply))


class _BrokenOff(Exception):
    """A stream failed after its status was sent: all that is left is to close the connection."""


def _reason(path: str, error: Exception) -> str:
    if isinstance(error, EngineError):
        return str(error)
    log.error("%s failed", path, exc_info=error)
    return f"{path} failed: {type(error).__name__}: {error}"


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await within(DEADLINE, receive(), "the rest of the arguments")
        if message["type"] == "http.disconnect":
            raise InvalidParameter("the engine hung up before it had sent the arguments")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > BODY_LIMIT:
            raise TooLarge(f"arguments of more than {BODY_LIMIT} bytes")
        more = message.get("more_body", False)
    return b"".join(parts)


def _arguments(raw: bytes, shape: type[Wire]) -> Wire:
    try:
        told = json.loads(raw) if raw.strip() else {}
        return shape.model_validate({} if told is None else told)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidParameter(f"invalid value for {where or 'the arguments'}: {first['msg']}") from None
    except ValueError as error:
        raise InvalidParameter(f"arguments that are no JSON: {error}") from None


async def _reply(send: Send, status: int, content: Mapping[str, Any]) -> None:
    body = json.dumps(content).encode() + b"\n"
    headers = [(b"content-type", _TYPE), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _stream(pieces: AsyncIterator[bytes], receive: Receive, send: Send) -> None:
    """Send the pieces until they end or the engine hangs up. Raises what they raise before the first one is there."""
    async with aclosing(pieces):  # type: ignore[type-var]
        first = await within(DEADLINE, anext(pieces, b""), "the stream's beginning")
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", _STREAM_TYPE)]})
        sending = asyncio.ensure_future(_send_all(first, pieces, send))
        leaving = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.wait((sending, leaving))
        if not sending.cancelled() and (failure := sending.exception()):
            raise _BrokenOff from failure
    await send({"type": "http.response.body", "body": b""})


async def _send_all(first: bytes, rest: AsyncIterator[bytes], send: Send) -> None:
    await send({"type": "http.response.body", "body": first, "more_body": True})
    async for piece in rest:
        await send({"type": "http.response.body", "body": piece, "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

"""Asks those who guard for leave: for a request before its route, and for a reply before any of it is sent.

What they only may ask for (body, reply) costs nothing until one of them does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect

from plugin_sdk import DeadlineExceeded, EngineError, Forbidden, PluginError, TooLarge, Unavailable
from plugin_sdk.api import HIJACK, RESPONSE_SHOWN, Denial, RequestView, ResponseView
from plugins.api_server.exchange import EXCHANGE, RAW_STREAM

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

LEAVE = "engine.leave"
"""Key of the scope under which a request whose reply is to be judged has its Leave."""
BODY_DEADLINE = 60.0
"""Seconds within which a body that is asked for must have come."""


@dataclass(frozen=True, slots=True)
class Guards:
    """How those who guard are asked; None: no objection."""

    request: Callable[[RequestView], Awaitable[Denial | None]]
    response: Callable[[RequestView, ResponseView], Awaitable[Denial | None]]


class Headers(Mapping[str, str]):
    """Headers as text, decoded only when asked for. Of one that comes more than once, the first."""

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        """`raw`: names in lower case."""
        self._raw = raw

    def __getitem__(self, name: str) -> str:
        wanted = name.lower().encode("latin-1")
        for key, value in self._raw:
            if key == wanted:
                return value.decode("latin-1")
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter({key.decode("latin-1"): None for key, _ in self._raw})

    def __len__(self) -> int:
        return len({key for key, _ in self._raw})


class Leave:
    """One request's. Stands in for `receive` and `send` where a guard asked to see more than the head.

    Attributes:
        receive: what the route reads its body from.
        send: what the route sends its reply to.
    """

    # Defaults of the class: most requests never touch them, and each has a Leave.
    _body: bytes | None = None
    _replayed = False
    _unseen: EngineError | None = None
    _judged = False
    _held: dict[str, Any] | None = None

    def __init__(self, guards: Guards, scope: Scope, receive: Receive, send: Send) -> None:
        self.receive = self._receive = receive
        self.send = self._send = send
        self._guards = guards
        self._scope = scope
        self._view: RequestView

    async def ask(self, path: str, version: tuple[int, int]) -> None:
        """Raises what refuses the request: Forbidden for a denial, the guard's own EngineError, or TooLarge."""
        scope = self._scope
        headers = scope["headers"]
        if scope["type"] == "websocket":
            # uvicorn's own protocol made this scope: names in the client's case, no peer but in the state.
            headers = [(name.lower(), value) for name, value in headers]
            scope.update(scope.get("state", {}))
        certificates = scope.get("engine.certificates", ())
        self._view = RequestView(
            method=scope.get("method", "GET"),
            path=path,
            query=scope["query_string"].decode("latin-1"),
            headers=Headers(headers),
            api_version=version,
            peer=scope.get("engine.peer", ""),
            auth_method="TLS" if certificates else "",
            certificates=certificates,
            target=_target(scope),
            source=self,
        )
        try:
            denial = await self._guards.request(self._view)
            if self._unseen is not None:
                # A body that somebody asked for and did not get is not passed on, whatever the guard makes of it.
                raise self._unseen
            if denial is not None:
                raise Forbidden(denial.message)
        except EngineError as error:
            # A refusal is the guards' own reply: they need not judge it.
            self._judged = True
            exchange = scope["extensions"].get(EXCHANGE)
            if exchange is not None and exchange.lost:
                raise ClientDisconnect from error
            if isinstance(error, PluginError):
                raise (self._unseen or Forbidden(f"the request could not be authorized: {error}")) from error
            raise

    # For the RequestView

    async def body(self, limit: int) -> bytes:
        """See `RequestView.body`."""
        if self._scope["type"] == "websocket":
            return b""
        try:
            if self._body is None:
                self._body = await self._read(limit)
                self.receive = self._replay
            if len(self._body) > limit:
                raise _too_large(limit)
        except EngineError as error:
            self._unseen = error
            raise
        return self._body

    async def _read(self, limit: int) -> bytes:
        if self._unseen is not None:
            raise self._unseen
        declared = self._view.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            raise _too_large(limit)
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(BODY_DEADLINE):
                while True:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise Unavailable("the client went away before all of its request had come")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > limit:
                        raise _too_large(limit)
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            raise DeadlineExceeded(f"the request body did not come within {BODY_DEADLINE:g} s") from None

    async def _replay(self) -> dict[str, Any]:
        if self._replayed or self._body is None:
            return await self._receive()
        self._replayed = True
        return {"type": "http.request", "body": self._body, "more_body": False}

    def judge_response(self) -> None:
        """See `RequestView.judge_response`."""
        if LEAVE in self._scope:
            return
        self._scope[LEAVE] = self
        self.send = self._hold
        extensions = self._scope["extensions"]
        if hijack := extensions.get(HIJACK):

            async def judged(content_type: str = RAW_STREAM.decode()) -> Any:
                status = 101 if "upgrade" in self._view.headers else 200
                await self.judge(status, [(b"content-type", content_type.encode("latin-1"))], None)
                return await hijack(content_type)

            extensions[HIJACK] = judged

    # The reply

    async def judge(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes | None) -> None:
        """Raises what refuses the reply. Asked once for each request: what replaces a refused reply passes."""
        if self._judged:
            return
        self._judged = True
        shown = body if body is not None and len(body) <= RESPONSE_SHOWN else None
        try:
            denial = await self._guards.response(self._view, ResponseView(status, Headers(headers), shown))
        except PluginError as error:
            raise Forbidden(f"the response could not be authorized: {error}") from error
        if denial is not None:
            raise Forbidden(denial.message)

    async def _hold(self, event: dict[str, Any]) -> None:
        """ASGI: lets nothing out before it is judged."""
        kind = event["type"]
        if self._judged:
            await self._send(event)
        elif kind == "http.response.start":
            headers = list(event.get("headers", ()))
            if any(name == b"content-length" for name, _ in headers):
                self._held = event
                return
            # A stream: its first bytes may be long in coming, and its client waits for the head.
            await self.judge(event["status"], headers, None)
            await self._send(event)
        elif kind == "http.response.body" and self._held is not None:
            start, self._held = self._held, None
            whole = None if event.get("more_body", False) else event.get("body", b"")
            await self.judge(start["status"], list(start["headers"]), whole)
            await self._send(start)
            await self._send(event)
        else:
            if kind == "websocket.accept":
                await self.judge(101, list(event.get("headers", ())), None)
            await self._send(event)


def _target(scope: Scope) -> str:
    path: str = scope["raw_path"].decode("latin-1")
    query: str = scope["query_string"].decode("latin-1")
    return f"{path}?{query}" if query else path


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"the request body is larger than the {limit} bytes that an authorization plugin can be shown, and does not pass unseen"
    )

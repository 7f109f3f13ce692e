"""The ASGI application: version, leave, route, errors."""

from __future__ import annotations

import asyncio
import re
from bisect import bisect_left
from collections.abc import Callable
from time import perf_counter
from typing import Any

from fastapi import FastAPI
from starlette.requests import ClientDisconnect

from plugin_sdk import EngineError, InvalidParameter, NotFound, Unavailable
from plugin_sdk.api import API_VERSION, MIN_API_VERSION
from plugins.api_server import errors
from plugins.api_server.exchange import EXCHANGE, Exchange
from plugins.api_server.leave import LEAVE, Guards, Leave, Receive, Scope, Send
from plugins.api_server.routes import WEBSOCKET, Entry, RouteTable

_VERSIONED = re.compile(r"/v([0-9][0-9.]{0,15})(/.*)", re.DOTALL)
PATIENCE = 15.0
"""Seconds that a request waits, while the engine starts, for the plugin that answers it."""

_STEP = 0.02
PING = "/_ping"


class Api:
    """Serves the routes of a table that may be replaced at any time.

    Attributes:
        table: the routes.
        miss: asked when no route matches, whether the table was old: it replaces it and says True to try again.
        starting: plugins may still be missing.
    """

    def __init__(
        self,
        guards: Guards,
        miss: Callable[[], bool],
    ) -> None:
        self.table = RouteTable([])
        self.starting = True
        self._guards = guards
        self._miss = miss
        self._app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        try:
            await self._handle(scope, receive, send)
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001 - here every failure becomes an answer
            exchange: Exchange | None = scope["extensions"].get(EXCHANGE)
            if isinstance(error, OSError) and exchange is not None and exchange.lost:
                return
            status, body = await self._answer(error, scope)
            if exchange is None:
                await _refuse_websocket(scope, send, status, body)
            elif exchange.begun:
                errors.log.warning("%s %s broke off: %s", scope["method"], scope["path"], error)
                exchange.abort()
            else:
                await _send(send, status, body)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        version, path = split_version(scope["path"])
        scope["engine.api_version"] = version
        scope["path"] = path
        leave = Leave(self._guards, scope, receive, send)
        await leave.ask(path, version)
        method = WEBSOCKET if scope["type"] == "websocket" else scope["method"]
        entry, params = await self._route(method, path, version)
        scope["path_params"] = params
        scope["app"] = self._app
        scope.update(entry.extra)
        began = perf_counter()
        try:
            await entry.app(scope, leave.receive, leave.send)
        except Exception:
            entry.times.failed += 1
            raise
        took = perf_counter() - began
        entry.times.done += 1
        entry.times.seconds += took
        entry.times.buckets[bisect_left(entry.times.BOUNDS, took)] += 1

    async def _answer(self, error: Exception, scope: Scope) -> tuple[int, bytes]:
        """Status and body for what was raised, unless a guard refuses even that."""
        request = f"{scope.get('method', 'WEBSOCKET')} {scope['path']}"
        status, body = errors.answer(error, request)
        leave: Leave | None = scope.get(LEAVE)
        if leave is not None:
            try:
                await leave.judge(status, _error_headers(body), body)
            except EngineError as refusal:
                return errors.answer(refusal, request)
        return status, body

    async def _route(self, method: str, path: str, version: tuple[int, int]) -> tuple[Entry, dict[str, Any]]:
        found = self.table.find(method, path, version)
        if found is None and self._miss():
            found = self.table.find(method, path, version)
        if found is None and self.starting:
            found = await self._route_to_come(method, path, version)
        if found is None:
            raise NotFound("page not found")
        return found

    async def _route_to_come(
        self, method: str, path: str, version: tuple[int, int]
    ) -> tuple[Entry, dict[str, Any]] | None:
        """While the engine starts: wait for the plugin, as a client waits for a daemon that does not listen yet."""
        for _ in range(int(PATIENCE / _STEP)):
            await asyncio.sleep(_STEP)
            last = not self.starting
            if (last or self._miss()) and (found := self.table.find(method, path, version)) is not None:
                return found
            if last:
                return None
        raise Unavailable("the engine is starting, and the plugin that answers this is not ready: try again")


def _error_headers(body: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))] if body else []


async def _send(send: Send, status: int, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": _error_headers(body)})
    await send({"type": "http.response.body", "body": body})


async def _refuse_websocket(scope: Scope, send: Send, status: int, body: bytes) -> None:
    if "websocket.http.response" not in scope["extensions"]:
        await send({"type": "websocket.close", "code": 1011})
        return
    await send({"type": "websocket.http.response.start", "status": status, "headers": _error_headers(body)})
    await send({"type": "websocket.http.response.body", "body": body})


def split_version(path: str) -> tuple[tuple[int, int], str]:
    """Version and bare path of `/v1.41/info`; the newest version for a bare path.

    Raises:
        InvalidParameter: a version that is not served, in dockerd's words.
    """
    # Nothing but a version starts with these two characters, save "/version" and "/volumes".
    if not path.startswith("/v") or (found := _VERSIONED.fullmatch(path)) is None:
        return API_VERSION, path
    text, bare = found.groups()
    parts = text.split(".")
    version = (int(parts[0] or 0), int(parts[1] or 0) if len(parts) > 1 else 0)
    if version > API_VERSION:
        newest = ".".join(map(str, API_VERSION))
        raise InvalidParameter(f"client version {text} is too new. Maximum supported API version is {newest}")
    if version < MIN_API_VERSION:
        oldest = ".".join(map(str, MIN_API_VERSION))
        raise InvalidParameter(
            f"client version {text} is too old. Minimum supported API version is {oldest}, "
            "please upgrade your client to a newer version"
        )
    return version, bare

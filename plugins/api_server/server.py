"""The server: uvicorn's configuration and state, our protocol class, our sockets."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from plugins.api_server.hangup import HangupWatch
from plugins.api_server.listeners import Listener
from plugins.api_server.protocol import HttpProtocol
from plugins.api_server.tls import TlsLayer

BACKLOG = 4096
"""Connections that wait to be accepted."""
GRACE = 1.5
"""Seconds that running answers have at a stop."""

log = logging.getLogger("engine.api_server")


class Server:
    """Serves an ASGI application on listening sockets, some with TLS and some without.

    uvicorn's own `Server` is not run: it takes the process's signals, wakes up ten times a second, and knows one TLS
    setting for all sockets.
    """

    def __init__(self, app: Callable[..., Any], headers: bytes) -> None:
        """`headers`: header lines that every answer carries, with their line ends."""
        self._config = uvicorn.Config(
            app,
            http=HttpProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            interface="asgi3",
        )
        self._config.load()
        self._state = ServerState()
        self._hangups = HangupWatch()
        self._shared = {"hangups": self._hangups, "headers": headers}
        self._listeners: list[Listener] = []
        self._servers: list[asyncio.Server] = []

    async def serve(self, listeners: list[Listener], context: ssl.SSLContext | None) -> None:
        """Accept connections from now on."""
        self._listeners = listeners
        loop = asyncio.get_running_loop()

        def plain() -> HttpProtocol:
            return HttpProtocol(self._config, self._state, self._shared, loop)

        for listener in listeners:
            make: Callable[[], asyncio.BaseProtocol] = plain
            if listener.tls:
                assert context is not None
                make = _over_tls(context, plain)
            self._servers.append(await loop.create_server(make, sock=listener.sock, backlog=BACKLOG))

    def addresses(self) -> list[str]:
        """Where it listens."""
        return [listener.address for listener in self._listeners]

    def unprotected(self) -> list[str]:
        """Addresses that the network can reach without TLS."""
        return [item.address for item in self._listeners if item.address.startswith("tcp") and not item.tls]

    async def stop(self) -> None:
        """Stop listening, give running answers GRACE seconds, then cut them off."""
        for server in self._servers:
            server.close()
        for listener in self._listeners:
            listener.close()
        self._listeners, self._servers = [], []
        for connection in list(self._state.connections):
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(list(self._state.tasks), timeout=GRACE)
        cut = list(self._state.tasks)
        for task in cut:
            task.cancel()
        if cut:
            await asyncio.wait(cut, timeout=GRACE)
        for connection in list(self._state.connections):
            # Of a websocket's protocol, uvicorn's own, only the transport is for us to close.
            (connection if isinstance(connection, HttpProtocol) else connection.transport).close()
        self._hangups.close()


def _over_tls(context: ssl.SSLContext, above: Callable[[], HttpProtocol]) -> Callable[[], TlsLayer]:
    return lambda: TlsLayer(context, above)

"""Serves `GET /metrics` on a TCP address and on a unix socket."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from plugin_sdk import EngineError, InvalidParameter

if TYPE_CHECKING:
    from aiohttp import web

PATH = "/metrics"
STOP_SECONDS = 2.0


def parse_address(text: str) -> tuple[str | None, int]:
    """Host (None: all) and port of "127.0.0.1:9323", "[::1]:9323" or ":9323". Raises InvalidParameter."""
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        port = None
    if port is None or parts.netloc != text or "@" in text:
        raise InvalidParameter(f"invalid --metrics-addr {text!r}: want HOST:PORT, for example 127.0.0.1:9323")
    return host, port


class MetricsServer:
    """One application on any number of sockets; aiohttp is loaded when the first is opened."""

    def __init__(self, render: Callable[[], tuple[bytes, str]]) -> None:
        """`render` gives body and content type; it runs on the loop, and only reads memory."""
        self._render = render
        self._runner: web.AppRunner | None = None
        self._opening = asyncio.Lock()

    async def listen_tcp(self, host: str | None, port: int) -> None:
        """Raises InvalidParameter when the address cannot be had."""
        runner = await self._started()
        from aiohttp import web

        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            where = f"--metrics-addr {host or ''}:{port}"
            raise InvalidParameter(f"cannot serve metrics on {where}: {error.strerror or error}") from None

    async def listen_unix(self, path: Path) -> None:
        """Raises EngineError when the system refuses. A socket that is left over there goes."""
        runner = await self._started()
        from aiohttp import web

        try:
            path.unlink(missing_ok=True)
            await web.UnixSite(runner, str(path)).start()
            # Whoever may enter the folder may ask: metrics plugins need not run as root.
            path.chmod(0o666)
        except OSError as error:
            raise EngineError(f"cannot serve metrics on {path}: {error.strerror or error}") from None

    async def stop(self) -> None:
        """Close all sockets."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _started(self) -> web.AppRunner:
        async with self._opening:
            if self._runner is None:
                # A third of a second of imports: not on the loop.
                await asyncio.to_thread(importlib.import_module, "aiohttp.web")
                from aiohttp import web

                app = web.Application()
                app.router.add_get(PATH, self._answer)
                runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=STOP_SECONDS)
                await runner.setup()
                self._runner = runner
            return self._runner

    async def _answer(self, request: web.Request) -> web.Response:
        from aiohttp import web

        body, kind = self._render()
        return web.Response(body=body, headers={"Content-Type": kind})

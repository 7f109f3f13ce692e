"""The process of a served plugin: its socket, its signals, its log."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import stat
import sys
from pathlib import Path
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from kernel.errors import Conflict, EngineError
from plugin_sdk.serving.app import App
from plugin_sdk.serving.dispatch import Interface, within
from plugin_sdk.serving.interfaces import interfaces

SOCKETS = Path("/run/docker/plugins")
"""Where the engine looks for a plugin's socket, in its container or, of an old-style plugin, on the host."""
SOCKET = "plugin.sock"
FOLDER = Path("/var/lib/plugin")
"""Where served interfaces keep what must outlive the process."""
GRACE = 5.0
"""Seconds that running calls, and then each interface, have at the end. Docker kills 10 s after SIGTERM."""
_KEEP_ALIVE = 3600
"""Seconds. The engine pools its connections: one that the plugin closes may meet a call on its way."""

log = logging.getLogger("plugin")


def run(drivers: tuple[Any, ...], name: str, folder: str | Path) -> None:
    """See `plugin_sdk.serve`."""
    _log_to_stderr()
    path = SOCKETS / (name or os.environ.get("ENGINE_PLUGIN_SOCKET") or SOCKET)
    kept = Path(folder or os.environ.get("ENGINE_PLUGIN_FOLDER") or FOLDER)
    try:
        asyncio.run(_serve(interfaces(drivers, kept), path))
    except (EngineError, OSError) as error:
        log.error("%s", error)
        sys.exit(1)


async def _serve(served: list[Interface], path: Path) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    opened: list[Interface] = []
    try:
        for interface in served:
            opened.append(interface)
            await interface.open()
        await _listen(App(served), path, ended)
    finally:
        for interface in opened:
            await _close(interface)
    log.info("ended")


async def _close(interface: Interface) -> None:
    try:
        await within(GRACE, interface.close(), "its end")
    except Exception as error:  # noqa: BLE001 - the others must be closed, too
        log.error("%s did not end in order: %s: %s", interface.type, type(error).__name__, error)


async def _listen(app: App, path: Path, ended: asyncio.Event) -> None:
    # uvicorn's own Server is not run: it takes the signals for itself and wakes up ten times a second.
    config = Config(
        app,
        http=HttpToolsProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
    )
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(
        lambda: HttpToolsProtocol(config, state, {}, loop), sock=await asyncio.to_thread(_bound, path)
    )
    log.info("serving on %s: %s", path, ", ".join(app.types))
    try:
        await ended.wait()
    finally:
        server.close()
        path.unlink(missing_ok=True)
        await _finish(state)


async def _finish(state: ServerState) -> None:
    """Let running calls end, then cut them off."""
    for connection in list(state.connections):
        connection.shutdown()
    if running := list(state.tasks):
        _, late = await asyncio.wait(running, timeout=GRACE)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=1)


def _bound(path: Path) -> socket.socket:
    """A socket at the path; one that a killed process left behind is removed.

    Raises:
        Conflict: another process answers there, or it is no socket.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if os.path.lexists(path):
        _remove_stale(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(str(path))
        path.chmod(0o600)
    except BaseException:
        bound.close()
        raise
    return bound


def _remove_stale(path: Path) -> None:
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise Conflict(f"{path} is in the way: it is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
        else:
            raise Conflict(f"another process already serves on {path}")


class _Logfmt(logging.Formatter):
    """`level=info msg="..."`: the engine takes a line's level from there."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        level = "warn" if record.levelno == logging.WARNING else record.levelname.lower()
        return f"level={level} logger={record.name} msg={json.dumps(text, ensure_ascii=False)}"


def _log_to_stderr() -> None:
    """Unless the author has set up logging."""
    root = logging.getLogger()
    if not root.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(_Logfmt())
        root.addHandler(handler)
        root.setLevel(logging.INFO)

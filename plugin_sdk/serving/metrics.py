"""MetricsCollector 1.0: the engine says when, and lays its metrics at a socket in the plugin's container.

Source: moby, daemon/internal/metrics/plugin_unix.go.
"""

from __future__ import annotations

import asyncio
import http.client
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kernel.errors import Unavailable
from plugin_sdk.serving.dispatch import Interface, Method, Nothing

SOCKET = Path("/run/docker/metrics.sock")
"""Where the engine's metrics are, in a managed plugin."""
_TIMEOUT = 10.0
_LIMIT = 16 << 20


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class SocketSource:
    """Fulfils `MetricsSource` from a unix socket."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self) -> str:
        """See `MetricsSource.read`."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> str:
        connection = _UnixConnection(self._path)
        try:
            connection.request("GET", "/metrics")
            answer = connection.getresponse()
            content = answer.read(_LIMIT)
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"the engine's metrics cannot be read from {self._path}: {error}") from None
        finally:
            connection.close()
        if answer.status != 200:
            raise Unavailable(f"the engine's metrics cannot be read from {self._path}: status {answer.status}")
        return content.decode(errors="replace")


class MetricsInterface(Interface):
    """Serves a `MetricsCollector`."""

    type = "docker.metricscollector/1.0"
    legacy = "MetricsCollector"

    def methods(self) -> Mapping[str, Method]:
        """See `Interface.methods`."""
        return {
            "MetricsCollector.StartMetrics": Method(self._start),
            "MetricsCollector.StopMetrics": Method(self._stop),
        }

    async def _start(self, _: Nothing) -> Mapping[str, Any]:
        await self.driver.start(SocketSource(SOCKET))
        return {}

    async def _stop(self, _: Nothing) -> Mapping[str, Any]:
        await self.driver.stop()
        return {}

    async def close(self) -> None:
        """See `Interface.close`."""
        await self.driver.stop()

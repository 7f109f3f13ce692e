"""MetricsCollector 1.0: metrics plugins are given the engine's metrics, and told when to begin and to end.

Source: Docker's "Docker metrics collector plugins": the engine's metrics are on /run/docker/metrics.sock in the plugin;
StartMetrics and StopMetrics have empty bodies, and their answers do not matter.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from plugin_sdk import DriverSpec, EngineError, Wire
from plugin_sdk.managed import InterfaceAdapter, PluginPeer
from plugin_sdk.runtime import OciMount
from plugins.metrics.serving import MetricsServer

CALL_SECONDS = 10.0
SOCKET = "metrics.sock"
INSIDE = "/run/docker"
"""Where a metrics plugin finds the folder with the socket."""

_NEIGHBOURS = ("plugins", "logging")
"""What else is mounted there in a plugin: a read-only folder must have the places for it."""

log = logging.getLogger("engine.metrics")


class MetricsAdapter(InterfaceAdapter):
    """See the module."""

    legacy = "MetricsCollector"

    def __init__(self, server: MetricsServer, folder: Path) -> None:
        """`folder` on the host: for the socket, and nothing else."""
        self._server, self._folder = server, folder
        self._opening = asyncio.Lock()
        self._open = False

    async def mounts(self) -> Sequence[OciMount]:
        """The folder with the socket. A mount of the socket itself would be dead after the daemon's next start, which
        the plugin's process outlives; in the folder the new one appears."""
        await self._open_socket()
        return [OciMount(INSIDE, str(self._folder), options=("rbind", "ro", "rprivate"))]

    async def connect(self, peer: PluginPeer) -> Sequence[DriverSpec]:
        """StartMetrics."""
        await self._open_socket()
        await _tell(peer, "MetricsCollector.StartMetrics")
        return ()

    async def disconnect(self, peer: PluginPeer) -> None:
        """StopMetrics."""
        await _tell(peer, "MetricsCollector.StopMetrics")

    async def _open_socket(self) -> None:
        async with self._opening:
            if not self._open:
                for name in _NEIGHBOURS:
                    (self._folder / name).mkdir(parents=True, exist_ok=True)
                await self._server.listen_unix(self._folder / SOCKET)
                self._open = True


async def _tell(peer: PluginPeer, method: str) -> None:
    try:
        await peer.call(method, None, Wire, deadline=CALL_SECONDS)
    except EngineError as error:
        # A collector that does not listen harms nobody, so its start goes on.
        log.warning("metrics plugin %r: %s", peer.name, error)

"""Wires metrics into the engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from plugin_sdk import Event, Plugin, PluginAdmin, PluginContext, PluginMeta, hookimpl, setting
from plugin_sdk.managed import InterfaceAdapter
from plugins.metrics.adapter import MetricsAdapter
from plugins.metrics.facts import Numbers
from plugins.metrics.serving import MetricsServer, parse_address


class Settings(BaseModel):
    """Where metrics can be had."""

    metrics_addr: str = setting(
        "", "Address to serve metrics on, for example 127.0.0.1:9323", flag="--metrics-addr", key="metrics-addr"
    )


class MetricsPlugin(Plugin):
    """See the package."""

    meta = PluginMeta(
        name="metrics",
        description="Serves the engine's metrics to Prometheus and to metrics plugins",
        requires=(PluginAdmin,),
        settings=Settings,
    )

    def __init__(self) -> None:
        self._numbers: Numbers | None = None
        self._registry: Any = None
        self._server = MetricsServer(self._render)
        self._adapter: MetricsAdapter

    async def start(self, ctx: PluginContext) -> None:
        """See `Plugin.start`."""
        self._numbers = Numbers(ctx)
        self._adapter = MetricsAdapter(self._server, ctx.run / "docker")
        if ctx.settings.metrics_addr:
            await self._server.listen_tcp(*parse_address(ctx.settings.metrics_addr))
            ctx.log.info("metrics on http://%s/metrics", ctx.settings.metrics_addr)

    async def stop(self) -> None:
        """See `Plugin.stop`."""
        await self._server.stop()

    def _render(self) -> tuple[bytes, str]:
        # 80 ms of imports, for those alone who want metrics.
        from plugins.metrics import collect

        assert self._numbers is not None
        if self._registry is None:
            self._registry = collect.make_registry(self._numbers)
        return collect.render(self._registry), collect.CONTENT_TYPE

    @hookimpl
    async def engine_event(self, event: Event) -> None:
        """Counts."""
        if self._numbers is not None:
            self._numbers.events += 1

    @hookimpl
    def engine_managed_interfaces(self) -> Mapping[str, InterfaceAdapter]:
        """`docker.metricscollector/1.0`."""
        return {"docker.metricscollector/1.0": self._adapter}

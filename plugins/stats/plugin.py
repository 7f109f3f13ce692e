"""Wires stats into the engine."""

from __future__ import annotations

from collections.abc import Iterable

from plugin_sdk import Plugin, PluginContext, PluginMeta, hookimpl
from plugin_sdk.api import RouterSpec
from plugin_sdk.containers import Containers
from plugin_sdk.runtime import Runtime
from plugins.stats.sampler import Sampler


class StatsPlugin(Plugin):
    """See the package."""

    meta = PluginMeta(
        name="stats",
        description="What containers use: processor, memory, network, block I/O, processes",
        requires=(Containers, Runtime),
    )

    _sampler: Sampler | None = None

    async def start(self, ctx: PluginContext) -> None:
        """See `Plugin.start`."""
        containers = ctx.require(Containers)
        self._sampler = Sampler(containers, lambda record: ctx.drivers.get(Runtime, record.Runtime), ctx.log)
        ctx.spawn(self._sampler.run(), name="sampler")

    async def stop(self) -> None:
        """See `Plugin.stop`."""
        self._sampler = None

    @hookimpl
    def engine_api_routers(self) -> Iterable[RouterSpec]:
        """`/containers/ID/stats`, `/containers/stats`."""
        from plugins.stats.api import router

        assert self._sampler is not None
        return [RouterSpec(router(self._sampler))]

"""Wires health checks into the engine."""

from __future__ import annotations

from plugin_sdk import Plugin, PluginContext, PluginMeta, hookimpl
from plugin_sdk.containers import ContainerRecord, Containers, Preparation
from plugin_sdk.runtime import Exit
from plugins.health.monitor import Monitors


class HealthPlugin(Plugin):
    """See the package."""

    meta = PluginMeta(
        name="health",
        description="Health checks of containers",
        requires=(Containers,),
    )

    _monitors: Monitors | None = None

    async def start(self, ctx: PluginContext) -> None:
        """See `Plugin.start`."""
        self._containers = ctx.require(Containers)
        self._monitors = Monitors(self._containers, lambda work, name: ctx.spawn(work, name=name), ctx.log)

    async def restore(self) -> None:
        """Go on with the containers that run."""
        assert self._monitors is not None
        for record in self._containers.list():
            if record.State.running:
                self._monitors.begin(record, adopted=True)

    async def stop(self) -> None:
        """See `Plugin.stop`."""
        if self._monitors is not None:
            self._monitors.close()
            self._monitors = None

    @hookimpl
    async def engine_container_prepare(self, container: ContainerRecord, preparation: Preparation) -> None:
        """Health "starting", before anybody can see it run."""
        if self._monitors is not None:
            await self._monitors.prepare(container)

    @hookimpl
    async def engine_container_started(self, container: ContainerRecord) -> None:
        """Begin to probe."""
        if self._monitors is not None:
            self._monitors.begin(container)

    @hookimpl
    async def engine_container_release(self, container: ContainerRecord, exit: Exit | None) -> None:
        """Probe no more."""
        if self._monitors is not None:
            await self._monitors.end(container)

"""Wiring of the containers plugin."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

from plugin_sdk import Holder, Plugin, PluginContext, PluginMeta, hookimpl
from plugin_sdk.api import RouterSpec
from plugin_sdk.containers import Containers
from plugin_sdk.images import ImageStore
from plugin_sdk.logs import Logs
from plugin_sdk.network import Networks
from plugin_sdk.runtime import Runtime, Runtimes
from plugin_sdk.storage import Storage
from plugin_sdk.volumes import Volumes

from .execs import Execs
from .service import ContainerService


class ContainersPlugin(Plugin):
    """Owns the containers."""

    meta = PluginMeta(
        name="containers",
        description="Containers: create, start, stop, attach, exec, copy, remove",
        provides=(Containers,),
        requires=(ImageStore, Storage, Runtimes, Runtime),
        wants=(Networks, Volumes, Logs),
    )

    _service: ContainerService | None = None

    async def start(self, ctx: PluginContext) -> None:
        service = ContainerService(ctx)
        service.execs = Execs(service)
        self._service = service
        service.announce()
        ctx.provide(Containers, service)

    async def restore(self) -> None:
        assert self._service is not None
        await self._service.restore()

    async def stop(self) -> None:
        """Let go of the containers, which go on running."""
        if self._service is not None:
            await self._service.close()
            self._service = None

    @cached_property
    def _routers(self) -> list[RouterSpec]:
        from .api import routes

        assert self._service is not None
        return [RouterSpec(routes(self._service))]

    @hookimpl
    def engine_api_routers(self) -> Iterable[RouterSpec]:
        """`/containers`, `/exec` and `/commit`."""
        return self._routers

    @hookimpl
    def engine_holders(self, kind: str, key: str) -> Iterable[Holder]:
        return self._service.holders(kind, key) if self._service else ()

    @hookimpl
    def engine_info(self) -> dict[str, Any]:
        return self._service.info() if self._service else {}

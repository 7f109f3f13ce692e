"""Wiring: what the plugin hooks, and its one route."""

from __future__ import annotations

from collections.abc import Iterable

from engine_sample.drivers import SampleLog, SampleVolumes
from engine_sample.modes import Modes
from plugin_sdk import DriverSpec, InvalidParameter, Plugin, PluginContext, PluginMeta, hookimpl
from plugin_sdk.api import RouterSpec
from plugin_sdk.containers import ContainerRecord, Preparation
from plugin_sdk.logs import LogDriver
from plugin_sdk.volumes import VolumeDriver

DEADLINE = 2.0
"""Seconds that a call of one of its drivers may take."""


class SamplePlugin(Plugin):
    """Adds a little of everything."""

    meta = PluginMeta(name="sample", description="A plugin from outside", drivers=(LogDriver, VolumeDriver))

    async def start(self, ctx: PluginContext) -> None:
        self._ctx = ctx
        self._modes = Modes()
        self._prepared: list[str] = []

    @hookimpl
    def engine_drivers(self) -> Iterable[DriverSpec]:
        return [
            DriverSpec(LogDriver, "sample", SampleLog(self._modes), DEADLINE),
            DriverSpec(VolumeDriver, "sample", SampleVolumes(self._ctx.root / "volumes", self._modes), DEADLINE),
        ]

    @hookimpl(order=90)
    async def engine_container_prepare(self, container: ContainerRecord, preparation: Preparation) -> object:
        self._prepared.append(container.Id)
        if await self._modes.obey("prepare"):
            preparation.env.append(42)  # type: ignore[arg-type]
            return "rubbish"
        preparation.env.append(f"SAMPLE={container.Name}")
        return None

    @hookimpl
    def engine_api_routers(self) -> Iterable[RouterSpec]:
        from fastapi import APIRouter

        router = APIRouter()

        @router.get("/sample")
        async def look() -> object:
            if await self._modes.obey("route"):
                return object()
            return {"modes": self._modes.current, "prepared": self._prepared}

        @router.post("/sample/mode")
        async def change(part: str, mode: str) -> object:
            try:
                self._modes.set(part, mode)
            except (KeyError, ValueError) as error:
                raise InvalidParameter(f"unknown part or mode: {error}") from None
            return self._modes.current

        return [RouterSpec(router)]

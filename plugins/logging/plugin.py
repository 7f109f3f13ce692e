"""Wires logs into the engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from pydantic import BaseModel

from plugin_sdk import (
    DriverSpec,
    Holder,
    InvalidParameter,
    NotFound,
    Plugin,
    PluginContext,
    PluginMeta,
    hookimpl,
    setting,
)
from plugin_sdk.api import RouterSpec
from plugin_sdk.containers import ContainerDraft, ContainerRecord, LogChoice, Preparation
from plugin_sdk.logoptions import check_common
from plugin_sdk.logs import LogDriver, Logs
from plugin_sdk.managed import InterfaceAdapter, ManagedPlugins
from plugin_sdk.runtime import Exit

from .jsonfile import JsonFileDriver
from .local import LocalDriver, NoneDriver
from .outlet import known
from .remote import INTERFACE, RemoteLogs
from .service import LogService


class LoggingSettings(BaseModel):
    """Settings of the plugin."""

    log_driver: str = setting("json-file", "log driver of containers that choose none", flag="--log-driver")
    log_opts: dict[str, str] = setting(
        {}, "options of the default log driver, for example max-size=10m", flag="--log-opt", key="log-opts"
    )


class LoggingPlugin(Plugin):
    """Provides `Logs` and the drivers json-file, local and none; moves output from the monitors to the drivers."""

    meta = PluginMeta(
        name="logging",
        description="container logs: json-file, local, none, and the pumps of any other log driver",
        provides=(Logs,),
        drivers=(LogDriver,),
        wants=(LogDriver,),
        settings=LoggingSettings,
    )

    async def start(self, ctx: PluginContext) -> None:
        """See `Plugin.start`."""
        self._ctx = ctx
        default = LogChoice(Type=ctx.settings.log_driver, Config=ctx.settings.log_opts)
        self._drivers: dict[str, Any] = {"json-file": JsonFileDriver(), "local": LocalDriver(), "none": NoneDriver()}
        await self._check(default)
        self._remote = RemoteLogs()
        self._logs = LogService(ctx, default)
        ctx.provide(Logs, self._logs)

    async def _check(self, default: LogChoice) -> None:
        """The daemon's default. One whose plugin does not run yet is checked at its first use."""
        driver: LogDriver | None = self._drivers.get(default.Type) or known(self._ctx, default.Type)
        if driver is None and not await self._is_remote(default.Type):
            try:
                driver = await self._ctx.drivers.find(LogDriver, default.Type)
            except NotFound as error:
                raise InvalidParameter(f"--log-driver: {error}") from None
        if driver is not None:
            driver.validate(default.Config)
        else:
            check_common(default.Config)

    async def _is_remote(self, name: str) -> bool:
        """There is a plugin of that name in a process of its own; it is not called."""
        managed = self._ctx.find(ManagedPlugins)
        if managed is None:
            return False
        names = {plugin.Name for plugin in managed.list()} | {plugin.name for plugin in await managed.old_style()}
        return name in names or f"{name}:latest" in names

    async def restore(self) -> None:
        """See `Plugin.restore`."""
        await self._logs.restore()

    async def stop(self) -> None:
        """See `Plugin.stop`."""
        if hasattr(self, "_logs"):
            await self._logs.stop()

    @hookimpl
    def engine_managed_interfaces(self) -> Mapping[str, InterfaceAdapter]:
        """Docker's log plugins."""
        return {INTERFACE: self._remote}

    @hookimpl
    def engine_holders(self, kind: str, key: str) -> Iterable[Holder]:
        """Running containers hold the plugin that takes their log."""
        return self._logs.users_of(key) if kind == "plugin" else ()

    @hookimpl
    def engine_drivers(self) -> Iterable[DriverSpec]:
        """The built-in log drivers."""
        return [DriverSpec(LogDriver, name, driver) for name, driver in self._drivers.items()]

    @cached_property
    def _routers(self) -> list[RouterSpec]:
        from .api import make_router

        return [RouterSpec(make_router(self._ctx, self._logs))]

    @hookimpl
    def engine_api_routers(self) -> Iterable[RouterSpec]:
        """`/containers/{id}/logs`."""
        return self._routers

    @hookimpl
    def engine_info(self) -> dict[str, Any]:
        """`Plugins.Log` and `LoggingDriver`."""
        names = [name for name in self._ctx.drivers.all(LogDriver) if name != "none"]
        return {"Plugins": {"Log": names}, "LoggingDriver": self._logs.default.Type}

    @hookimpl(order=80)
    async def engine_container_validate(self, draft: ContainerDraft) -> None:
        """Choose and check the log driver."""
        await self._logs.validate(draft)

    @hookimpl(order=80)
    async def engine_container_prepare(self, container: ContainerRecord, preparation: Preparation) -> None:
        """Name the buffer."""
        await self._logs.prepare(container, preparation)

    @hookimpl(order=80)
    async def engine_container_release(self, container: ContainerRecord, exit: Exit | None) -> None:
        """Move what is left."""
        self._logs.release(container)

    @hookimpl(order=80)
    async def engine_container_remove(self, container: ContainerRecord, volumes: bool) -> None:
        """Drop the log."""
        await self._logs.remove(container)

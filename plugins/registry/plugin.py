"""Wires registries into the engine."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

from plugin_sdk import Plugin, PluginAdmin, PluginContext, PluginMeta, hookimpl
from plugin_sdk.api import RouterSpec
from plugin_sdk.registry import Registry

from .service import Registries
from .settings import Settings


class RegistryPlugin(Plugin):
    """Registries and logins."""

    meta = PluginMeta(
        name="registry",
        description="Talks to registries: manifests, blobs, logins",
        provides=(Registry,),
        requires=(PluginAdmin,),
        settings=Settings,
    )

    async def start(self, ctx: PluginContext) -> None:
        """Offer the service; nothing is connected before it is used."""
        self._registries = Registries(ctx.settings, f"engine/{ctx.require(PluginAdmin).facts.version} (linux)")
        ctx.provide(Registry, self._registries)

    async def reload(self, settings: Any) -> None:
        """Take other mirrors, insecure registries, certificates."""
        self._registries.configure(settings)

    @cached_property
    def _routers(self) -> list[RouterSpec]:
        from . import api

        return [RouterSpec(api.router(self._registries))]

    @hookimpl
    def engine_api_routers(self) -> Iterable[RouterSpec]:
        """`/auth`, `/distribution`."""
        return self._routers

    @hookimpl
    def engine_info(self) -> dict[str, Any]:
        """RegistryConfig, IndexServerAddress, the proxies."""
        return self._registries.settings.info()

"""The plugin that shows plugins."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from plugin_sdk import Plugin, PluginAdmin, PluginContext, PluginMeta, hookimpl
from plugin_sdk.api import RouterSpec
from plugin_sdk.managed import ManagedPlugins


class PluginAdminPlugin(Plugin):
    """Routes over the kernel's two plugin services."""

    meta = PluginMeta(
        name="plugin_admin",
        description="Lists, creates, enables, disables and removes plugins over the API",
        requires=(PluginAdmin, ManagedPlugins),
    )

    def __init__(self) -> None:
        self._router: Any = None

    async def start(self, ctx: PluginContext) -> None:
        """Make the routes."""
        from plugins.plugin_admin.api import router

        self._router = router(ctx)

    @hookimpl
    def engine_api_routers(self) -> Iterable[RouterSpec]:
        """The routes."""
        return [RouterSpec(self._router)]

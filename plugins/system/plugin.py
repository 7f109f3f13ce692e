"""The system plugin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from plugin_sdk import Plugin, PluginAdmin, PluginContext, PluginMeta, hookimpl
from plugin_sdk.api import RouterSpec
from plugins.system.settings import Settings


class SystemPlugin(Plugin):
    """Answers `/version`, `/info`, `/events` and `/system/df`."""

    meta = PluginMeta(
        name="system",
        description="Version, information, events and disk usage of the engine",
        requires=(PluginAdmin,),
        settings=Settings,
    )

    def __init__(self) -> None:
        self._router: Any = None
        self._description: Any = None

    async def start(self, ctx: PluginContext) -> None:
        """Look at the host."""
        from plugins.system.api import router
        from plugins.system.describe import Description
        from plugins.system.host import look

        self._description = Description(ctx, look())
        self._router = router(ctx, self._description)

    async def reload(self, settings: Any) -> None:
        """Take new labels."""
        self._description.settings = settings

    @hookimpl
    def engine_api_routers(self) -> Iterable[RouterSpec]:
        """The routes."""
        return [RouterSpec(self._router)]

"""Wires the driver "vfs" into the engine; `--storage-driver vfs` chooses it."""

from __future__ import annotations

from collections.abc import Iterable

from plugin_sdk import DriverSpec, Plugin, PluginContext, PluginMeta, hookimpl
from plugin_sdk.aio import blocking
from plugin_sdk.storage import StorageDriver
from storage_vfs.driver import Vfs


class StorageVfsPlugin(Plugin):
    """Contributes one storage driver."""

    meta = PluginMeta(
        name="storage_vfs",
        description="Storage driver vfs: plain copies, on any file system",
        drivers=(StorageDriver,),
    )

    async def start(self, ctx: PluginContext) -> None:
        """Learn what is there."""
        self._driver = await blocking(Vfs, ctx.root, ctx.log)

    async def restore(self) -> None:
        """Remove what a crash left half made."""
        await blocking(self._driver.sweep)

    @hookimpl
    def engine_drivers(self) -> Iterable[DriverSpec]:
        """The driver."""
        return [DriverSpec(StorageDriver, "vfs", self._driver)]

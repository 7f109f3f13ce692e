"""Root file systems of managed plugins: read-only layers and one writable layer each, of the engine's storage driver."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from kernel.contracts.managed import ManagedPlugin, PluginLayer
from kernel.contracts.storage import Storage
from kernel.errors import Conflict, EngineError, Unavailable

if TYPE_CHECKING:
    from kernel.context import Services
    from kernel.contracts.plugin import Hooks
    from kernel.contracts.storage import StorageDriver

PREFIX = "plugin-"
"""Of the writable layers' names, so that nobody takes them for a container's."""

log = logging.getLogger("engine.managed")


class Layers:
    """See the module.

    Args:
        folder: for temporary files.
    """

    def __init__(self, services: Services, hooks: Hooks, folder: Path) -> None:
        self._services, self._hooks, self._folder = services, hooks, folder

    def storage(self) -> Storage:
        """Raises Unavailable when no plugin provides it."""
        found = self._services.find(Storage)
        if found is None:
            raise Unavailable("managed plugins need storage, and no enabled plugin provides it")
        return found

    def driver(self, name: str = "") -> StorageDriver:
        """The driver of a plugin, or the default one."""
        return self.storage().driver(name)

    def spare(self) -> BinaryIO:
        """A temporary file without a name. Blocking."""
        self._folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        return tempfile.TemporaryFile("w+b", dir=self._folder)

    async def apply(self, tar: BinaryIO, below: Sequence[PluginLayer] = ()) -> PluginLayer:
        """Make a layer from an uncompressed tar."""
        info = await self.driver().apply(below[-1].ChainID if below else "", tar)
        return PluginLayer(ChainID=info.chain_id, DiffID=info.diff_id)

    async def create(self, writable: str, layers: Sequence[PluginLayer]) -> None:
        """The writable layer on top."""
        await self.driver().create(writable, layers[-1].ChainID if layers else "")

    async def mount(self, plugin: ManagedPlugin) -> Path:
        """Path of the root file system."""
        return await self.driver(plugin.Driver).mount(plugin.Writable)

    async def unmount(self, plugin: ManagedPlugin) -> None:
        """Undo; idempotent."""
        await self.driver(plugin.Driver).unmount(plugin.Writable)

    async def remove(self, plugin: ManagedPlugin, others: Iterable[ManagedPlugin]) -> None:
        """The writable layer, and those below it that nobody else needs. Failures are logged."""
        await self.discard(plugin.Driver, plugin.Writable, plugin.Layers, others)

    async def discard(
        self, driver_name: str, writable: str, layers: Sequence[PluginLayer], others: Iterable[ManagedPlugin]
    ) -> None:
        """See `remove`."""
        try:
            await self.driver(driver_name).remove(writable)
        except EngineError as error:
            log.warning("the writable layer %s is not removed: %s", writable, error)
        await self.drop(layers, others, driver_name)

    async def drop(self, layers: Sequence[PluginLayer], others: Iterable[ManagedPlugin], driver_name: str = "") -> None:
        """Read-only layers that neither these plugins nor an image needs, the topmost first. Failures are logged."""
        needed = {layer.ChainID for other in others for layer in other.Layers}
        try:
            for layer in reversed(layers):
                if layer.ChainID in needed or self._held(layer.ChainID):
                    return
                await self.driver(driver_name).remove_layer(layer.ChainID)
        except Conflict:
            return  # another layer lies on it: its owner's affair
        except EngineError as error:
            log.warning("layers of a plugin are not removed: %s", error)

    def _held(self, chain_id: str) -> bool:
        answers = self._hooks.sync("engine_holders", kind="layer", key=chain_id)
        return any(True for _, holders in answers for _ in holders)

    async def sweep(self, known: Iterable[ManagedPlugin]) -> None:
        """Remove writable layers of plugins that never came to be."""
        owned = {plugin.Writable for plugin in known}
        driver = self.driver()
        for name in driver.writable():
            if name.startswith(PREFIX) and name not in owned:
                log.info("removing %s, which belongs to no plugin", name)
                await driver.remove(name)

"""The records of managed plugins, and the folders that belong to them.

<data root>/plugins/<id>/config.json      the config, byte for byte
<data root>/plugins/<id>/secrets.json     secret settings, for root alone
<data root>/plugins/<id>/output.log       what its process writes
<data root>/plugins/<id>/propagated-mount/
The root file system is the storage driver's (`layers.py`).
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernel.contracts.managed import ManagedPlugin
from kernel.errors import Conflict, InvalidParameter, NotFound
from kernel.reference import parse

if TYPE_CHECKING:
    from kernel.contracts.state import StateStore

log = logging.getLogger("engine.managed")


class Records:
    """All managed plugins of one engine."""

    def __init__(self, folder: Path, state: StateStore) -> None:
        self.folder = folder
        self._plugins = state.collection(
            "managed", ManagedPlugin, key=lambda plugin: plugin.Id, unique={"name": lambda plugin: plugin.Name}
        )

    def get(self, ref: str) -> ManagedPlugin:
        """By name, with or without tag, ID, or unique prefix of an ID. Raises NotFound."""
        found = self.named(ref)
        if found is not None:
            return found
        matching = [plugin for plugin in self._plugins.values() if ref and plugin.Id.startswith(ref)]
        if len(matching) > 1:
            raise InvalidParameter(f"multiple plugins found with provided prefix: {ref}")
        if not matching:
            raise NotFound(f'plugin "{ref}" not found')
        return matching[0]

    def named(self, name: str) -> ManagedPlugin | None:
        """By name alone."""
        found = self._plugins.by("name", name) or self._plugins.by("name", f"{name}:latest")
        return found[0] if found else None

    def stored(self, plugin_id: str) -> ManagedPlugin:
        """By the whole ID. Raises NotFound when it is removed."""
        found = self._plugins.get(plugin_id)
        if found is None:
            raise NotFound(f'plugin "{plugin_id[:12]}" not found')
        return found

    def list(self) -> Sequence[ManagedPlugin]:
        """All."""
        return self._plugins.values()

    def check_free(self, name: str) -> None:
        """Raises Conflict when the name is taken."""
        if self._plugins.by("name", name):
            raise Conflict(f"plugin {name} already exists")

    async def put(self, plugin: ManagedPlugin) -> ManagedPlugin:
        """Raises Conflict when the name is taken."""
        try:
            await self._plugins.put(plugin)
        except Conflict:
            raise Conflict(f"plugin {plugin.Name} already exists") from None
        return plugin

    async def change(self, plugin_id: str, **changes: Any) -> ManagedPlugin:
        """Replace fields of a record."""
        return await self.put(self.stored(plugin_id).model_copy(update=changes))

    async def delete(self, plugin_id: str) -> None:
        """Forget it, and remove its folder."""
        await self._plugins.delete(plugin_id)
        await asyncio.to_thread(shutil.rmtree, self.folder / plugin_id, ignore_errors=True)

    async def sweep(self) -> None:
        """Remove folders that no plugin owns."""
        await asyncio.to_thread(self._sweep, {plugin.Id for plugin in self._plugins.values()})

    def _sweep(self, known: set[str]) -> None:
        if not self.folder.is_dir():
            return
        for path in self.folder.iterdir():
            if path.name not in known:
                log.info("removing %s, which belongs to no plugin", path)
                shutil.rmtree(path, ignore_errors=True)


def normal_name(name: str) -> str:
    """ "me/vol:latest" of "me/vol". Raises InvalidParameter, with an example."""
    try:
        reference = parse(name)
    except InvalidParameter as error:
        raise InvalidParameter(f"{error}: {name!r} is no name for a plugin; want for example me/volume:1.0") from None
    if reference.digest:
        raise InvalidParameter(f"invalid plugin name {name!r}: a digest is no tag")
    return reference.tagged().familiar

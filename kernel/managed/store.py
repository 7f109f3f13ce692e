"""Where managed plugins are kept; fulfils `contracts.managed.ManagedPlugins`.

<data root>/plugins/<id>/config.json, rootfs/     one plugin
<data root>/plugins/.new-<id>/                    one that is being made; swept at the start
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from kernel.contracts.events import Event
from kernel.contracts.managed import ManagedPlugin
from kernel.errors import Conflict, InvalidParameter, NotFound
from kernel.managed import archive as archives
from kernel.managed import schema

if TYPE_CHECKING:
    from kernel.contracts.events import EventBus
    from kernel.contracts.plugin import Hooks
    from kernel.contracts.state import StateStore

_REFERENCE = re.compile(
    r"(?:[a-zA-Z0-9][a-zA-Z0-9.-]*(?::\d+)?/)?[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
    r"(:[\w][\w.-]{0,127})?\Z"
)
_NEW = ".new-"

log = logging.getLogger("engine.managed")


class ManagedStore:
    """All managed plugins of one engine."""

    def __init__(self, folder: Path, state: StateStore, events: EventBus, hooks: Hooks) -> None:
        self._folder, self._events, self._hooks = folder, events, hooks
        self._plugins = state.collection(
            "managed", ManagedPlugin, key=lambda plugin: plugin.Id, unique={"name": lambda plugin: plugin.Name}
        )

    async def restore(self) -> None:
        """Remove folders that no plugin owns."""
        await asyncio.to_thread(self._sweep, {plugin.Id for plugin in self._plugins.values()})

    def get(self, ref: str) -> ManagedPlugin:
        """See `ManagedPlugins.get`."""
        named = self._plugins.by("name", ref) or self._plugins.by("name", f"{ref}:latest")
        if named:
            return named[0]
        found = [plugin for plugin in self._plugins.values() if ref and plugin.Id.startswith(ref)]
        if len(found) > 1:
            raise InvalidParameter(f"multiple plugins found with provided prefix: {ref}")
        if not found:
            raise NotFound(f'plugin "{ref}" not found')
        return found[0]

    def list(self) -> Sequence[ManagedPlugin]:
        """See `ManagedPlugins.list`."""
        return self._plugins.values()

    async def create(self, name: str, archive: BinaryIO) -> ManagedPlugin:
        """See `ManagedPlugins.create`."""
        name = _normalised(name)
        if self._plugins.by("name", name):
            raise Conflict(f'plugin "{name}" already exists')
        plugin_id = secrets.token_hex(32)
        fresh = self._folder / f"{_NEW}{plugin_id}"
        try:
            config = await asyncio.to_thread(_unpack, archive, fresh)
            plugin = ManagedPlugin(
                Id=plugin_id,
                Name=name,
                Config=config,
                Settings=schema.default_settings(config),
                Created=datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            )
            await asyncio.to_thread(fresh.rename, self._folder / plugin_id)
            try:
                await self._plugins.put(plugin)
            except Conflict:
                await asyncio.to_thread(shutil.rmtree, self._folder / plugin_id)
                raise Conflict(f'plugin "{name}" already exists') from None
        finally:
            await asyncio.to_thread(shutil.rmtree, fresh, ignore_errors=True)
        self._events.publish(Event("plugin", "create", plugin_id, {"name": name}))
        return plugin

    async def remove(self, ref: str, *, force: bool = False) -> ManagedPlugin:
        """See `ManagedPlugins.remove`."""
        plugin = self.get(ref)
        if plugin.Enabled and not force:
            raise Conflict(f"plugin {plugin.Name} is enabled - disable it first or use force")
        answers = self._hooks.sync("engine_holders", kind="plugin", key=plugin.Name)
        holders = [str(holder) for _, found in answers for holder in found]
        if holders and not force:
            raise Conflict(f"plugin {plugin.Name} is in use by {', '.join(holders)}")
        await self._plugins.delete(plugin.Id)
        await asyncio.to_thread(shutil.rmtree, self._folder / plugin.Id, ignore_errors=True)
        self._events.publish(Event("plugin", "remove", plugin.Id, {"name": plugin.Name}))
        return plugin

    def _sweep(self, known: set[str]) -> None:
        if not self._folder.is_dir():
            return
        for path in self._folder.iterdir():
            if path.name not in known:
                log.info("removing %s, which belongs to no plugin", path)
                shutil.rmtree(path, ignore_errors=True)


def _unpack(archive: BinaryIO, target: Path) -> dict[str, Any]:
    target.mkdir(mode=0o700, parents=True)
    raw = archives.unpack(archive, target)
    config = schema.parse(raw)
    (target / "config.json").write_bytes(raw)
    return config


def _normalised(name: str) -> str:
    found = _REFERENCE.match(name)
    if not found:
        raise InvalidParameter(
            f"invalid reference format: {name!r} is no name for a plugin; want for example me/volume:1.0"
        )
    return name if found.group(1) else f"{name}:latest"

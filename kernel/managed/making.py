"""Plugins from archives, and archives from plugins."""

from __future__ import annotations

import asyncio
import json
import secrets
from datetime import UTC, datetime
from typing import Any, BinaryIO

from kernel.contracts.managed import ManagedPlugin, PluginLayer
from kernel.errors import InvalidParameter
from kernel.managed import archive as archives
from kernel.managed import platforms, schema, settings
from kernel.managed.layers import PREFIX, Layers
from kernel.managed.store import Records, normal_name


async def from_archive(records: Records, layers: Layers, name: str, archive: BinaryIO) -> ManagedPlugin:
    """A new plugin from a tar with `config.json` and `rootfs/`; its name may come from `plugin.json` when `name` is "".

    Raises:
        InvalidParameter: names the member or the field. Conflict: the name is taken. NotSupported: its program is for
            another kind of machine.
    """
    if name:
        name = normal_name(name)
        records.check_free(name)
    spare = await asyncio.to_thread(layers.spare)
    try:
        contents = await asyncio.to_thread(archives.split, archive, spare)
        name = name or normal_name(_label(contents.label))
        records.check_free(name)
        config = schema.parse(contents.config)
        await asyncio.to_thread(spare.seek, 0)
        layer = await layers.apply(spare)
    finally:
        spare.close()
    config["rootfs"] = {"type": "layers", "diff_ids": [layer.DiffID]}
    return await register(records, layers, name, contents.config, config, [layer])


async def register(
    records: Records,
    layers: Layers,
    name: str,
    raw: bytes,
    config: dict[str, Any],
    stack: list[PluginLayer],
    **facts: Any,
) -> ManagedPlugin:
    """Writable layer, folder, record, in this order: what a crash leaves of it is swept at the next start."""
    plugin_id = secrets.token_hex(32)
    plugin = ManagedPlugin(
        Id=plugin_id,
        Name=name,
        Config=config,
        Settings=settings.default(config),
        PluginReference=facts.pop("PluginReference", name),
        Created=datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        Driver=layers.storage().default,
        Layers=stack,
        Writable=f"{PREFIX}{plugin_id}",
        **facts,
    )
    await layers.create(plugin.Writable, stack)
    try:
        plugin = await for_this_machine(layers, plugin)
        await asyncio.to_thread(_write, records, plugin_id, raw)
        return await records.put(plugin)
    except BaseException:
        await layers.remove(plugin, [other for other in records.list() if other.Id != plugin_id])
        await records.delete(plugin_id)
        raise


async def for_this_machine(layers: Layers, plugin: ManagedPlugin) -> ManagedPlugin:
    """The plugin with its platform in the config. Raises NotSupported when that is not this machine's."""
    wanted = await platforms.of_entrypoint(layers, plugin) or platforms.host_platform()
    platforms.check(plugin.Name, wanted)
    system, _, architecture = wanted.partition("/")
    told = {"Os": plugin.Config.get("Os") or system, "Architecture": plugin.Config.get("Architecture") or architecture}
    return plugin.model_copy(update={"Config": {**plugin.Config, **told}})


def _write(records: Records, plugin_id: str, raw: bytes) -> None:
    folder = records.folder / plugin_id
    folder.mkdir(mode=0o711, parents=True)
    (folder / "config.json").write_bytes(raw)


def _label(raw: bytes) -> str:
    try:
        told = json.loads(raw or b"{}")
    except ValueError as error:
        raise InvalidParameter(f"plugin.json: invalid JSON: {error}") from None
    name = told.get("Name") if isinstance(told, dict) else None
    if not isinstance(name, str) or not name:
        raise InvalidParameter(
            "the archive has no plugin.json that names the plugin: it was not written by plugin save"
        )
    return name


async def to_archive(records: Records, layers: Layers, plugin: ManagedPlugin, out: BinaryIO) -> None:
    """Write what `from_archive` reads."""
    raw = await asyncio.to_thread((records.folder / plugin.Id / "config.json").read_bytes)
    contents = archives.Contents(raw, json.dumps({"Name": plugin.Name}).encode())
    tars: list[BinaryIO] = []
    try:
        for layer in plugin.Layers:
            spare = await asyncio.to_thread(layers.spare)
            tars.append(spare)
            await layers.driver(plugin.Driver).diff(layer.ChainID, spare)
            await asyncio.to_thread(spare.seek, 0)
        await asyncio.to_thread(archives.join, contents, tars, out)
    finally:
        for spare in tars:
            spare.close()

"""The upgrade of a managed plugin: swap config and root file system, and put back what was when the new one does not work.

The record keeps what was (`Before`) until the new version has proved itself: a crash in between is undone at the next start.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kernel.contracts.managed import ManagedPlugin, PluginLayer
from kernel.errors import Conflict, EngineError
from kernel.managed import settings
from kernel.managed.layers import PREFIX, Layers
from kernel.managed.making import for_this_machine
from kernel.managed.store import Records

if TYPE_CHECKING:
    from kernel.managed.distribution import Offer
    from kernel.managed.supervisor import Supervisor

_CONFIG = "config.json"


@dataclass(frozen=True, slots=True)
class Bench:
    """What an upgrade works with."""

    records: Records
    layers: Layers
    supervisor: Supervisor


async def upgrade(
    bench: Bench, plugin: ManagedPlugin, offer: Offer, stack: list[PluginLayer], *, in_use: Sequence[str]
) -> ManagedPlugin:
    """Its lock is held. Gives the new record.

    Raises:
        Conflict: running containers use it. EngineError: the new version does not get ready; the old one is back.
    """
    if in_use:
        await bench.layers.drop(stack, bench.records.list())
        raise Conflict(f"plugin {plugin.Name} is in use: {', '.join(in_use)}")
    writable = f"{PREFIX}{plugin.Id}-{secrets.token_hex(4)}"
    await bench.layers.create(writable, stack)
    changed = plugin.model_copy(
        update={
            "Config": offer.config,
            "Settings": settings.carry_over(plugin.Config, plugin.Settings, offer.config),
            "PluginReference": offer.reference.familiar,
            "ManifestDigest": offer.digest,
            "Driver": bench.layers.storage().default,
            "Layers": stack,
            "Writable": writable,
            "Before": plugin.model_dump(),
        }
    )
    try:
        changed = await for_this_machine(bench.layers, changed)
    except BaseException:
        await bench.layers.discard(changed.Driver, writable, stack, bench.records.list())
        raise
    if plugin.Enabled:
        await bench.supervisor.stop()
    await bench.records.put(changed)
    try:
        if plugin.Enabled:
            await bench.supervisor.start(plugin.Timeout)
    except BaseException as error:
        await asyncio.shield(_back(bench, changed))
        if isinstance(error, EngineError):
            raise type(error)(f"the upgrade was undone: {error}") from error
        raise
    await asyncio.to_thread((bench.records.folder / plugin.Id / _CONFIG).write_bytes, offer.raw)
    done = await bench.records.put(changed.model_copy(update={"Before": {}}))
    await bench.layers.discard(plugin.Driver, plugin.Writable, plugin.Layers, bench.records.list())
    return done


async def _back(bench: Bench, changed: ManagedPlugin) -> None:
    old = await undo(bench.records, bench.layers, changed)
    if old.Enabled:
        await bench.supervisor.start(old.Timeout)


async def undo(records: Records, layers: Layers, changed: ManagedPlugin) -> ManagedPlugin:
    """The record as it was before an upgrade that is not over."""
    old = await records.put(ManagedPlugin.model_validate(changed.Before))
    await layers.discard(changed.Driver, changed.Writable, changed.Layers, records.list())
    return old

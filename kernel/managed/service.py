"""Plugins in a process of their own, managed and old-style ones; fulfils `contracts.managed.ManagedPlugins`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from kernel.contracts.events import Event
from kernel.contracts.managed import ManagedPlugin, ManagedStatus, OldStylePlugin, Privilege, Report, RunState
from kernel.errors import Conflict, EngineError, NotFound
from kernel.managed import making, output, privileges, secret_store, settings, upgrading
from kernel.managed.distribution import Distribution
from kernel.managed.interfaces import Interfaces, capability
from kernel.managed.layers import Layers
from kernel.managed.oldstyle import OldStyle
from kernel.managed.runner import World
from kernel.managed.store import Records, normal_name
from kernel.managed.supervisor import Supervisor
from kernel.reference import DEFAULT_TAG

if TYPE_CHECKING:
    from kernel.context import Services
    from kernel.contracts.containers import ExecSpec
    from kernel.contracts.events import EventBus
    from kernel.contracts.logs import LogEntry
    from kernel.contracts.plugin import Hooks
    from kernel.contracts.registry import Credentials
    from kernel.contracts.runtime import ExecProcess
    from kernel.contracts.state import StateStore
    from kernel.drivers import DriverRegistry
    from kernel.managed.peer import Peer

FOLDER = "plugins"
"""Folder of managed plugins under the data root, and of their sockets under the exec root."""
DEFAULT_TIMEOUT = 30.0
"""Seconds until a plugin must answer, where nobody says otherwise."""

log = logging.getLogger("engine.managed")


@dataclass(frozen=True, slots=True)
class Parts:
    """What managed plugins work with.

    Attributes:
        old_style: folders with sockets and .spec and .json files.
    """

    data_root: Path
    exec_root: Path
    state: StateStore
    events: EventBus
    hooks: Hooks
    drivers: DriverRegistry
    services: Services
    old_style: Sequence[str]


class ManagedService:
    """See the module."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        data, run = parts.data_root / FOLDER, parts.exec_root / FOLDER
        self._records = Records(data, parts.state)
        self._layers = Layers(parts.services, parts.hooks, parts.data_root / "tmp")
        self._distribution = Distribution(parts.services, self._records, self._layers)
        self._interfaces = Interfaces(parts.hooks, parts.drivers)
        self._old_style = OldStyle([Path(folder) for folder in parts.old_style], run / "shared", self._interfaces)
        self._world = World(parts.services, parts.drivers, self._layers, self._interfaces, data, run)
        self._supervisors: dict[str, Supervisor] = {}
        self._starting: set[asyncio.Task[None]] = set()
        parts.drivers.seek = self._seek

    # The daemon's life

    async def restore(self) -> None:
        """After the plugins in the daemon have started: settle what a crash left, and start what is enabled, behind."""
        await self._records.sweep()
        for plugin in self.list():
            if plugin.Before:
                await upgrading.undo(self._records, self._layers, plugin)
        for plugin in self.list():
            if plugin.Enabled:
                task = asyncio.create_task(self._resume(plugin), name=f"resume plugin {plugin.Name}")
                self._starting.add(task)
                task.add_done_callback(self._starting.discard)
            elif (supervisor := self._supervisor(plugin)).runner.left_over():
                await supervisor.stop()
        try:
            await self._layers.sweep(self.list())
        except EngineError as error:
            log.warning("layers of plugins could not be swept: %s", error)

    async def _resume(self, plugin: ManagedPlugin) -> None:
        supervisor = self._supervisor(plugin)
        async with supervisor.lock:
            await supervisor.resume(plugin.Timeout)

    async def stop(self) -> None:
        """Let go of all plugins; they go on."""
        for task in [*self._starting]:
            task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        for supervisor in self._supervisors.values():
            await supervisor.leave()
        await self._old_style.close()

    async def rewire(self) -> None:
        """A plugin in the daemon came or went, and adapters with it."""
        await self._interfaces.rewire()

    # Looking

    def get(self, ref: str) -> ManagedPlugin:
        """See `ManagedPlugins.get`."""
        return self._records.get(ref)

    def list(self) -> Sequence[ManagedPlugin]:
        """See `ManagedPlugins.list`."""
        return self._records.list()

    def status(self, ref: str) -> ManagedStatus:
        """See `ManagedPlugins.status`."""
        return self._supervisor(self.get(ref)).status()

    def shown_settings(self, ref: str) -> dict[str, Any]:
        """See `ManagedPlugins.shown_settings`."""
        plugin = self.get(ref)
        return settings.shown(plugin.Config, plugin.Settings, plugin.SecretNames)

    async def old_style(self) -> Sequence[OldStylePlugin]:
        """See `ManagedPlugins.old_style`."""
        known = {peer.name: peer for peer in self._old_style.connected()}
        return [
            OldStylePlugin(name, known[name].endpoint(), known[name].interfaces, known[name].last_error)
            if name in known
            else OldStylePlugin(name, "")
            for name in await self._old_style.names()
        ]

    def _supervisor(self, plugin: ManagedPlugin) -> Supervisor:
        found = self._supervisors.get(plugin.Id)
        if found is None:
            found = Supervisor(self._world, plugin.Id, partial(self._records.stored, plugin.Id))
            self._supervisors[plugin.Id] = found
        return found

    # Making, changing, removing

    async def create(self, name: str, archive: BinaryIO) -> ManagedPlugin:
        """See `ManagedPlugins.create`."""
        return self._told("create", await making.from_archive(self._records, self._layers, name, archive))

    async def load(self, archive: BinaryIO) -> ManagedPlugin:
        """See `ManagedPlugins.load`."""
        return self._told("create", await making.from_archive(self._records, self._layers, "", archive))

    async def save(self, ref: str, out: BinaryIO) -> None:
        """See `ManagedPlugins.save`."""
        await making.to_archive(self._records, self._layers, self.get(ref), out)

    async def privileges(self, reference: str, credentials: Credentials) -> Sequence[Privilege]:
        """See `ManagedPlugins.privileges`."""
        return privileges.of((await self._distribution.look(reference, credentials)).config)

    async def install(
        self, reference: str, name: str, granted: Sequence[Privilege], credentials: Credentials, report: Report
    ) -> ManagedPlugin:
        """See `ManagedPlugins.install`."""
        offer = await self._distribution.look(reference, credentials)
        name = normal_name(name or offer.reference.familiar_name + f":{offer.reference.tag or DEFAULT_TAG}")
        self._records.check_free(name)
        privileges.check(privileges.of(offer.config), granted)
        await report({"status": f"Pulling from {offer.reference.familiar_name}", "id": offer.reference.tag})
        stack = await self._distribution.fetch(offer, credentials, report)
        plugin = await making.register(
            self._records,
            self._layers,
            name,
            offer.raw,
            offer.config,
            stack,
            PluginReference=offer.reference.familiar,
            ManifestDigest=offer.digest,
        )
        return self._told("pull", plugin)

    async def push(self, ref: str, credentials: Credentials, report: Report) -> None:
        """See `ManagedPlugins.push`."""
        plugin = self.get(ref)
        pushed = await self._distribution.push(plugin, credentials, report)
        await self._records.change(plugin.Id, Layers=pushed.Layers, ManifestDigest=pushed.ManifestDigest)
        self._told("push", plugin)

    async def upgrade(
        self, ref: str, reference: str, granted: Sequence[Privilege], credentials: Credentials, report: Report
    ) -> ManagedPlugin:
        """See `ManagedPlugins.upgrade`."""
        plugin = self.get(ref)
        offer = await self._distribution.look(reference or plugin.PluginReference, credentials)
        privileges.check(privileges.of(offer.config), granted)
        stack = await self._distribution.fetch(offer, credentials, report)
        supervisor = self._supervisor(plugin)
        async with supervisor.lock:
            upgraded = await upgrading.upgrade(
                upgrading.Bench(self._records, self._layers, supervisor),
                self._records.stored(plugin.Id),
                offer,
                stack,
                in_use=self._used_by_running(plugin),
            )
        return self._told("upgrade", upgraded)

    def _used_by_running(self, plugin: ManagedPlugin) -> Sequence[str]:
        answers = self._parts.hooks.sync("engine_holders", kind="plugin", key=plugin.Name)
        return [str(each) for _, found in answers for each in found if "running" in each.detail]

    async def set(self, ref: str, changes: Sequence[str]) -> None:
        """See `ManagedPlugins.set`."""
        plugin = self.get(ref)
        async with self._supervisor(plugin).lock:
            plugin = self._records.stored(plugin.Id)
            if plugin.Enabled:
                raise Conflict("cannot set on an active plugin, disable plugin before setting")
            changed = settings.apply(plugin.Config, plugin.Settings, changes)
            names = plugin.SecretNames
            if changed.secrets:
                folder = self._records.folder / plugin.Id
                names = await asyncio.to_thread(secret_store.change, folder, changed.secrets)
            await self._records.change(plugin.Id, Settings=changed.settings, SecretNames=names)

    async def enable(self, ref: str, *, timeout: float = 0.0) -> None:
        """See `ManagedPlugins.enable`."""
        plugin = self.get(ref)
        supervisor = self._supervisor(plugin)
        if plugin.Enabled:
            raise Conflict(f"plugin already enabled: plugin {plugin.Name} is enabled")
        async with supervisor.lock:
            plugin = self._records.stored(plugin.Id)
            if plugin.Enabled:
                raise Conflict(f"plugin already enabled: plugin {plugin.Name} is enabled")
            deadline = timeout if timeout > 0 else DEFAULT_TIMEOUT
            await supervisor.start(deadline)
            try:
                plugin = await self._records.change(plugin.Id, Enabled=True, Timeout=deadline)
            except BaseException:
                await asyncio.shield(supervisor.stop())
                raise
        self._told("enable", plugin)

    async def disable(self, ref: str, *, force: bool = False) -> None:
        """See `ManagedPlugins.disable`."""
        plugin = self.get(ref)
        supervisor = self._supervisor(plugin)
        async with supervisor.lock:
            plugin = self._records.stored(plugin.Id)
            if not plugin.Enabled:
                raise Conflict(f"plugin is already disabled: plugin {plugin.Name} found but disabled")
            if not force:
                self._check_unused(plugin)
            plugin = await self._records.change(plugin.Id, Enabled=False)
            await supervisor.stop()
            if force or not self._holders(plugin):
                await asyncio.to_thread(supervisor.runner.clear_propagated)
        self._told("disable", plugin)

    async def remove(self, ref: str, *, force: bool = False) -> ManagedPlugin:
        """See `ManagedPlugins.remove`."""
        plugin = self.get(ref)
        supervisor = self._supervisor(plugin)
        async with supervisor.lock:
            plugin = self._records.stored(plugin.Id)
            if not force:
                if plugin.Enabled:
                    raise Conflict(f"plugin {plugin.Name} is enabled")
                self._check_unused(plugin)
            if plugin.Enabled:
                plugin = await self._records.change(plugin.Id, Enabled=False)
            await supervisor.stop()
            await asyncio.to_thread(supervisor.runner.clear_propagated)
            await self._records.delete(plugin.Id)
            await self._layers.remove(plugin, self.list())
            self._supervisors.pop(plugin.Id, None)
        return self._told("remove", plugin)

    def _check_unused(self, plugin: ManagedPlugin) -> None:
        if holders := self._holders(plugin):
            raise Conflict(f"plugin {plugin.Name} is in use: {', '.join(holders)}")

    def _holders(self, plugin: ManagedPlugin) -> Sequence[str]:
        answers = self._parts.hooks.sync("engine_holders", kind="plugin", key=plugin.Name)
        return [str(holder) for _, found in answers for holder in found]

    def _told(self, action: str, plugin: ManagedPlugin) -> ManagedPlugin:
        self._parts.events.publish(Event("plugin", action, plugin.Id, {"name": plugin.Name}))
        return plugin

    # Its process

    async def logs(self, ref: str, *, tail: int = -1, follow: bool = False) -> AsyncIterator[Sequence[LogEntry]]:
        """See `ManagedPlugins.logs`."""
        path = self._supervisor(self.get(ref)).runner.sites.output
        if follow:
            async for entries in output.follow(path, count=tail):
                yield entries
        else:
            yield await asyncio.to_thread(output.last, path, tail)

    async def exec(self, ref: str, spec: ExecSpec) -> ExecProcess:
        """See `ManagedPlugins.exec`."""
        import secrets

        plugin = self.get(ref)
        runner = self._running(plugin).runner
        assert runner.record is not None
        return await runner.runtime().exec(plugin.Id, secrets.token_hex(32), spec, runner.record)

    async def pids(self, ref: str) -> Sequence[int]:
        """See `ManagedPlugins.pids`."""
        plugin = self.get(ref)
        return await self._running(plugin).runner.runtime().pids(plugin.Id)

    def _running(self, plugin: ManagedPlugin) -> Supervisor:
        supervisor = self._supervisor(plugin)
        if supervisor.status().state is not RunState.READY:
            raise Conflict(f"plugin {plugin.Name} is not running")
        return supervisor

    # Reaching plugins

    async def peer(self, name: str, capability: str) -> Peer:
        """See `ManagedPlugins.peer`."""
        peer = await self._reach(name)
        if peer is None:
            raise NotFound(f'plugin "{name}" not found')
        if not _implements(peer, capability):
            raise NotFound(f'plugin "{name}" does not implement {capability}')
        return peer

    async def _seek(self, name: str) -> None:
        await self._reach(name)

    async def _reach(self, name: str) -> Peer | None:
        plugin = self._records.named(name)
        if plugin is None:
            return await self._old_style.activate(name)
        if not plugin.Enabled:
            raise NotFound(f"plugin {plugin.Name} found but disabled")
        return await self._supervisor(plugin).reached(plugin.Timeout)


def _implements(peer: Peer, wanted: str) -> bool:
    return wanted.lower() in {capability(interface) for interface in peer.interfaces}

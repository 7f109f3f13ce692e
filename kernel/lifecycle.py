"""In-process plugins from discovery to stop; fulfils `contracts.plugin.PluginAdmin`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kernel import graph, guard
from kernel.context import Context, Services
from kernel.contracts.events import Event
from kernel.contracts.plugin import (
    EngineFacts,
    HookStats,
    PluginMeta,
    PluginState,
    PluginStatus,
    SkipPlugin,
)
from kernel.contracts.state import StateStore
from kernel.discovery import Found, discover
from kernel.dispatch import Dispatcher
from kernel.drivers import DriverRegistry
from kernel.entry import TRIP_FAILURES, TRIP_SECONDS, Entry, PluginSwitch
from kernel.errors import Conflict, DeadlineExceeded, EngineError, InvalidParameter, NotFound
from kernel.events import Bus
from kernel.manager import HookManager

START_SECONDS = 30.0
RESTORE_SECONDS = 300.0
STOP_SECONDS = 10.0

KERNEL = "kernel"

log = logging.getLogger("engine.plugins")


@dataclass(frozen=True, slots=True)
class Parts:
    """What the life cycle works with."""

    facts: EngineFacts
    state: Callable[[str], StateStore]
    switches: Any
    events: Bus
    manager: HookManager
    hooks: Dispatcher
    drivers: DriverRegistry
    services: Services
    threads: guard.Threads
    settings: Callable[[PluginMeta], Any]
    configured: Callable[[str], bool]


class Lifecycle:
    """Starts, watches and stops plugins."""

    def __init__(self, parts: Parts, found: Sequence[Found]) -> None:
        self.facts = parts.facts
        self._parts = parts
        self._entries = {item.name: Entry(item) for item in found}
        self._positions: dict[str, int] = {}
        self._changing = asyncio.Lock()
        self._background: set[asyncio.Task[None]] = set()

    # What is known -------------------------------------------------------------------------------

    def statuses(self) -> list[PluginStatus]:
        """See `PluginAdmin.statuses`."""
        return [entry.status(self._parts.drivers.names(name)) for name, entry in sorted(self._entries.items())]

    def stats(self) -> Mapping[tuple[str, str], HookStats]:
        """See `PluginAdmin.stats`."""
        hooks = {(entry.plugin, entry.hook): entry.stats for entry in self._parts.manager.all_implementations()}
        return {**hooks, **self._parts.drivers.stats}

    # Start of the daemon -------------------------------------------------------------------------

    async def start_all(self) -> None:
        """Start every plugin that is wanted and can run. Raises EngineError when an essential one does not,
        or when one cannot live with the settings that the operator gave it."""
        candidates = self._choose(self._entries.values())
        self._refuse_if_essential()
        await self._in_order(candidates, self._start_after)
        self._refuse_if_essential()

    async def restore_all(self) -> None:
        """Let every started plugin restore its state, each after those that it depends on."""
        await self._in_order([entry for entry in self._entries.values() if entry.enabled], self._restore_after)

    async def stop_all(self) -> None:
        """Stop all, in reverse order; goes on past failures."""
        for name in reversed(list(self._positions)):
            if self._entries[name].enabled:
                await self._stop(self._entries[name])
        for task in self._background:
            task.cancel()

    def _choose(self, entries: Any) -> list[Entry]:
        """Those that can start; the others get a state and a reason."""
        wanted: dict[str, Entry] = {}
        for entry in entries:
            switch = self._parts.switches.get(entry.name)
            if entry.found.error:
                entry.fail(entry.found.error)
            elif entry.found.plugin is None:
                entry.state, entry.reason = PluginState.DISABLED, "blocked by the daemon's configuration"
            elif switch is not None and not switch.enabled:
                entry.state, entry.reason = PluginState.DISABLED, "disabled by the operator"
            else:
                wanted[entry.name] = entry
        while True:
            running = {entry.name: entry.meta for entry in self._entries.values() if entry.enabled}
            metas = {**running, **{name: entry.meta for name, entry in wanted.items()}}
            try:
                graph.check_providers(metas)
                available = graph.fulfilled(metas) | self._parts.services.of(KERNEL)
                lacking = {name: why for name, meta in metas.items() if (why := graph.missing(meta, available))}
                if not lacking:
                    ordered = graph.order(metas)
                    self._positions = {name: place for place, name in enumerate(ordered)}
                    return [wanted[name] for name in ordered if name in wanted]
                for name, why in lacking.items():
                    wanted.pop(name).fail(why)
            except graph.GraphError as error:
                for name in error.culprits & wanted.keys():
                    wanted.pop(name).fail(str(error))

    async def _in_order(
        self, entries: Sequence[Entry], work: Callable[[Entry, list[asyncio.Task[None]]], Coroutine[Any, Any, None]]
    ) -> None:
        metas = {entry.name: entry.meta for entry in entries}
        needs = graph.dependencies(metas)
        tasks: dict[str, asyncio.Task[None]] = {}
        for entry in sorted(entries, key=lambda item: self._positions[item.name]):
            before = [tasks[name] for name in needs[entry.name] if name in tasks]
            tasks[entry.name] = asyncio.create_task(work(entry, before), name=f"plugin {entry.name}")
        await asyncio.gather(*tasks.values())

    async def _start_after(self, entry: Entry, before: list[asyncio.Task[None]]) -> None:
        if before:
            await asyncio.wait(before)
        # The entry says why it does not run, for `plugin ls` and `info`.
        with contextlib.suppress(EngineError, SkipPlugin):
            await self._start(entry)

    async def _restore_after(self, entry: Entry, before: list[asyncio.Task[None]]) -> None:
        if before:
            await asyncio.wait(before)
        await self._restore(entry)

    def _refuse_if_essential(self) -> None:
        for entry in self._entries.values():
            if entry.misconfigured:
                raise InvalidParameter(f"the settings of plugin {entry.name!r} cannot be: {entry.reason}")
            if entry.dependable and entry.state in (PluginState.FAILED, PluginState.SKIPPED):
                raise EngineError(f"the essential plugin {entry.name!r} does not run: {entry.reason}")

    # One plugin ----------------------------------------------------------------------------------

    async def _start(self, entry: Entry) -> None:
        """Raises EngineError or SkipPlugin; then the entry's state says why and nothing of the plugin is left."""
        parts, meta = self._parts, entry.meta
        entry.state, entry.reason, entry.restored, entry.last_error = PluginState.STARTING, "", False, ""
        entry.recent.clear()
        try:
            if why := graph.missing(meta, self._served()):
                raise EngineError(why)
            context = Context(
                meta,
                parts.settings(meta),
                data_root=self.facts.data_root,
                exec_root=self.facts.exec_root,
                state=parts.state(entry.name),
                events=parts.events,
                drivers=parts.drivers,
                hooks=parts.hooks,
                services=parts.services,
            )
            assert entry.found.plugin is not None
            entry.context, entry.instance = context, entry.found.plugin()
            parts.manager.check(entry.instance, entry.name)
            await _within(START_SECONDS, entry.instance.start(context), "start")
            if owed := set(meta.provides) - parts.services.of(entry.name):
                names = ", ".join(sorted(graph.contract_name(contract) for contract in owed))
                raise EngineError(f"its start did not provide {names}")
            parts.manager.register(entry.instance, entry.name, self._positions.get(entry.name, len(self._positions)))
            contribute = getattr(entry.instance, "engine_drivers", None)
            if contribute is not None:
                parts.drivers.add(entry.name, contribute() or ())
        except SkipPlugin as error:
            entry.reason = str(error)
            log.info("plugin %r cannot run here: %s", entry.name, error)
            await self._stop(entry, PluginState.SKIPPED)
            raise
        except Exception as error:
            entry.misconfigured = isinstance(error, InvalidParameter) and parts.configured(entry.name)
            entry.fail(str(error) if isinstance(error, EngineError) else repr(error))
            if not isinstance(error, EngineError):
                log.exception("plugin %r raised at its start", entry.name)
            await self._stop(entry, PluginState.FAILED)
            raise EngineError(f"plugin {entry.name!r} does not start: {entry.reason}") from error
        entry.state = PluginState.ENABLED

    async def _restore(self, entry: Entry) -> None:
        assert entry.instance is not None
        try:
            await _within(RESTORE_SECONDS, entry.instance.restore(), "restore")
            entry.restored = True
        except Exception as error:
            entry.last_error = f"restore failed: {error}"
            log.exception("plugin %r could not restore its state; what it can do goes on", entry.name)

    async def _stop(self, entry: Entry, state: PluginState = PluginState.DISABLED) -> None:
        """Never raises."""
        parts = self._parts
        entry.state = PluginState.STOPPING
        parts.manager.unregister(entry.name)
        parts.drivers.remove(entry.name)
        if entry.instance is not None:
            try:
                await _within(STOP_SECONDS, entry.instance.stop(), "stop")
            except Exception:
                log.exception("plugin %r raised at its stop", entry.name)
        if entry.context is not None:
            await entry.context.close(STOP_SECONDS)
        parts.services.drop(entry.name)
        parts.threads.drop(entry.name)
        entry.instance = entry.context = None
        entry.state = state

    def _served(self) -> set[type[Any]]:
        """Contracts that are fulfilled now."""
        served = set(self._parts.services.of(KERNEL))
        for entry in self._entries.values():
            if entry.enabled:
                served |= self._parts.services.of(entry.name) | set(entry.meta.drivers)
        return served

    # At run time ---------------------------------------------------------------------------------

    async def enable(self, name: str) -> None:
        """See `PluginAdmin.enable`."""
        async with self._changing:
            entry = self._entry(name)
            if entry.enabled:
                raise Conflict(f"plugin {name!r} is already enabled")
            if entry.found.error:
                raise EngineError(f"plugin {name!r} cannot be enabled: {entry.found.error}")
            if entry.found.plugin is None:
                raise Conflict(f"plugin {name!r} is blocked by the daemon's configuration")
            metas = {item.name: item.meta for item in self._entries.values() if item.enabled or item is entry}
            graph.check_providers(metas)
            graph.order(metas)
            try:
                await self._start(entry)
            except SkipPlugin as error:
                raise EngineError(f"plugin {name!r} cannot run here: {error}") from error
            self._positions.setdefault(name, len(self._positions))
            await self._parts.switches.put(PluginSwitch(name=name, enabled=True))
            await self._restore(entry)
            self._parts.events.publish(Event("plugin", "enable", name, {"name": name}))

    async def disable(self, name: str, *, force: bool = False) -> None:
        """See `PluginAdmin.disable`."""
        async with self._changing:
            entry = self._entry(name)
            if entry.enabled:
                if entry.meta.essential:
                    raise Conflict(f"plugin {name!r} is essential and cannot be disabled")
                if dependents := self._dependents(entry):
                    raise Conflict(f"plugin {name!r} is needed by {', '.join(dependents)}; disable those first")
                if not force and (holders := self._holders(name)):
                    raise Conflict(f"plugin {name!r} is in use by {', '.join(holders)}")
                await self._stop(entry)
            elif entry.state is PluginState.DISABLED:
                raise Conflict(f"plugin {name!r} is already disabled")
            entry.state, entry.reason = PluginState.DISABLED, "disabled by the operator"
            await self._parts.switches.put(PluginSwitch(name=name, enabled=False))
            self._parts.events.publish(Event("plugin", "disable", name, {"name": name}))

    async def discover(self) -> list[str]:
        """See `PluginAdmin.discover`."""
        async with self._changing:
            fresh = [Entry(item) for item in await asyncio.to_thread(discover, self._entries)]
            self._entries.update((entry.name, entry) for entry in fresh)
            for entry in self._choose(fresh):
                await self._start_after(entry, [])
                if entry.enabled:
                    await self._restore(entry)
                    self._parts.events.publish(Event("plugin", "enable", entry.name, {"name": entry.name}))
            return [entry.name for entry in fresh]

    async def reload(self, settings: Callable[[PluginMeta], Any]) -> None:
        """Give new values of reloadable settings to the plugins that have them."""
        for entry in self._entries.values():
            if not entry.enabled or entry.meta.settings is None or entry.context is None or entry.instance is None:
                continue
            old, new = entry.context.settings, settings(entry.meta)
            changed = {
                key: getattr(new, key)
                for key, info in entry.meta.settings.model_fields.items()
                if _reloadable(info.json_schema_extra) and getattr(new, key) != getattr(old, key)
            }
            if not changed:
                continue
            entry.context.settings = old.model_copy(update=changed)
            try:
                await _within(STOP_SECONDS, entry.instance.reload(entry.context.settings), "reload")
                log.info("plugin %r took new settings: %s", entry.name, ", ".join(sorted(changed)))
            except Exception as error:
                entry.last_error = f"reload failed: {error}"
                log.exception("plugin %r did not take its new settings", entry.name)

    def failed(self, plugin: str, call: str, error: BaseException) -> None:
        """Count a failure; switch the plugin off when there are too many."""
        entry = self._entries.get(plugin)
        if entry is None or not entry.enabled:
            return
        too_often = entry.note(call, error)
        specification = self._parts.manager.specifications.get(call)
        guards = specification is not None and specification.fail_closed
        if too_often and not guards and not entry.meta.essential and not self._dependents(entry):
            entry.recent.clear()
            task = asyncio.get_running_loop().create_task(self._trip(entry))
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    async def _trip(self, entry: Entry) -> None:
        async with self._changing:
            if not entry.enabled:
                return
            reason = (
                f"switched off after {TRIP_FAILURES} failures within {TRIP_SECONDS:g} s; the last: {entry.last_error}"
            )
            log.error("plugin %r is %s", entry.name, reason)
            await self._stop(entry, PluginState.FAILED)
            entry.reason = reason
            self._parts.events.publish(Event("plugin", "disable", entry.name, {"name": entry.name, "reason": reason}))

    def _entry(self, name: str) -> Entry:
        try:
            return self._entries[name]
        except KeyError:
            raise NotFound(f"no plugin is named {name!r}") from None

    def _dependents(self, entry: Entry) -> list[str]:
        others = {other.name: other.meta for other in self._entries.values() if other.enabled and other is not entry}
        left = graph.fulfilled(others) | self._parts.services.of(KERNEL)
        return [name for name, meta in others.items() if set(meta.requires) - left]

    def _holders(self, name: str) -> list[str]:
        answers = self._parts.hooks.sync("engine_holders", kind="plugin", key=name)
        return [str(holder) for plugin, holders in answers if plugin != name for holder in holders]


async def _within(seconds: float, work: Coroutine[Any, Any, None], what: str) -> None:
    timer = asyncio.timeout(seconds)
    try:
        async with timer:
            await work
    except TimeoutError as error:
        if timer.expired():
            raise DeadlineExceeded(f"its {what} did not finish within {seconds:g} s") from error
        raise


def _reloadable(extra: Any) -> bool:
    return isinstance(extra, dict) and bool(extra.get("engine", {}).get("reloadable"))

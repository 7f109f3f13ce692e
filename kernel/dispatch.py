"""The one place where hooks are called and awaited."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from kernel import guard
from kernel.errors import EngineError, PluginError
from kernel.hookspecs._markers import Mode
from kernel.manager import HookManager, Implementation

log = logging.getLogger("engine.hooks")


class Dispatcher:
    """Calls the hooks of a HookManager; fulfils `contracts.plugin.Hooks`."""

    def __init__(self, manager: HookManager, threads: guard.Threads, on_failure: guard.OnFailure) -> None:
        self._manager = manager
        self._threads = threads
        self._on_failure = on_failure

    def sync(self, hook: str, /, **arguments: Any) -> list[tuple[str, Any]]:
        """See `Hooks.sync`."""
        results = []
        for entry in self._table(hook, "sync"):
            try:
                value = guard.call_sync(
                    entry.plugin, hook, partial(self._invoke, entry, arguments), entry.stats, self._on_failure
                )
            except EngineError as error:
                log.error("%s: plugin %r is left out: %s", hook, entry.plugin, error)
                continue
            if value is not None:
                results.append((entry.plugin, value))
        return results

    async def all(self, hook: str, /, **arguments: Any) -> list[tuple[str, Any]]:
        """See `Hooks.all`."""
        results = []
        for entry in self._table(hook, "all"):
            value = await self._await(entry, arguments)
            if value is not None:
                results.append((entry.plugin, value))
        return results

    async def each(self, hook: str, /, **arguments: Any) -> list[tuple[str, BaseException]]:
        """See `Hooks.each`."""
        failures: list[tuple[str, BaseException]] = []
        for entry in reversed(self._table(hook, "all")):
            try:
                await self._await(entry, arguments)
            except EngineError as error:
                log.error("%s: plugin %r: %s", hook, entry.plugin, error)
                failures.append((entry.plugin, error))
        return failures

    async def first(self, hook: str, /, **arguments: Any) -> tuple[str, Any] | None:
        """See `Hooks.first`."""
        for entry in self._table(hook, "first"):
            value = await self._await(entry, arguments)
            if value is not None:
                return entry.plugin, value
        return None

    async def notify(self, hook: str, /, **arguments: Any) -> None:
        """See `Hooks.notify`."""
        for entry in self._table(hook, "notify"):
            try:
                await self._await(entry, arguments)
            except EngineError as error:
                log.warning("%s: plugin %r: %s", hook, entry.plugin, error)

    def around(self, hook: str, /, **arguments: Any) -> AbstractAsyncContextManager[None]:
        """See `Hooks.around`."""
        return self._around(hook, arguments)

    @asynccontextmanager
    async def _around(self, hook: str, arguments: dict[str, Any]) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for entry in self._table(hook, "around"):
                offered = guard.call_sync(
                    entry.plugin, hook, partial(self._invoke, entry, arguments), entry.stats, self._on_failure
                )
                if offered is None:
                    continue
                if not isinstance(offered, AbstractAsyncContextManager):
                    raise PluginError(entry.plugin, hook, f"want an async context manager, got {offered!r:.80}")
                await stack.enter_async_context(offered)
            yield

    def _table(self, hook: str, mode: Mode) -> tuple[Implementation, ...]:
        table = self._manager.table(hook)
        specified = self._manager.mode(hook)
        if specified != mode:
            raise EngineError(f"hook {hook} is specified as {specified!r}, and was called as {mode!r}")
        return table

    async def _await(self, entry: Implementation, arguments: dict[str, Any]) -> Any:
        invoke: Callable[[], Awaitable[Any]]
        if entry.threaded:
            invoke = lambda: self._threads.run(entry.plugin, self._invoke, entry, arguments)  # noqa: E731
        else:
            invoke = lambda: self._invoke(entry, arguments)  # noqa: E731
        return await guard.call(entry.plugin, entry.hook, invoke, entry.deadline, entry.stats, self._on_failure)

    @staticmethod
    def _invoke(entry: Implementation, arguments: dict[str, Any]) -> Any:
        return entry.function(*[arguments[name] for name in entry.argnames])

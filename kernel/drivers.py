"""Drivers by contract and name, each behind a guard.

The guard is made of the contract: its coroutine methods get a deadline (a driver's plain function runs in a worker thread of
its plugin), results are checked against the return annotation, and failures are turned into PluginErrors that name
plugin and call. Attributes and methods that the contract does not know pass through untouched.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

from kernel import guard
from kernel.contracts.plugin import DriverSpec, HookStats
from kernel.dispatch import Dispatcher
from kernel.errors import Conflict, EngineError, NotFound
from kernel.reference import DEFAULT_TAG
from kernel.returns import checker

T = TypeVar("T")

DEADLINE = 60.0
"""Seconds for a call where neither contract nor driver says otherwise."""

Key = tuple[type[Any], str]

Seek = Callable[[str], Awaitable[None]]
"""Brings in the drivers of the plugin of that name, if there is one; raises EngineError when it cannot be used."""


class DriverRegistry:
    """All drivers; fulfils `contracts.plugin.Drivers`.

    Attributes:
        seek: asked first for a driver that is not there: plugins that run in a process of their own.
    """

    def __init__(self, hooks: Dispatcher, threads: guard.Threads, on_failure: guard.OnFailure) -> None:
        self._hooks = hooks
        self._threads = threads
        self._on_failure = on_failure
        self._entries: dict[Key, tuple[str, Guarded]] = {}
        self.stats: dict[tuple[str, str], HookStats] = {}
        self.seek: Seek | None = None

    def add(self, plugin: str, specs: Iterable[DriverSpec]) -> None:
        """Take a plugin's drivers in, all or none.

        Raises:
            Conflict: a name is taken; names both plugins.
            EngineError: not a DriverSpec, or a method of the contract is missing.
        """
        fresh: dict[Key, tuple[str, Guarded]] = {}
        for spec in specs:
            if not isinstance(spec, DriverSpec):
                raise EngineError(f"plugin {plugin!r}: engine_drivers wants DriverSpec, got {spec!r:.80}")
            key = (spec.contract, spec.name)
            if key in fresh or key in self._entries:
                other = self._entries[key][0] if key in self._entries else plugin
                raise Conflict(
                    f"plugin {plugin!r}: {spec.contract.__name__} {spec.name!r} is already provided by plugin {other!r};"
                    f" disable one of the two"
                )
            missing = [name for name in _methods(spec.contract) if not callable(getattr(spec.driver, name, None))]
            if missing:
                raise EngineError(
                    f"plugin {plugin!r}: driver {spec.name!r} lacks {', '.join(missing)} of {spec.contract.__name__}"
                )
            fresh[key] = (plugin, Guarded(plugin, spec, self._threads, self._on_failure, self.stats))
        self._entries.update(fresh)

    def remove(self, plugin: str) -> None:
        """Forget a plugin's drivers."""
        self._entries = {key: entry for key, entry in self._entries.items() if entry[0] != plugin}

    def names(self, plugin: str) -> list[str]:
        """`Contract name` of each of a plugin's drivers, sorted."""
        return sorted(
            f"{contract.__name__} {name}" for (contract, name), (who, _) in self._entries.items() if who == plugin
        )

    def get(self, contract: type[T], name: str) -> T:
        """See `Drivers.get`."""
        return cast(T, self._entry(contract, name)[1])

    def _knows(self, contract: type[Any], name: str) -> bool:
        return (contract, name) in self._entries or (contract, f"{name}:{DEFAULT_TAG}") in self._entries

    def _entry(self, contract: type[Any], name: str) -> tuple[str, Guarded]:
        entry = self._entries.get((contract, name)) or self._entries.get((contract, f"{name}:{DEFAULT_TAG}"))
        if entry is None:
            known = ", ".join(self.all(contract)) or "none"
            raise NotFound(f"no {contract.__name__} is named {name!r} (there are: {known})")
        return entry

    async def find(self, contract: type[T], name: str) -> T:
        """See `Drivers.find`."""
        if not self._knows(contract, name) and self.seek is not None:
            await self.seek(name)
        if not self._knows(contract, name):
            found = await self._hooks.first("engine_driver_missing", contract=contract, name=name)
            if found is not None and (contract, name) not in self._entries:
                plugin, spec = found
                if not isinstance(spec, DriverSpec) or (spec.contract, spec.name) != (contract, name):
                    raise EngineError(f"plugin {plugin!r} answered engine_driver_missing with {spec!r:.80}")
                self.add(plugin, [spec])
        return self.get(contract, name)

    def all(self, contract: type[T]) -> Mapping[str, T]:
        """See `Drivers.all`."""
        found = {name: cast(T, entry[1]) for (kind, name), entry in self._entries.items() if kind is contract}
        return dict(sorted(found.items()))

    def canonical(self, contract: type[Any], name: str) -> str:
        """See `Drivers.canonical`."""
        return self._entry(contract, name)[1]._spec.name

    def owner(self, contract: type[Any], name: str) -> str:
        """See `Drivers.owner`."""
        return self._entry(contract, name)[0]


class Guarded:
    """A driver behind its guard; looks like the driver."""

    def __init__(
        self,
        plugin: str,
        spec: DriverSpec,
        threads: guard.Threads,
        on_failure: guard.OnFailure,
        stats: dict[tuple[str, str], HookStats],
    ) -> None:
        self._plugin = plugin
        self._spec = spec
        self._threads = threads
        self._on_failure = on_failure
        self._stats = stats

    def __repr__(self) -> str:
        return f"<{self._spec.contract.__name__} {self._spec.name!r} of plugin {self._plugin!r}>"

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._spec.driver, name)
        declared = getattr(self._spec.contract, name, None)
        if name.startswith("_") or not callable(attribute) or not inspect.isfunction(declared):
            return attribute
        guarded = self._wrap(name, attribute, declared)
        self.__dict__[name] = guarded
        return guarded

    def _wrap(self, name: str, method: Callable[..., Any], declared: Callable[..., Any]) -> Callable[..., Any]:
        plugin, threads, on_failure = self._plugin, self._threads, self._on_failure
        title = f"{self._spec.contract.__name__}.{name}"
        stats = self._stats.setdefault((plugin, title), HookStats())
        if not inspect.iscoroutinefunction(declared):

            def plain(*args: Any, **kwargs: Any) -> Any:
                return guard.call_sync(plugin, title, lambda: method(*args, **kwargs), stats, on_failure)

            return plain
        own, given = getattr(declared, "engine_deadline", None), self._spec.deadline
        limit = min(own or given or DEADLINE, given or own or DEADLINE)
        check = checker(declared)
        threaded = not inspect.iscoroutinefunction(method)

        async def awaited(*args: Any, **kwargs: Any) -> Any:
            invoke: Callable[[], Awaitable[Any]]
            if threaded:
                invoke = lambda: threads.run(plugin, lambda: method(*args, **kwargs))  # noqa: E731
            else:
                invoke = lambda: method(*args, **kwargs)  # noqa: E731
            return await guard.call(plugin, title, invoke, limit, stats, on_failure, check)

        return awaited


def _methods(contract: type[Any]) -> list[str]:
    return [
        name
        for base in contract.__mro__
        for name, value in vars(base).items()
        if not name.startswith("_") and inspect.isfunction(value)
    ]

"""What one plugin is given; fulfils `contracts.plugin.PluginContext`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from kernel.contracts.plugin import PluginMeta
from kernel.errors import EngineError, Unavailable
from kernel.graph import contract_name

if TYPE_CHECKING:
    from kernel.contracts.events import EventBus
    from kernel.contracts.plugin import Drivers, Hooks
    from kernel.contracts.state import StateStore

T = TypeVar("T")


class Services:
    """The one provider of each contract."""

    def __init__(self) -> None:
        self._found: dict[type[Any], tuple[str, Any]] = {}

    def provide(self, plugin: str, contract: type[T], service: T) -> None:
        """Offer. Raises EngineError when another plugin already does."""
        other = self._found.get(contract)
        if other is not None and other[0] != plugin:
            raise EngineError(f"plugins {other[0]!r} and {plugin!r} both provide {contract_name(contract)}")
        self._found[contract] = (plugin, service)

    def find(self, contract: type[T]) -> T | None:
        """The service, or None."""
        found = self._found.get(contract)
        return cast(T, found[1]) if found else None

    def of(self, plugin: str) -> set[type[Any]]:
        """Contracts that a plugin serves now."""
        return {contract for contract, (who, _) in self._found.items() if who == plugin}

    def drop(self, plugin: str) -> None:
        """Forget a plugin's services."""
        self._found = {contract: found for contract, found in self._found.items() if found[0] != plugin}


class Context:
    """See `PluginContext`."""

    def __init__(
        self,
        meta: PluginMeta,
        settings: Any,
        *,
        data_root: Path,
        exec_root: Path,
        state: StateStore,
        events: EventBus,
        drivers: Drivers,
        hooks: Hooks,
        services: Services,
    ) -> None:
        self.name = meta.name
        self.log = logging.getLogger(f"engine.{meta.name}")
        self.settings = settings
        self.state: StateStore = state
        self.events: EventBus = events
        self.drivers: Drivers = drivers
        self.hooks: Hooks = hooks
        self._meta = meta
        self._data_root, self._exec_root = data_root, exec_root
        self._services = services
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def root(self) -> Path:
        """See `PluginContext.root`."""
        return _folder(self._data_root / self.name)

    @property
    def run(self) -> Path:
        """See `PluginContext.run`."""
        return _folder(self._exec_root / self.name)

    def provide(self, contract: type[T], service: T) -> None:
        """See `PluginContext.provide`."""
        if contract not in self._meta.provides:
            raise EngineError(f"plugin {self.name!r}: name {contract_name(contract)} in `meta.provides` to provide it")
        self._services.provide(self.name, contract, service)

    def require(self, contract: type[T]) -> T:
        """See `PluginContext.require`."""
        service = self._services.find(contract)
        if service is None:
            raise Unavailable(f"no enabled plugin provides {contract_name(contract)}")
        return service

    def find(self, contract: type[T]) -> T | None:
        """See `PluginContext.find`."""
        return self._services.find(contract)

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """See `PluginContext.spawn`."""
        task = asyncio.create_task(work, name=f"{self.name}: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.log.error("background work %r failed", task.get_name(), exc_info=error)

    async def close(self, deadline: float) -> None:
        """Cancel the background work and wait for its end, `deadline` seconds at most."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=deadline)
            for task in left:
                self.log.warning("background work %r did not end within %g s", task.get_name(), deadline)


def _folder(path: Path) -> Path:
    if not path.is_dir():
        path.mkdir(mode=0o711, parents=True, exist_ok=True)
    return path

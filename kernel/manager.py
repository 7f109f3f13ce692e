"""Hook registration: pluggy with the engine's own rules.

pluggy carries the specifications and checks signatures; `kernel/dispatch.py` calls. On top of pluggy: only attributes with
the prefix `engine_` are looked at (so properties are not evaluated), registration is all or nothing, and a hook that
no specification knows is an error.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pluggy

from kernel.contracts.plugin import HookStats
from kernel.errors import EngineError
from kernel.hookspecs._markers import DEFAULT_ORDER, PREFIX, PROJECT, Mode


@dataclass(frozen=True, slots=True)
class Specification:
    """One hook: its mode and the seconds that one implementation may take."""

    name: str
    mode: Mode
    deadline: float
    arguments: tuple[str, ...]
    fail_closed: bool


@dataclass(slots=True)
class Implementation:
    """One plugin's implementation of one hook.

    Attributes:
        threaded: a plain function where the hook is awaited: called in a worker thread.
    """

    plugin: str
    hook: str
    function: Callable[..., Any]
    argnames: tuple[str, ...]
    order: tuple[int, int]
    deadline: float
    threaded: bool
    stats: HookStats = field(default_factory=HookStats)


class _PrefixedManager(pluggy.PluginManager):
    def parse_hookimpl_opts(self, plugin: object, name: str) -> Any:
        return super().parse_hookimpl_opts(plugin, name) if name.startswith(PREFIX) else None

    def parse_hookspec_opts(self, module_or_class: Any, name: str) -> Any:
        return super().parse_hookspec_opts(module_or_class, name) if name.startswith(PREFIX) else None


class HookManager:
    """All specifications, and the implementations of the plugins that are registered now."""

    def __init__(self) -> None:
        self._pluggy = _PrefixedManager(PROJECT)
        self._specifications: dict[str, Specification] = {}
        self._tables: dict[str, tuple[Implementation, ...]] = {}
        self._implementations: dict[str, list[Implementation]] = {}

    @property
    def specifications(self) -> dict[str, Specification]:
        """By name."""
        return dict(self._specifications)

    def add_specifications(self, module: ModuleType) -> None:
        """Learn all hook specifications of a module. Raises EngineError when one is known already."""
        for name, function in vars(module).items():
            mode = getattr(function, "engine_mode", None)
            if mode is None:
                continue
            if name in self._specifications:
                raise EngineError(f"hook {name} is specified twice")
            arguments = tuple(inspect.signature(function).parameters)
            self._specifications[name] = Specification(
                name, mode, function.engine_deadline, arguments, function.engine_fail_closed
            )
        self._pluggy.add_hookspecs(module)

    def register(self, plugin: object, name: str, position: int = 0) -> None:
        """Take a plugin's implementations in, all or none.

        Args:
            position: decides among implementations of equal `order`.

        Raises:
            EngineError: a misspelt hook, an unmarked one, or wrong parameters; the message names hook and mend.
        """
        self.check(plugin, name)
        try:
            self._pluggy.register(plugin, name=name)
        except (pluggy.PluginValidationError, ValueError) as error:
            if self._pluggy.get_plugin(name) is plugin:
                self._pluggy.unregister(name=name)
            raise EngineError(f"plugin {name!r}: {error}") from error
        for caller in self._pluggy.get_hookcallers(plugin) or ():
            specification = self._specifications[caller.name]
            for found in caller.get_hookimpls():
                if found.plugin_name == name:
                    entry = _implementation(specification, found, position)
                    self._implementations.setdefault(caller.name, []).append(entry)
        self._tables.clear()

    def check(self, plugin: object, name: str) -> None:
        """Raises EngineError for a misspelt or unmarked hook; runs none of the plugin's code."""
        for attribute in dir(type(plugin)):
            if not attribute.startswith(PREFIX):
                continue
            if attribute not in self._specifications:
                hint = _suggest(attribute, self._specifications)
                raise EngineError(f"plugin {name!r} implements {attribute}, and there is no such hook{hint}")
            if not hasattr(getattr(type(plugin), attribute), f"{PROJECT}_impl"):
                raise EngineError(f"plugin {name!r}: {attribute} is not marked; put @hookimpl above it")

    def unregister(self, name: str) -> None:
        """Forget a plugin's implementations; an unknown name is fine."""
        if self._pluggy.get_plugin(name) is not None:
            self._pluggy.unregister(name=name)
        for entries in self._implementations.values():
            entries[:] = [entry for entry in entries if entry.plugin != name]
        self._tables.clear()

    def table(self, hook: str) -> tuple[Implementation, ...]:
        """Implementations in calling order: by `order`, then by position."""
        try:
            return self._tables[hook]
        except KeyError:
            if hook not in self._specifications:
                raise EngineError(f"there is no hook {hook!r}{_suggest(hook, self._specifications)}") from None
            entries = sorted(self._implementations.get(hook, ()), key=lambda entry: entry.order)
            return self._tables.setdefault(hook, tuple(entries))

    def mode(self, hook: str) -> Mode:
        """How a known hook is called."""
        return self._specifications[hook].mode

    def all_implementations(self) -> list[Implementation]:
        """Every registered implementation."""
        return [entry for entries in self._implementations.values() for entry in entries]


def _implementation(specification: Specification, found: pluggy.HookImpl, position: int) -> Implementation:
    function = found.function
    threaded = specification.mode not in ("sync", "around") and not inspect.iscoroutinefunction(function)
    return Implementation(
        plugin=found.plugin_name,
        hook=specification.name,
        function=function,
        argnames=found.argnames,
        order=(getattr(function, "engine_order", DEFAULT_ORDER), position),
        deadline=specification.deadline,
        threaded=threaded,
    )


def _suggest(name: str, known: dict[str, Specification]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""

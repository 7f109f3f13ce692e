"""Which plugins there are: the entry points of group `engine.plugins`, through stevedore.

stevedore's cache would lose the distributions and write into the home folder; entry points are therefore listed by its uncached
path and loaded one by one, so that a name can be passed over before its code runs, and a failure is kept.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
from collections.abc import Container
from dataclasses import dataclass

from stevedore.extension import Extension, ExtensionManager

from kernel.contracts.plugin import Plugin, PluginMeta
from kernel.hookspecs._markers import SPEC_VERSION

GROUP = "engine.plugins"
OWN = "engine"
"""Our own distribution: its plugins come first, so that strangers' are asked after them at equal order."""

log = logging.getLogger("engine.plugins")


@dataclass(frozen=True, slots=True)
class Found:
    """One entry point. `plugin` is None when it cannot be used, and `error` says why."""

    name: str
    distribution: str
    version: str
    plugin: type[Plugin] | None
    error: str = ""


class _Lister(ExtensionManager[type[Plugin]]):
    """Finds entry points afresh at every look, and loads none of them by itself."""

    def list_entry_points(self) -> list[importlib.metadata.EntryPoint]:
        importlib.invalidate_caches()
        return list(importlib.metadata.entry_points(group=self.namespace))

    def _load_plugins(self, *args: object, **kwargs: object) -> list[Extension[type[Plugin]]]:
        return []


def discover(known: Container[str] = (), blocked: Container[str] = ()) -> list[Found]:
    """All entry points but the `known` ones, ours first, then by name; code of `blocked` ones is not run.

    Two entries of one name: both distributions are named in the error, and neither runs.
    """
    entries: dict[str, list[importlib.metadata.EntryPoint]] = {}
    for entry in _Lister(GROUP).list_entry_points():
        same = entries.setdefault(entry.name, [])
        if not any(_origin(other) == _origin(entry) and other.value == entry.value for other in same):
            same.append(entry)
    found = [_load(name, same, blocked) for name, same in entries.items() if name not in known]
    return sorted(found, key=lambda item: (item.distribution != OWN, item.name))


def _origin(entry: importlib.metadata.EntryPoint) -> tuple[str, str]:
    return (entry.dist.name, entry.dist.version) if entry.dist else ("", "")


def _load(name: str, entries: list[importlib.metadata.EntryPoint], blocked: Container[str]) -> Found:
    distribution, version = _origin(entries[0])
    if len(entries) > 1:
        sources = " and ".join(f"{' '.join(_origin(entry))} ({entry.value})" for entry in entries)
        return Found(
            name, distribution, version, None, f"two distributions bring a plugin {name!r}: {sources}; remove one"
        )
    if name in blocked:
        return Found(name, distribution, version, None)
    try:
        plugin = entries[0].load()
    except Exception as error:
        log.debug("plugin %r cannot be loaded", name, exc_info=True)
        return Found(name, distribution, version, None, f"cannot be loaded from {entries[0].value}: {error!r}")
    return (
        Found(name, distribution, version, plugin, "")
        if not (wrong := _wrong(name, plugin))
        else Found(name, distribution, version, None, wrong)
    )


def _wrong(name: str, plugin: object) -> str:
    if not (isinstance(plugin, type) and issubclass(plugin, Plugin)):
        return f"entry point {name!r} does not name a subclass of plugin_sdk.Plugin"
    meta = getattr(plugin, "meta", None)
    if not isinstance(meta, PluginMeta):
        return f"{plugin.__name__} has no `meta = PluginMeta(...)`"
    if meta.name != name:
        return f"the entry point is named {name!r} and the plugin {meta.name!r}; make them equal"
    if meta.api != SPEC_VERSION:
        return (
            f"plugin {name!r} was written for generation {meta.api} of the hooks, and this engine has {SPEC_VERSION};"
            f" install a version of {'the engine' if meta.api > SPEC_VERSION else 'the plugin'} that fits"
        )
    return ""

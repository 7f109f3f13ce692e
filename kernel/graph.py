"""In which order plugins start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kernel.contracts.plugin import PluginMeta
from kernel.errors import EngineError


class GraphError(EngineError):
    """The plugins cannot be ordered; carries the culprits' names."""

    def __init__(self, message: str, culprits: frozenset[str]) -> None:
        super().__init__(message)
        self.culprits = culprits


def contract_name(contract: type[Any]) -> str:
    """How a contract is called in messages."""
    return contract.__name__


def providers(metas: Mapping[str, PluginMeta]) -> dict[type[Any], str]:
    """Contract to the plugin that provides it. Raises GraphError, naming both, when two do."""
    found: dict[type[Any], str] = {}
    for name, meta in metas.items():
        for contract in meta.provides:
            if contract in found:
                raise GraphError(
                    f"plugins {found[contract]!r} and {name!r} both provide {contract_name(contract)}; disable one of them",
                    frozenset({name}),
                )
            found[contract] = name
    return found


def missing(meta: PluginMeta, available: Mapping[type[Any], str]) -> str:
    """Why a plugin cannot start with these providers, or ""."""
    for contract in meta.requires:
        if contract not in available:
            return (
                f"plugin {meta.name!r} requires {contract_name(contract)}, and no enabled plugin provides it;"
                f" enable or install one that does"
            )
    return ""


def dependencies(metas: Mapping[str, PluginMeta], available: Mapping[type[Any], str]) -> dict[str, set[str]]:
    """Plugin to the plugins that start before it."""
    return {
        name: {
            available[contract]
            for contract in (*meta.requires, *meta.wants)
            if contract in available and available[contract] != name
        }
        for name, meta in metas.items()
    }


def order(metas: Mapping[str, PluginMeta], available: Mapping[type[Any], str]) -> list[str]:
    """Names so that each comes after what it depends on; otherwise in the mapping's order.

    Raises:
        GraphError: a cycle; the message shows it.
    """
    waiting = dependencies(metas, available)
    done: list[str] = []
    visiting: list[str] = []

    def visit(name: str) -> None:
        if name in done:
            return
        if name in visiting:
            circle = [*visiting[visiting.index(name) :], name]
            raise GraphError(
                f"plugins need each other in a circle: {' -> '.join(circle)}; one of them must give up a `requires` or `wants`",
                frozenset(circle),
            )
        visiting.append(name)
        for other in sorted(waiting[name]):
            visit(other)
        visiting.pop()
        done.append(name)

    for name in metas:
        visit(name)
    return done

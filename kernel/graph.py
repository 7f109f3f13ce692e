"""In which order plugins start."""

from __future__ import annotations

from collections.abc import Container, Mapping
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


def check_providers(metas: Mapping[str, PluginMeta]) -> None:
    """Raises GraphError, naming both, when two plugins provide one contract."""
    found: dict[type[Any], str] = {}
    for name, meta in metas.items():
        for contract in meta.provides:
            if contract in found:
                raise GraphError(
                    f"plugins {found[contract]!r} and {name!r} both provide {contract_name(contract)}; disable one of them",
                    frozenset({name}),
                )
            found[contract] = name


def missing(meta: PluginMeta, available: Container[type[Any]]) -> str:
    """Why a plugin cannot start when these contracts are fulfilled, or ""."""
    for contract in meta.requires:
        if contract not in available:
            return (
                f"plugin {meta.name!r} requires {contract_name(contract)}, and no enabled plugin provides it;"
                f" enable or install one that does"
            )
    return ""


def fulfilled(metas: Mapping[str, PluginMeta]) -> set[type[Any]]:
    """Contracts that these plugins fulfil, by a service or by drivers."""
    return {contract for meta in metas.values() for contract in (*meta.provides, *meta.drivers)}


def dependencies(metas: Mapping[str, PluginMeta]) -> dict[str, set[str]]:
    """Plugin to the plugins that start before it."""
    who: dict[type[Any], set[str]] = {}
    for name, meta in metas.items():
        for contract in (*meta.provides, *meta.drivers):
            who.setdefault(contract, set()).add(name)
    return {
        name: {other for contract in (*meta.requires, *meta.wants) for other in who.get(contract, ())} - {name}
        for name, meta in metas.items()
    }


def order(metas: Mapping[str, PluginMeta]) -> list[str]:
    """Names so that each comes after what it depends on; otherwise in the mapping's order.

    Raises:
        GraphError: a cycle; the message shows it.
    """
    waiting = dependencies(metas)
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

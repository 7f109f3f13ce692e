"""Hooks of the engine as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from kernel.hookspecs._markers import hookspec

if TYPE_CHECKING:
    from kernel.contracts.common import Holder
    from kernel.contracts.events import Event
    from kernel.contracts.managed import InterfaceAdapter
    from kernel.contracts.plugin import DriverSpec


@hookspec("sync")
def engine_drivers() -> Iterable[DriverSpec]:
    """Contribute drivers (storage, runtime, log, network, IPAM, volume, ...).

    Called by the kernel once, right after the plugin's `start`; the drivers leave with the plugin. Two drivers of one
    name and contract are refused: the second plugin fails to start, and the message names both. None contributes
    nothing. An exception fails the plugin's start.
    """
    raise NotImplementedError


@hookspec("first", deadline=20.0)
async def engine_driver_missing(contract: type[Any], name: str) -> DriverSpec | None:
    """Find a driver that nobody contributed, at its first use.

    Called by the kernel from `drivers.find` when no driver of that name is known. The first answer wins and is kept
    as if the answering plugin had contributed it; None passes on to the next plugin. An exception is raised to the
    one who asked.
    """
    raise NotImplementedError


@hookspec("sync")
def engine_managed_interfaces() -> Mapping[str, InterfaceAdapter]:
    """Contribute adapters for interfaces of plugins that run in a process of their own.

    Called by the kernel whenever such a plugin is started. Keys are interface types without the version's minor part
    being looked at, for example "docker.volumedriver/1.0"; case does not matter. The first plugin that contributes an
    interface has it. An interface that nobody contributes is kept and shown, and nobody calls it. Give the same adapter
    objects each time. A plugin that raises is left out, and its failure logged.
    """
    raise NotImplementedError


@hookspec("notify", deadline=10.0)
async def engine_ready(addresses: list[str]) -> None:
    """The API listens on `addresses`, and every plugin has restored its state.

    Called by the kernel once per start of the daemon. The return value is ignored; exceptions are logged.
    """
    raise NotImplementedError


@hookspec("notify", deadline=5.0)
async def engine_event(event: Event) -> None:
    """Something happened.

    Called by the kernel for every event on the bus, after it was published, in order, from a task of its own: it
    cannot slow down what it tells of. The return value is ignored; exceptions are logged and counted.
    """
    raise NotImplementedError


@hookspec("sync")
def engine_info() -> dict[str, Any]:
    """Contribute fields to `GET /info`.

    Called by `system` for each request: answer from memory. Keys are the API's (`Containers`, `Driver`, ...); lists
    of several plugins are joined, dicts merged, and for anything else the later plugin's value wins. The key
    `Warnings` is a list of sentences for the operator. A plugin that raises is left out, and its failure logged.
    """
    raise NotImplementedError


@hookspec("sync")
def engine_holders(kind: str, key: str) -> Iterable[Holder]:
    """Who keeps this object in use?

    Called by whoever owns objects of `kind` before it removes one: "image" (key: image ID), "volume" (name),
    "network" (ID), "plugin" (name), "container" (ID), "layer" (chain ID). Answer from memory, from what really exists: there are no
    stored reference counts. None or nothing means that this plugin has no use of it.
    """
    raise NotImplementedError

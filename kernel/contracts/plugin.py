"""A plugin: what it says of itself, what it is given, what is known of it."""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from pydantic import BaseModel, Field

from kernel.hookspecs._markers import SPEC_VERSION

if TYPE_CHECKING:
    import asyncio

    from kernel.contracts.events import EventBus
    from kernel.contracts.state import StateStore

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PluginMeta:
    """What a plugin says of itself.

    Attributes:
        name: unique, and equal to its entry point's name.
        description: one line for people.
        api: generation of the hook specifications that it was written for.
        provides: contracts of which it is the one provider, given to the kernel in `start` by `ctx.provide`.
        drivers: contracts of the drivers that it contributes.
        requires: contracts without which it cannot run; their provider, or all that contribute drivers of them, start
            before it and stop after it.
        wants: contracts that it uses when there is somebody to fulfil them; these start before it too, if present.
        settings: pydantic model of its settings; build its fields with `setting()`.
        essential: the daemon refuses to start, and to disable it, without this plugin.
    """

    name: str
    description: str = ""
    api: int = SPEC_VERSION
    provides: tuple[type[Any], ...] = ()
    drivers: tuple[type[Any], ...] = ()
    requires: tuple[type[Any], ...] = ()
    wants: tuple[type[Any], ...] = ()
    settings: type[BaseModel] | None = None
    essential: bool = False


def setting(
    default: Any,
    help: str,
    *,
    flag: str | None = None,
    key: str | None = None,
    short: str | None = None,
    metavar: str | None = None,
    reloadable: bool = False,
    ignored: str | None = None,
) -> Any:
    """A field of a settings model that the daemon's command line and `daemon.json` can set.

    Args:
        default: the value when nothing is said; a list or dict makes the flag repeatable (`KEY=VALUE` for a dict).
        help: one line for `engine daemon --help`.
        flag: the long option, for example "--bip". None: settable only in the plugin's own table of `daemon.json`.
        key: the name in `daemon.json`; without it, the flag's name (lists: dockerd's plural, for example "hosts").
        short: a one-letter option, for example "-H".
        reloadable: SIGHUP hands a new value to `Plugin.reload`; others need a restart.
        ignored: the option is accepted for dockerd's sake and does nothing; the text, logged as a warning, says why.
    """
    extra = {"flag": flag, "key": key, "short": short, "metavar": metavar, "reloadable": reloadable, "ignored": ignored}
    described: dict[str, Any] = {"description": help, "json_schema_extra": {"engine": extra}}
    if isinstance(default, list | dict | set):
        return Field(default_factory=default.copy, **described)
    return Field(default, **described)


@dataclass(frozen=True, slots=True)
class DriverSpec:
    """A driver that a plugin contributes through `engine_drivers`.

    Attributes:
        contract: the contract it fulfils, for example `LogDriver`.
        name: the name by which people choose it, unique within the contract.
        driver: the object.
        deadline: seconds that one call of a coroutine method may take; where the contract's method has a deadline of its
            own (others take 60 s), the shorter of the two. None: the contract's.
    """

    contract: type[Any]
    name: str
    driver: Any
    deadline: float | None = None


class Drivers(Protocol):
    """All drivers, whoever contributed them. What comes out is guarded: a call that raises something unexpected, hangs
    past its deadline or answers the wrong type becomes a PluginError or DeadlineExceeded that names plugin and call."""

    def get(self, contract: type[T], name: str) -> T:
        """The driver of that name. Raises NotFound, naming those that exist."""

    async def find(self, contract: type[T], name: str) -> T:
        """Like `get`, but before it gives up it waits for a managed plugin of that name that is being started, activates
        an old-style one, and asks the plugins (`engine_driver_missing`). May take as long as a plugin's start: never
        wait for it under a lock that others need. Raises NotFound that says so when the plugin is disabled."""

    def all(self, contract: type[T]) -> Mapping[str, T]:
        """Name to driver, sorted by name."""

    def canonical(self, contract: type[Any], name: str) -> str:
        """The name under which it is known: "me/volume" of a managed plugin is "me/volume:latest". Raises NotFound."""

    def owner(self, contract: type[Any], name: str) -> str:
        """Name of the plugin that contributed it. Raises NotFound."""


class Hooks(Protocol):
    """Calls hooks; the mode of the call must be the mode on the specification."""

    def sync(self, hook: str, /, **arguments: Any) -> list[tuple[str, Any]]:
        """Results that are not None, each with its plugin's name. A failure is logged and skipped, not raised."""

    async def all(self, hook: str, /, **arguments: Any) -> list[tuple[str, Any]]:
        """Await each in order. The first failure stops and is raised: an EngineError as it is, others as PluginError."""

    async def each(self, hook: str, /, **arguments: Any) -> list[tuple[str, BaseException]]:
        """Await each of an `all` hook in reverse order, go on past failures and return them: for releases."""

    async def first(self, hook: str, /, **arguments: Any) -> tuple[str, Any] | None:
        """The first answer that is not None, with its plugin's name."""

    async def notify(self, hook: str, /, **arguments: Any) -> None:
        """Tell all; failures are logged, counted and otherwise forgotten."""

    def around(self, hook: str, /, **arguments: Any) -> AbstractAsyncContextManager[None]:
        """All the contexts that plugins offer, stacked."""


class PluginContext(Protocol):
    """What the kernel gives a plugin: its own corner, and the doors to the others.

    Attributes:
        name: the plugin's name.
        log: its logger.
        settings: an instance of its settings model (an empty model when it has none).
        state: its collections in the durable store.
        events: the bus.
        drivers: drivers by contract and name.
        hooks: to call hooks that this plugin owns.
    """

    name: str
    log: logging.Logger
    settings: Any
    state: StateStore
    events: EventBus
    drivers: Drivers
    hooks: Hooks

    @property
    def root(self) -> Path:
        """Its folder under the data root, made on first use; survives everything."""

    @property
    def run(self) -> Path:
        """Its folder under the exec root; does not survive a boot of the machine."""

    def provide(self, contract: type[T], service: T) -> None:
        """Offer the service for a contract that `meta.provides` names."""

    def require(self, contract: type[T]) -> T:
        """The service; raises Unavailable, naming the contract, when there is none."""

    def find(self, contract: type[T]) -> T | None:
        """The service, or None. Ask again each time rather than keep it: plugins come and go."""

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Run in the background; a failure is logged; cancelled when the plugin stops."""


class Plugin:
    """Base of in-process plugins: subclass, set `meta`, and mark methods with `hookimpl`.

    The constructor takes nothing and does nothing. `start` gets things ready and must not wait for other machines or
    long work: the API already listens while `restore` runs.
    """

    meta: ClassVar[PluginMeta]

    async def start(self, ctx: PluginContext) -> None:
        """Get ready.

        Raise SkipPlugin("reason") when this machine cannot use the plugin, and InvalidParameter when its settings cannot
        be: if the operator has set any, the daemon then refuses to start with that message.
        """

    async def restore(self) -> None:
        """After all plugins have started: make stored state and reality agree again."""

    async def reload(self, settings: Any) -> None:
        """Take new values of the reloadable settings (SIGHUP)."""

    async def stop(self) -> None:
        """Let go of everything that `start` took; must also work after half a start."""


class SkipPlugin(Exception):
    """Raised by `Plugin.start`: not usable here, and that is no fault. The text says why."""


class PluginState(StrEnum):
    """Where a plugin stands."""

    PENDING = "pending"
    DISABLED = "disabled"
    STARTING = "starting"
    ENABLED = "enabled"
    SKIPPED = "skipped"
    FAILED = "failed"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class PluginStatus:
    """What is known of one in-process plugin.

    Attributes:
        state: where it stands.
        reason: why it is not enabled, or empty.
        distribution, version: the Python distribution that brought it.
        failures: how often its hooks and drivers failed since it started.
        restored: its `restore` has finished.
    """

    name: str
    state: PluginState
    description: str = ""
    reason: str = ""
    distribution: str = ""
    version: str = ""
    failures: int = 0
    restored: bool = False
    essential: bool = False
    provides: Sequence[str] = ()
    requires: Sequence[str] = ()
    drivers: Sequence[str] = ()
    last_error: str = ""


@dataclass(slots=True)
class HookStats:
    """Counts and seconds of one hook implementation or driver method since the start."""

    calls: int = 0
    failures: int = 0
    seconds: float = 0.0
    longest: float = 0.0


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What the daemon as a whole is.

    Attributes:
        id: stable identity of this data root (a UUID).
        version: of the distribution.
        started_ns: nanoseconds since the epoch.
        config_file: the `daemon.json` in use, if any.
    """

    id: str
    version: str
    data_root: Path
    exec_root: Path
    started_ns: int
    debug: bool = False
    config_file: Path | None = None


class PluginAdmin(Protocol):
    """Kernel service: the in-process plugins. (`kernel.contracts.managed` has the managed ones.)"""

    facts: EngineFacts

    def statuses(self) -> list[PluginStatus]:
        """Every plugin found, by name."""

    def stats(self) -> Mapping[tuple[str, str], HookStats]:
        """(plugin, call) to its counts."""

    async def enable(self, name: str) -> None:
        """Start a plugin and remember it. Raises NotFound, Conflict, or what its start raised."""

    async def disable(self, name: str, *, force: bool = False) -> None:
        """Stop a plugin and remember it. Raises Conflict, naming them, while others need it or objects use it."""

    async def discover(self) -> Iterable[str]:
        """Look again for entry points; starts and returns the newly found."""

"""What a conformance kit is made of, and how it is run.

A kit is a list of checks. Each has a name, a claim in one line, and the method of the contract that says so. A check gets a
driver of its own and a bench to work on; whatever it made is removed afterwards, also when it failed.
"""

from __future__ import annotations

import asyncio
import inspect
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from kernel.errors import EngineError, PluginError, PluginRefusal

T = TypeVar("T")
D = TypeVar("D")
B = TypeVar("B", bound="Bench[Any]")

CHECK_DEADLINE = 60.0
"""Seconds for a check that names no deadline of its own."""
CLEANUP_DEADLINE = 60.0
"""Seconds for all that a check left to be removed."""


class Broken(AssertionError):
    """A claim does not hold.

    Attributes:
        expected, got: in words.
    """

    def __init__(self, expected: str, got: object) -> None:
        said = got if isinstance(got, str) else repr(got)
        super().__init__(f"expected {expected}; got {said if len(said) <= 500 else said[:500] + '...'}")
        self.expected, self.got = expected, said


class DoesNotApply(Exception):
    """Raised by a check whose claim is not about this driver. The text says why."""


class Outcome(StrEnum):
    """What became of a check."""

    HOLDS = "holds"
    BROKEN = "broken"
    DOES_NOT_APPLY = "does not apply"


@dataclass(frozen=True, slots=True)
class Result:
    """One check's end.

    Attributes:
        kit: the kit's name, for example "VolumeDriver".
        subject: which driver was tried.
        says: where the contract says so, for example "VolumeDriver.remove: Removing what is not there is fine."
        detail: what was expected and what came, or why the check does not apply.
    """

    kit: str
    subject: str
    check: str
    claim: str
    says: str
    outcome: Outcome
    detail: str
    seconds: float


Opener = Callable[[Path], AbstractAsyncContextManager[D]]
"""Makes a driver that keeps its things in the folder; the same folder again is a restart."""


@dataclass(slots=True)
class Subject(Generic[D]):
    """What a kit is run against.

    Attributes:
        name: for people.
        open: a driver for each check.
        fresh: `open` gives a driver of its own each time. False: it is one that an engine uses now; checks that would
            disturb it do not apply.
        remote: behind the driver is another process; what the protocol cannot carry is not asked for.
        restartable: opening the same folder again is what a restart of the daemon is.
        options: given to all that is created: volumes, logs, networks.
    """

    name: str
    open: Opener[D]
    fresh: bool = True
    remote: bool = False
    restartable: bool = True
    options: Mapping[str, str] = field(default_factory=dict)


class Bench(Generic[D]):
    """What a check works on.

    Attributes:
        driver: the driver.
        folder: a folder of the check's own, removed afterwards.
        subject: what is tried.
        options: see `Subject`.
        needs_folder: what the driver keeps lies where its factory is told, so that without a folder there is no restart.
    """

    needs_folder = True

    def __init__(self, subject: Subject[D], folder: Path, stack: AsyncExitStack) -> None:
        self.subject, self.folder, self.options = subject, folder, dict(subject.options)
        self._stack = stack
        self._cleanups: list[tuple[str, Callable[[], Awaitable[object]]]] = []
        self._open: AbstractAsyncContextManager[D] | None = None
        self.driver: D = cast(D, None)

    async def open_driver(self) -> None:
        """Open the driver."""
        (self.folder / "driver").mkdir(exist_ok=True)
        self._open = self.subject.open(self.folder / "driver")
        self.driver = self.wrap(await self._open.__aenter__())

    def wrap(self, driver: D) -> D:
        """For kits that track what a driver makes."""
        return driver

    async def close_driver(self) -> None:
        """Let go of the driver."""
        opened, self._open = self._open, None
        if opened is not None:
            await opened.__aexit__(None, None, None)

    async def restart(self) -> None:
        """The daemon was killed and started again: a new driver on the old folder. The old one is not asked to close."""
        if not self.subject.fresh or (self.needs_folder and not self.subject.restartable):
            raise DoesNotApply("this driver cannot be started anew from here")
        assert self._open is not None
        self._stack.push_async_exit(self._open)
        await self.open_driver()

    def only_fresh(self, why: str) -> None:
        """The check may only be run against a driver that nobody else uses."""
        if not self.subject.fresh:
            raise DoesNotApply(f"the driver is in use by an engine: {why}")

    def later(self, what: str, undo: Callable[[], Awaitable[object]]) -> None:
        """Remove this after the check, in reverse order, whatever happens."""
        self._cleanups.append((what, undo))

    async def clean_up(self) -> list[str]:
        """Remove all; gives what could not be removed."""
        failures = []
        while self._cleanups:
            what, undo = self._cleanups.pop()
            try:
                await undo()
            except Exception as error:  # noqa: BLE001 - the others must go all the same
                failures.append(f"{what}: {error}")
        return failures

    @staticmethod
    def unique(what: str = "verify") -> str:
        """A name that nothing else has."""
        return f"{what}-{secrets.token_hex(6)}"

    @staticmethod
    def expect(holds: object, expected: str, got: object) -> None:
        """Raises Broken unless it holds."""
        if not holds:
            raise Broken(expected, got)

    @staticmethod
    def equal(got: object, wanted: object, what: str) -> None:
        """Raises Broken unless they are equal."""
        if got != wanted:
            raise Broken(f"{what} to be {wanted!r}", got)

    @staticmethod
    async def twice(what: str, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call that may be repeated, and repeat it; gives the first answer."""
        first = await call()
        try:
            await call()
        except EngineError as error:
            raise Broken(f"{what} to be repeatable", f"{type(error).__name__}: {error}") from error
        return first

    @staticmethod
    async def fine(what: str, call: Awaitable[T]) -> T:
        """A call that must not be refused."""
        try:
            return await call
        except EngineError as error:
            raise Broken(f"{what} to be fine", f"{type(error).__name__}: {error}") from error

    async def refused(self, what: str, call: Awaitable[object], *errors: type[EngineError]) -> EngineError:
        """A call that must be refused with one of these errors; gives it. A PluginError is a failure, not a refusal.

        Behind a socket an error has no class, so that from there any refusal will do.
        """
        names = " or ".join(error.__name__ for error in errors)
        try:
            answer = await call
        except EngineError as error:
            plain = self.subject.remote and isinstance(error, PluginRefusal)
            if not (isinstance(error, errors) or plain) or isinstance(error, PluginError):
                raise Broken(f"{what} to be refused with {names}", f"{type(error).__name__}: {error}") from error
            return error
        raise Broken(f"{what} to be refused with {names}", f"the answer {answer!r}")

    @staticmethod
    async def eventually(what: str, question: Callable[[], Awaitable[T]], *, seconds: float = 10.0) -> T:
        """Ask until the answer is true, and give it."""
        end = time.monotonic() + seconds
        while not (answer := await question()):
            if time.monotonic() > end:
                raise Broken(f"{what} within {seconds:g} s", answer)
            await asyncio.sleep(0.05)
        return answer


@dataclass(frozen=True, slots=True)
class Check:
    """One claim and how to try it."""

    name: str
    claim: str
    says: str
    run: Callable[[Any], Awaitable[None]]
    deadline: float = CHECK_DEADLINE


@dataclass(slots=True)
class Kit:
    """All claims of one contract.

    Attributes:
        name: the contract's name, or the interface's for those without drivers.
        contract: the contract; for interfaces without drivers, `PluginPeer`.
        bench: what its checks work on.
    """

    name: str
    contract: type[Any]
    bench: type[Bench[Any]]
    checks: list[Check] = field(default_factory=list)

    def check(
        self, claim: str, *, says: Callable[..., Any] | str, deadline: float = CHECK_DEADLINE
    ) -> Callable[[Callable[[B], Awaitable[None]]], Callable[[B], Awaitable[None]]]:
        """Mark a coroutine function as a check; its name, with dashes, is the check's.

        Args:
            claim: one line: what holds.
            says: the contract's method whose docstring says so; for a protocol without one, its call and words.
        """

        def mark(function: Callable[[B], Awaitable[None]]) -> Callable[[B], Awaitable[None]]:
            name = function.__name__.replace("_", "-")
            self.checks.append(Check(name, claim, _said(says), function, deadline))
            return function

        return mark

    async def run(self, subject: Subject[Any], only: Sequence[str] = ()) -> AsyncIterator[Result]:
        """Run the checks (or `only` those), one after the other."""
        for check in self.checks:
            if not only or check.name in only:
                yield await self.run_one(check, subject)

    async def run_one(self, check: Check, subject: Subject[Any]) -> Result:
        """Run one check. Never raises but for cancellation."""
        began = time.monotonic()
        outcome, detail = Outcome.HOLDS, ""
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="engine-verify-", dir="/var/tmp"))
        try:
            outcome, detail = await self._tried(check, subject, folder)
        finally:
            kept = await asyncio.shield(asyncio.to_thread(_removed, folder))
        if kept and outcome is not Outcome.BROKEN:
            outcome, detail = Outcome.BROKEN, f"expected nothing to be left of the check's folder; got {kept}"
        spent = time.monotonic() - began
        return Result(self.name, subject.name, check.name, check.claim, check.says, outcome, detail, round(spent, 3))

    async def _tried(self, check: Check, subject: Subject[Any], folder: Path) -> tuple[Outcome, str]:
        stack = AsyncExitStack()
        bench = self.bench(subject, folder, stack)
        left: list[str] = []
        try:
            outcome, detail = await _attempt(check, bench)
        finally:
            left += await asyncio.shield(_cleaned(bench, stack))
        if left and outcome is not Outcome.BROKEN:
            return Outcome.BROKEN, f"expected all to be removable; got {'; '.join(left)}"
        return outcome, detail


async def _attempt(check: Check, bench: Bench[Any]) -> tuple[Outcome, str]:
    try:
        async with asyncio.timeout(check.deadline):
            await bench.open_driver()
            await check.run(bench)
    except DoesNotApply as reason:
        return Outcome.DOES_NOT_APPLY, str(reason)
    except Broken as broken:
        return Outcome.BROKEN, str(broken)
    except TimeoutError:
        return Outcome.BROKEN, f"expected an end within {check.deadline:g} s; got none"
    except EngineError as error:
        return Outcome.BROKEN, f"expected no error; got {type(error).__name__}: {error}"
    except Exception as error:  # noqa: BLE001 - a plugin is tried here: whatever it raises is a result
        return Outcome.BROKEN, f"expected no exception; got {error!r}"
    return Outcome.HOLDS, ""


async def _cleaned(bench: Bench[Any], stack: AsyncExitStack) -> list[str]:
    left: list[str] = []
    try:
        async with asyncio.timeout(CLEANUP_DEADLINE):
            left += await bench.clean_up()
            await bench.close_driver()
            await stack.aclose()
    except TimeoutError:
        left.append(f"no end of the clean-up within {CLEANUP_DEADLINE:g} s")
    except Exception as error:  # noqa: BLE001 - closing is the plugin's code too
        left.append(f"closing: {error!r}")
    return left


def _removed(folder: Path) -> str:
    """Remove a folder; what some process is still writing into gets a moment. Says what is in the way, or ""."""
    for _ in range(5):
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            return ""
        except OSError as error:
            kept = str(error)
            time.sleep(0.1)
        else:
            return ""
    return kept


def _said(says: Callable[..., Any] | str) -> str:
    if isinstance(says, str):
        return says
    text = " ".join((inspect.getdoc(says) or "").split())
    sentence = text.partition(". ")[0].rstrip(".")
    return f"{says.__qualname__}: {sentence}." if sentence else says.__qualname__

"""One interface of the protocol: a table of methods over a driver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from kernel.contracts.common import Wire
from kernel.errors import DeadlineExceeded

T = TypeVar("T")

DEADLINE = 60.0
"""Seconds that one call of a driver's method may take, unless its contract says otherwise."""


class Nothing(Wire):
    """Of methods without arguments; the engine then sends an empty body."""


@dataclass(frozen=True, slots=True)
class Method:
    """One method of the protocol.

    Attributes:
        answer: takes the arguments, gives the reply's JSON object.
        arguments: their shape.
        deadline: seconds for `answer`.
    """

    answer: Callable[[Any], Awaitable[Mapping[str, Any]]]
    arguments: type[Wire] = Nothing
    deadline: float = DEADLINE


@dataclass(frozen=True, slots=True)
class Stream:
    """A method that answers with a stream of bytes. What fails before the first piece becomes an ordinary error."""

    answer: Callable[[Any], AsyncIterator[bytes]]
    arguments: type[Wire] = Nothing


class Interface:
    """One interface, served for one driver.

    Attributes:
        type: as in `interface.types` of config.json.
        legacy: as in `Implements` of old-style plugins; also the part of a method's path before the dot.
        error: the key of a reply's error.
        driver: the object that fulfils the contract.
        folder: where the interface keeps what must outlive the process.
    """

    type: ClassVar[str]
    legacy: ClassVar[str]
    error: ClassVar[str] = "Err"

    def __init__(self, driver: Any, folder: Path) -> None:
        self.driver = driver
        self.folder = folder

    def methods(self) -> Mapping[str, Method | Stream]:
        """Path without the slash ("VolumeDriver.Mount") to method."""
        raise NotImplementedError

    async def open(self) -> None:
        """Before the socket listens."""

    async def close(self) -> None:
        """No more calls come."""


async def within(seconds: float, work: Awaitable[T], what: str) -> T:
    """Await work. Raises DeadlineExceeded, which names it, when it takes longer."""
    timer = asyncio.timeout(seconds)
    try:
        async with timer:
            return await work
    except TimeoutError:
        if timer.expired():
            raise DeadlineExceeded(f"{what} took longer than {seconds:g} s") from None
        raise


def expect(value: Any, kind: type[Any], what: str) -> Any:
    """The value, if it is of that type. Raises TypeError that names what answered."""
    if not isinstance(value, kind):
        raise TypeError(f"{what} gave {type(value).__name__}, not {kind.__name__}")
    return value

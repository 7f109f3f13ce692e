"""What a channel works with: sinks that take raw lines, and readers' places in a buffer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar, runtime_checkable

from .spool import Position

T = TypeVar("T")
CANCEL_DEADLINE = 5.0


@runtime_checkable
class RawSink(Protocol):
    """A sink that takes the monitor's lines as they are and can take back what a crash left half done. Blocking."""

    capacity: int
    mark: str

    def append(self, block: bytes) -> None:
        """Write whole lines, with their line ends."""

    def recover(self, mark: str) -> None:
        """Take back what was written after `mark`."""

    def tidy(self) -> None:
        """Long work, with nothing else going on."""


class Pin:
    """A reader's place in the buffer: what lies behind is not yet given back."""

    def __init__(self, position: Position) -> None:
        self.position = position


async def accompanied(act: Coroutine[Any, Any, T], meanwhile: Callable[[], Awaitable[None]], every: float) -> T:
    """What `act` gives; until then, `meanwhile` is called every so many seconds, and never once `act` is done."""
    task = asyncio.create_task(act, name="log sink")
    try:
        while True:
            await asyncio.wait([task], timeout=every)
            if task.done():
                return task.result()
            await meanwhile()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=CANCEL_DEADLINE)

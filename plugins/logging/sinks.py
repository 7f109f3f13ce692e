"""What a channel works with: sinks that take raw lines, and readers' places in a buffer."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from .spool import Position


@runtime_checkable
class RawSink(Protocol):
    """A sink that takes the monitor's lines as they are and can take back what a crash left half done. Blocking."""

    capacity: int
    mark: str

    def append(self, lines: list[bytes]) -> None:
        """Write joined lines."""

    def recover(self, mark: str) -> None:
        """Take back what was written after `mark`."""

    def tidy(self) -> None:
        """Long work, with nothing else going on."""


class Pin:
    """A reader's place in the buffer: what lies behind is not yet given back."""

    def __init__(self, position: Position) -> None:
        self.position = position

"""Entries on their way to a receiver, for log drivers that must send none of them twice.

A write that failed is offered again, mostly with the same entries and more behind them. A `Batch` knows how far it came.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

from kernel.contracts.logs import LogEntry

T = TypeVar("T")


class Batch(Generic[T]):
    """Offered entries and what they become on the wire. Outlives sinks: the next one goes on where this one stood.

    Args:
        encode: gives a record for each entry, in order; called once for each entry.

    Attributes:
        entries: that were offered and not yet cleared.
        records: what they became.
        done: how many of them the receiver has.
    """

    def __init__(self, encode: Callable[[Sequence[LogEntry]], list[T]]) -> None:
        self.encode = encode
        self.entries: list[LogEntry] = []
        self.records: list[T] = []
        self.done = 0
        self._lock = threading.Lock()

    @property
    def waiting(self) -> Sequence[T]:
        """What the receiver has not got."""
        return self.records[self.done :]

    def offer(self, entries: Sequence[LogEntry], begun: int = 0) -> bool:
        """Take entries that may have been offered before. False: those that were are not among them any more, so what
        was done or begun does not count. May run in a thread.

        Args:
            begun: records behind `done` that may be on their way.
        """
        with self._lock:
            return self._offer(entries, begun)

    def _offer(self, entries: Sequence[LogEntry], begun: int) -> bool:
        first = next((at for at, entry in enumerate(self.entries) if entries and entry == entries[0]), 0)
        known = self.entries[first : first + len(entries)]
        same = next((at for at, entry in enumerate(known) if entry != entries[at]), len(known))
        if same < len(known) and _goes_on(known[same], entries[same]):
            # More of a line has come meanwhile: its beginning is known.
            rest = replace(entries[same], line=entries[same].line[len(known[same].line) :])
            entries = [*entries[:same], known[same], rest, *entries[same + 1 :]]
            same += 1
        if same < self.done + begun - first:
            self.done = 0
            self.entries, self.records = list(entries), self.encode(entries)
            return False
        upto = first + same
        self.entries = [*self.entries[:upto], *entries[same:]]
        self.records = [*self.records[:upto], *self.encode(entries[same:])]
        return True

    def clear(self) -> None:
        """The receiver has all."""
        self.entries, self.records, self.done = [], [], 0


def _goes_on(before: LogEntry, entry: LogEntry) -> bool:
    return (
        before.partial
        and (before.time_ns, before.stream) == (entry.time_ns, entry.stream)
        and len(entry.line) > len(before.line)
        and entry.line.startswith(before.line)
    )

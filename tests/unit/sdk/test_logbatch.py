"""Entries that are offered again."""

from __future__ import annotations

from plugin_sdk.logbatch import Batch
from plugin_sdk.logs import LogEntry
from plugin_sdk.logwire import Decoder, Encoder


def entries(first: int, last: int) -> list[LogEntry]:
    return [LogEntry(10**18 + number, 1, b"%d" % number) for number in range(first, last)]


def test_a_batch_offered_again() -> None:
    batch = Batch(Encoder().encode)
    assert batch.offer(entries(0, 10), 0)
    assert batch.offer(entries(0, 12), 5)
    assert batch.entries == entries(0, 12)
    assert Decoder().feed(b"".join(batch.records)) == entries(0, 12)
    batch.done = 4
    assert batch.offer(entries(2, 13), 3)
    assert batch.entries == entries(0, 13)
    assert not batch.offer(entries(50, 60), 3)
    assert (batch.entries, batch.done) == (entries(50, 60), 0)


def test_a_line_of_which_more_has_come_meanwhile() -> None:
    batch = Batch(lambda found: [entry.line for entry in found])
    batch.offer([*entries(0, 2), LogEntry(5, 1, b"abc", partial=True)])
    batch.done = 3
    assert batch.offer([*entries(0, 2), LogEntry(5, 1, b"abcdef"), LogEntry(6, 1, b"next")])
    assert batch.waiting == [b"def", b"next"]
    batch.clear()
    assert (batch.entries, batch.records, batch.done, batch.waiting) == ([], [], 0, [])

"""The journal of events."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel.events import KEPT, Bus
from kernel.journal import Journal
from plugin_sdk import Event


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "events")
    yield journal
    journal.close()


def event(number: int) -> Event:
    return Event("container", f"exec_start: \N{SNOWMAN} {number}", "id", {"name": "a\nb"}, time_ns=number)


def times(journal: Journal, since: int = 0, before: int = 2**63) -> list[int]:
    return [item.time_ns for item in journal.read(since, before)]


def test_what_was_written_comes_back_also_after_a_restart(tmp_path: Path) -> None:
    first = Journal(tmp_path)
    for number in (5, 6, 7):
        first.append(event(number))
    assert list(first.read(6, 7)) == [event(6)]
    first.close()
    again = Journal(tmp_path)
    assert again.last_ns == 7
    again.append(event(8))
    assert times(again) == [5, 6, 7, 8]
    again.close()


def test_it_is_bounded_and_drops_the_oldest(tmp_path: Path) -> None:
    journal = Journal(tmp_path, segment=1000, segments=3)
    for number in range(1, 101):
        journal.append(event(number))
        times(journal, number)  # each is written by itself
    kept = times(journal)
    assert kept == list(range(kept[0], 101)) and 20 < len(kept) < 60
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 4000
    assert times(journal, 90, 95) == [90, 91, 92, 93, 94]
    journal.close()


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(event(1))
    journal.close()
    (path,) = tmp_path.iterdir()
    with path.open("ab") as file:
        file.write(b'rubbish\n[2, "cont')
    again = Journal(tmp_path)
    assert again.last_ns == 1
    again.append(event(3))
    assert times(again) == [1, 3]
    again.close()


def test_a_file_of_rubbish_does_not_stop_the_start(tmp_path: Path) -> None:
    (tmp_path / "7.jsonl").write_bytes(b"\0\0\0")
    journal = Journal(tmp_path)
    assert journal.last_ns == 0
    journal.append(event(9))
    assert times(journal) == [9]
    journal.close()


def test_a_disk_that_refuses_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(tmp_path / "events")
    os.rmdir(tmp_path / "events")
    with caplog.at_level(logging.ERROR):
        for number in (1, 2, 3):
            journal.append(event(number))
            times(journal)
    assert len(caplog.records) == 1 and "not kept" in caplog.text
    (tmp_path / "events").mkdir()
    journal.append(event(4))
    assert times(journal) == [4]
    journal.close()


async def test_the_bus_goes_on_where_memory_ends(journal: Journal) -> None:
    bus = Bus(journal)
    count = KEPT + 1000
    for number in range(1, count + 1):
        bus.publish(event(number))
    seen = [item.time_ns async for item in bus.subscribe(since_ns=10, until_ns=count)]
    assert seen == list(range(10, count + 1))


async def test_events_of_an_earlier_run_come_before_those_of_this_one(tmp_path: Path) -> None:
    before = Bus(Journal(tmp_path))
    before.publish(event(10**18))
    before.shut()
    bus = Bus(Journal(tmp_path))
    events = bus.subscribe(since_ns=0)
    bus.publish(event(1))  # the clock went back
    assert [(await anext(events)).time_ns for _ in range(2)] == [10**18, 10**18 + 1]
    assert [item.time_ns async for item in bus.subscribe(since_ns=0, until_ns=10**18)] == [10**18]
    bus.shut()

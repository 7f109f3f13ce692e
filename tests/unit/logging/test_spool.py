"""The buffer: segments, positions, bounds, and reading from both ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plugins.logging import history
from plugins.logging.batch import join_pieces, parse_monitor
from plugins.logging.spool import Cursor, Position, Spool

STAMP = "2026-01-02T03:04:{:02d}.000000000+00:00"


class Monitor:
    """Writes as conmon does: a file that is begun anew under another name and renamed."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        spool.prepare()
        self.file = spool.live.open("ab", buffering=0)

    def write(self, *texts: str, tag: str = "F", stream: str = "stdout", second: int = 0) -> None:
        for text in texts:
            self.file.write(f"{STAMP.format(second)} {stream} {tag} {text}\n".encode())

    def rotate(self) -> None:
        temporary = self.spool.live.with_name("buffer.log.tmp")
        self.file.close()
        self.file = temporary.open("wb", buffering=0)
        os.rename(temporary, self.spool.live)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "log")


@pytest.fixture
def monitor(spool: Spool) -> Monitor:
    return Monitor(spool)


def texts(lines: list[bytes]) -> list[str]:
    return [text.decode() for text in parse_monitor(join_pieces(lines)).lines]


def rest(cursor: Cursor, *, final: bool = False) -> list[str]:
    found: list[bytes] = []
    while lines := cursor.lines(final=final, limit=200):
        found += lines
    return texts(found)


def test_nothing_written_costs_no_segment(spool: Spool, monitor: Monitor) -> None:
    assert spool.segments() == []
    assert not spool.written()
    assert Cursor(spool, Position()).lines() == []


def test_cursor_follows_from_segment_to_segment(spool: Spool, monitor: Monitor) -> None:
    cursor = Cursor(spool, Position())
    monitor.write("a", "b")
    assert rest(cursor) == ["a\n", "b\n"]
    monitor.write("c")
    assert spool.segments() == [1]
    monitor.rotate()
    monitor.write("d")
    assert spool.note() or spool.segments() == [1, 2]
    assert rest(cursor) == ["c\n", "d\n"]
    assert (cursor.segment, spool.segments()) == (2, [1, 2])


def test_pieces_wait_for_their_line(spool: Spool, monitor: Monitor) -> None:
    cursor = Cursor(spool, Position())
    monitor.write("whole")
    monitor.write("pro", tag="P")
    assert rest(cursor) == ["whole\n"]
    assert cursor.held > 0
    monitor.write("mpt")
    assert rest(cursor) == ["prompt\n"]
    monitor.write("last words", tag="P")
    assert rest(cursor) == []
    assert rest(cursor, final=True) == ["last words"]


def test_final_flushes_only_at_the_very_end(spool: Spool, monitor: Monitor) -> None:
    for number in range(20):
        monitor.write(f"first half {number}", tag="P")
        monitor.write(" second")
    assert rest(Cursor(spool, Position()), final=True) == [f"first half {number} second\n" for number in range(20)]


def test_position_survives(spool: Spool, monitor: Monitor) -> None:
    monitor.write("a", "b")
    cursor = Cursor(spool, Position())
    cursor.lines(limit=60)
    spool.save(Position(cursor.segment, cursor.offset, "mark:1"))
    again = Spool(spool.folder)
    assert again.position.mark == "mark:1"
    assert rest(Cursor(again, again.position)) == ["b\n"]


def test_numbers_go_on_after_clearing(spool: Spool, monitor: Monitor) -> None:
    monitor.write("a")
    cursor = Cursor(spool, Position())
    rest(cursor)
    spool.save(Position(cursor.segment, cursor.offset))
    spool.clear()
    assert os.listdir(spool.folder) == ["position"]
    again = Spool(spool.folder)
    Monitor(again).write("b")
    assert again.segments() == [2]
    assert rest(Cursor(again, again.position)) == ["b\n"]


def test_free_gives_space_back_but_readers_keep_what_they_hold(spool: Spool, monitor: Monitor) -> None:
    big = "x" * 100_000
    monitor.write(*[big] * 30)
    slow = Cursor(spool, Position())
    slow.lines(limit=1000)
    spool.segments()
    monitor.rotate()
    monitor.write("new")
    end = spool.end()
    used = os.stat(spool.path(1)).st_blocks
    spool.free(1, 2_500_000)
    assert os.stat(spool.path(1)).st_blocks < used
    spool.free(*end_of(end))
    assert spool.segments() == [2]
    assert rest(Cursor(spool, spool.start())) == ["new\n"]


def end_of(position: Position) -> tuple[int, int]:
    return position.segment, position.offset


def test_keep_holds_the_newest(spool: Spool, monitor: Monitor) -> None:
    for number in range(400):
        monitor.write(f"{number} " + "x" * 10_000)
    spool.keep(1 << 20)
    assert os.stat(spool.path(1)).st_blocks * 512 < 2 << 20
    kept = [int(text.split()[0]) for text in rest(Cursor(spool, spool.start()))]
    assert kept == list(range(kept[0], 400))
    assert 80 < len(kept) < 120


def read(pieces: list[history.Piece], **bounds: bytes) -> list[str]:
    return [text.decode() for batch in history.read(pieces, **bounds) for text in batch.lines]


@pytest.mark.parametrize("tail", [0, 1, 2, 7, 2000, 5000, 9999])
def test_tail_from_the_end(spool: Spool, monitor: Monitor, tail: int) -> None:
    expected = []
    for number in range(5000):
        monitor.write(f"{number} " + "y" * (number % 300), tag="P")
        monitor.write(" end", second=number // 1000)
        expected.append(f"{number} " + "y" * (number % 300) + " end\n")
        if number == 3000:
            spool.note()
            monitor.rotate()
    pieces = history.spool_pieces(spool, spool.start(), spool.end())
    history.cut(pieces, tail=tail, since=b"")
    assert read(pieces) == (expected[-tail:] if tail else [])


def test_since_and_until(spool: Spool, monitor: Monitor) -> None:
    for number in range(20_000):
        monitor.write(str(number), second=number // 400)
    pieces = history.spool_pieces(spool, spool.start(), spool.end())
    since, until = b"2026-01-02T03:04:30.000000000", b"2026-01-02T03:04:31.999999999"
    history.cut(pieces, tail=-1, since=since)
    assert pieces[0].start > 0
    assert read(pieces, since=since, until=until) == [f"{number}\n" for number in range(12_000, 12_800)]


def test_last_piece_counts_as_a_line(spool: Spool, monitor: Monitor) -> None:
    monitor.write("one", "two")
    monitor.write("prompt", tag="P")
    pieces = history.spool_pieces(spool, spool.start(), spool.end())
    history.cut(pieces, tail=2, since=b"")
    assert read(pieces) == ["two\n", "prompt"]


def test_the_end_is_never_in_the_middle_of_a_line(spool: Spool, monitor: Monitor) -> None:
    monitor.write("one")
    end = spool.end()
    monitor.file.write(b"2026-01-02T03:04:00.000000000+00:00 stdout F tw")
    assert spool.end() == end
    assert rest(Cursor(spool, Position())) == ["one\n"]
    cursor = Cursor(spool, end)
    monitor.file.write(b"o\n")
    assert rest(cursor) == ["two\n"]

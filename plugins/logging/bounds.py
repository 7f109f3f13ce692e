"""How much of a container's output is kept: for a driver that does not take it, and for `docker logs`. All of it blocks."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

from plugin_sdk.files import parse_size
from plugin_sdk.logs import LogEntry, LogSink

from .batch import unfinished, whole_lines
from .options import DEFAULT_FILES, DEFAULT_SIZE, limits
from .sinks import RawSink
from .spool import SEGMENT_SIZE, Position, Spool

BUFFER_BOUND = DEFAULT_SIZE * DEFAULT_FILES
"""Bytes kept for a sink that does not take them, unless `max-buffer-size` says otherwise."""
LEAST_RAW_BOUND = SEGMENT_SIZE
_LOST = "lost"
_BLOCK = 1 << 20
_MORE_PIECES = 100
"""Pieces of a line that are dropped with its beginning."""


def segment_size(options: Mapping[str, str], *, raw: bool, buffered: bool) -> int:
    """Bytes after which the monitor begins a new file; 0, never, for a log that has no bound."""
    if buffered:
        total = limits(options, default_files=DEFAULT_FILES).total
    elif raw:
        total = limits(options).total
    else:
        total = BUFFER_BOUND
    return SEGMENT_SIZE if total else 0


def retention(options: Mapping[str, str], *, buffered: bool) -> int:
    """Bytes of the buffer that `docker logs` can show, where the buffer is what it reads."""
    prefix = "" if buffered else "cache-"
    return limits(options, prefix=prefix, default_files=DEFAULT_FILES).total or 1 << 62


def waiting_bound(options: Mapping[str, str], sink: LogSink | None) -> int:
    """Bytes that may wait for a sink; 0: no bound."""
    if isinstance(sink, RawSink):
        # A line is longer in the sink's files than in the buffer: older ones would be rotated away as soon as written.
        return max(LEAST_RAW_BOUND, sink.capacity) if sink.capacity else 0
    text = options.get("max-buffer-size", "")
    return parse_size(text) if text else BUFFER_BOUND


@dataclass(frozen=True, slots=True)
class Loss:
    """What was dropped before a place in the buffer, and not yet told to the sink. Kept as the mark of that place, so that a
    killed daemon tells it too."""

    size: int = 0
    lines: int = 0

    @classmethod
    def of(cls, mark: str) -> Loss:
        """What a place's mark says."""
        word, _, rest = mark.partition(":")
        size, _, lines = rest.partition(":")
        return cls(int(size), int(lines)) if word == _LOST and size.isdecimal() and lines.isdecimal() else cls()

    @property
    def mark(self) -> str:
        """The reverse of `of`; empty when nothing was lost."""
        return f"{_LOST}:{self.size}:{self.lines}" if self.lines else ""

    def plus(self, other: Loss) -> Loss:
        """Both together."""
        return Loss(self.size + other.size, self.lines + other.lines)

    def minus(self, other: Loss) -> Loss:
        """Without what was not lost after all."""
        return Loss(max(0, self.size - other.size), max(0, self.lines - other.lines))

    def entry(self, time_ns: int) -> LogEntry:
        """The line that the sink gets in place of those that are missing."""
        text = f"[engine] {self.lines} lines ({self.size} bytes) of this log were dropped here: the log driver did not take them"
        return LogEntry(time_ns, 2, text.encode())


def surplus(spool: Spool, bound: int) -> tuple[Position, Loss] | None:
    """Where the buffer must begin for no more than `bound` bytes to wait, and what is lost by that. None: there is no need."""
    left = spool.unread() - bound
    if left <= 0:
        return None
    here, lost = spool.position, Loss()
    for segment in spool.segments():
        if segment < here.segment:
            continue
        start = here.offset if segment == here.segment else 0
        size = spool.size(segment)
        end = size if left >= size - start else start + left
        with suppress(FileNotFoundError), open(spool.path(segment), "rb") as file:
            stop, lines = _count(file, start, end)
            lost = lost.plus(Loss(stop - start, lines))
        left -= size - start
        if left < 0:
            return Position(segment, stop, here.mark), lost
    return None


def _count(file: BinaryIO, start: int, end: int) -> tuple[int, int]:
    """The end of a whole line at or behind `end`, or the file's, and how many lines end from `start` on up to there."""
    lines, more, block = 0, _MORE_PIECES, b""
    file.seek(start)
    while start < end:
        block = file.read(min(_BLOCK, end - start))
        block += file.readline() if block[-1:] != b"\n" else b""
        if not block:
            break
        start, lines = start + len(block), lines + whole_lines(block)
    while more > 0 and unfinished(block) and (block := file.readline()):
        start, lines, more = start + len(block), lines + whole_lines(block), more - 1
    return start, lines

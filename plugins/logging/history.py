"""What was logged so far: files read from either end, without a look at what lies between. All of it blocks."""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from .batch import LINE_LIMIT, Batch, join_pieces, parse_json, parse_monitor, split_lines, unfinished
from .spool import CHUNK, Position, Spool


class Piece:
    """A part of one open file, whole lines of one format; `json` or the monitor's."""

    def __init__(self, descriptor: int, start: int, end: int, form: Literal["json", "monitor"]) -> None:
        self.descriptor = descriptor
        self.start = start
        self.end = end
        self.form = form

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.descriptor)

    def batches(self) -> Iterator[Batch]:
        """All lines from `start` on."""
        position = self.start
        while position < self.end:
            data = self._whole_lines(position)
            if not data:
                return
            if self.form == "json":
                position += len(data)
                yield parse_json(data)
                continue
            held = unfinished(data) if position + len(data) < self.end else 0
            lines = split_lines(data[: len(data) - held])
            position += len(data) - held
            if lines:
                yield parse_monitor(join_pieces(lines))

    def _whole_lines(self, position: int) -> bytes:
        want = min(CHUNK, self.end - position)
        data = os.pread(self.descriptor, want, position)
        while data:
            end = data.rfind(b"\n") + 1
            if end:
                return data[:end]
            more = os.pread(self.descriptor, CHUNK, position + len(data))
            if not more or position + len(data) >= self.end:
                break
            data += more
        return b""

    def back(self, count: int) -> int:
        """Move `start` so that the last `count` lines remain; gives how many there are, at most `count`."""
        position, found, size = self.end, 0, CHUNK
        while position > self.start:
            base = max(self.start, position - size)
            block = os.pread(self.descriptor, position - base, base)
            if base > self.start:
                whole = block.find(b"\n") + 1
                if whole in (0, len(block)):
                    size *= 2
                    continue
                base, block = base + whole, block[whole:]
            lines = block.split(b"\n")
            lines.pop()
            ends = self._ends(lines, last=position == self.end)
            if found + len(ends) > count:
                keep = ends[-(count - found) - 1] + 1
                self.start = base + sum(map(len, lines[:keep])) + keep
                return count
            found += len(ends)
            position = base
        return found

    def _ends(self, lines: list[bytes], *, last: bool) -> Sequence[int]:
        """Indexes of the lines that end a line of the container's; a piece does not, unless it is the very last."""
        if self.form == "json":
            return range(len(lines))
        ends = [index for index, line in enumerate(lines) if line[43:44] == b"F"]
        if last and lines and lines[-1][43:44] == b"P":
            ends.append(len(lines) - 1)
        return ends

    def _line_start(self, position: int) -> int:
        """Where the line begins in which `position` lies."""
        while position > self.start:
            size = min(CHUNK, position - self.start)
            at = os.pread(self.descriptor, size, position - size).rfind(b"\n")
            if at >= 0:
                return position - size + at + 1
            position -= size
        return position

    def skip_before(self, stamp: bytes) -> None:
        """Move `start` near to, and not behind, the first line that is as late as `stamp`."""
        low, high = self.start, self.end
        while high - low > CHUNK:
            middle = self._line_start((low + high) // 2)
            if middle <= low:
                return
            first = self._first_stamp(middle)
            if first is None or first >= stamp:
                high = middle
            else:
                low = self.start = middle

    def _first_stamp(self, position: int) -> bytes | None:
        data = os.pread(self.descriptor, 4 * LINE_LIMIT, position)
        end = data.find(b"\n") + 1
        if not end:
            return None
        line = data[:end]
        batch = parse_json(line) if self.form == "json" else parse_monitor(split_lines(line))
        return batch.stamps[0] if batch else None


def json_pieces(path: Path, size: int | None = None) -> list[Piece]:
    """The files of a json-file log, the oldest first; of the present one no more than `size` bytes."""
    pieces: list[Piece] = []
    numbers = sorted(
        {int(part) for name in _siblings(path) if (part := name.removesuffix(".gz")).isdigit()}, reverse=True
    )
    for number in numbers:
        plain = path.with_name(f"{path.name}.{number}")
        descriptor = _open(plain)
        if descriptor is None:
            descriptor = _inflate(plain.with_name(plain.name + ".gz"))
        if descriptor is not None:
            pieces.append(Piece(descriptor, 0, os.fstat(descriptor).st_size, "json"))
    present = _open(path)
    if present is not None:
        there = os.fstat(present).st_size
        pieces.append(Piece(present, 0, there if size is None else min(size, there), "json"))
    return pieces


def _siblings(path: Path) -> list[str]:
    try:
        names = os.listdir(path.parent)
    except FileNotFoundError:
        return []
    return [name.removeprefix(path.name + ".") for name in names if name.startswith(path.name + ".")]


def _open(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None


def _inflate(path: Path) -> int | None:
    try:
        with gzip.open(path) as source, tempfile.TemporaryFile(dir=path.parent) as plain:
            shutil.copyfileobj(source, plain, CHUNK)
            plain.flush()
            return os.dup(plain.fileno())
    except (FileNotFoundError, EOFError, gzip.BadGzipFile):
        return None


def spool_pieces(spool: Spool, start: Position, end: Position) -> list[Piece]:
    """The part of a buffer between two positions."""
    pieces: list[Piece] = []
    for segment in spool.segments():
        if not start.segment <= segment <= end.segment:
            continue
        descriptor = _open(spool.path(segment))
        if descriptor is None:
            continue
        first = start.offset if segment == start.segment else 0
        last = end.offset if segment == end.segment else os.fstat(descriptor).st_size
        piece = Piece(descriptor, first, last, "monitor")
        _skip_hole(piece)
        pieces.append(piece)
    return pieces


def _skip_hole(piece: Piece) -> None:
    try:
        data = os.lseek(piece.descriptor, piece.start, os.SEEK_DATA)
    except OSError:
        return
    if data > piece.start:
        block = os.pread(piece.descriptor, CHUNK, data)
        piece.start = data + block.find(b"\n") + 1


def cut(pieces: Sequence[Piece], *, tail: int, since: bytes) -> None:
    """Leave only the last `tail` lines (below 0: all), from about `since` on (empty: from the beginning)."""
    if tail >= 0:
        missing = tail
        for piece in reversed(pieces):
            if missing <= 0:
                piece.start = piece.end
            else:
                missing -= piece.back(missing)
    if since:
        for piece in pieces:
            piece.skip_before(since)


def read(pieces: Sequence[Piece], *, since: bytes = b"", until: bytes = b"") -> Iterator[Batch]:
    """All lines of the pieces within the times."""
    for piece in pieces:
        for batch in piece.batches():
            kept = within(batch, since, until)
            if len(kept):
                yield kept
            if until and len(batch) and batch.stamps[-1] > until:
                return


def within(batch: Batch, since: bytes, until: bytes) -> Batch:
    """Only the lines within the times; an empty one is no bound."""
    if not len(batch) or not (since or until):
        return batch
    stamps = batch.stamps
    early = since and min(stamps) < since
    late = until and max(stamps) > until
    if not early and not late:
        return batch
    return batch.keep(lambda index: (not since or stamps[index] >= since) and (not until or stamps[index] <= until))

"""Log lines in bulk: parsed out of the monitor's format or out of json-file's, in columns rather than objects.

A container can write millions of lines a second; one Python object each would be the whole cost. So work is done on
chunks of some hundred kilobytes: split once, then comprehensions.

The monitor's format (CRI) has a prefix of fixed width, `2026-01-02T03:04:05.123456789+00:00 stdout F `: time, stream, and
F for a whole line or P for a piece that the next line of the stream goes on with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from plugin_sdk.logs import LogEntry
from plugin_sdk.times import format_ns, parse_ns

PREFIX = 45
"""Bytes before the text of a line in the monitor's format."""
LINE_LIMIT = 16 * 1024
"""Pieces of a line are joined up to this size, as Docker's own log entries are."""

_OUT_FULL = b" stdout F "
_OUT_PART = b" stdout P "
_ERR_FULL = b" stderr F "
_ERR_PART = b" stderr P "
_HEADS = {_OUT_FULL, _OUT_PART, _ERR_FULL, _ERR_PART}
HEADS_FULL = frozenset({_OUT_FULL, _ERR_FULL})
"""What follows the time in the prefix of a whole line."""


class Batch:
    """Lines in order; the columns have the same length.

    Attributes:
        streams: 1 or 2.
        lines: with their line end, except pieces that the stream's next line goes on with.
        attributes: rendered for `--details`, one each; empty means none.
    """

    __slots__ = ("_stamps", "attributes", "lines", "streams")

    def __init__(
        self,
        stamps: Sequence[bytes] | Callable[[], Sequence[bytes]] = (),
        streams: Sequence[int] = (),
        lines: Sequence[bytes] = (),
        attributes: Sequence[Mapping[str, str]] = (),
    ) -> None:
        self._stamps = stamps
        self.streams = streams
        self.lines = lines
        self.attributes = attributes

    @property
    def stamps(self) -> Sequence[bytes]:
        """29 bytes each, UTC: `2026-01-02T03:04:05.123456789`. Made when first asked for: mostly nobody does."""
        if callable(self._stamps):
            self._stamps = self._stamps()
        return self._stamps

    def __len__(self) -> int:
        return len(self.lines)

    def keep(self, wanted: Callable[[int], bool]) -> Batch:
        """Only the lines whose index is wanted."""
        chosen = [index for index in range(len(self.lines)) if wanted(index)]
        return Batch(
            [self.stamps[index] for index in chosen],
            [self.streams[index] for index in chosen],
            [self.lines[index] for index in chosen],
            [self.attributes[index] for index in chosen] if self.attributes else (),
        )


def utc(stamp: bytes) -> bytes:
    """Any RFC 3339 time as the 29 bytes of `Batch.stamps`."""
    if len(stamp) == 35 and stamp.endswith(b"+00:00"):
        return stamp[:29]
    if len(stamp) == 30 and stamp.endswith(b"Z"):
        return stamp[:29]
    text = stamp.decode("ascii", "replace")
    zone_at = max(text.rfind("+"), text.rfind("-"), text.rfind("Z"), text.rfind("z"))
    clock, zone = text[:zone_at], text[zone_at:]
    clock, _, fraction = clock.partition(".")
    moment = datetime.fromisoformat(clock + ("+00:00" if zone in "Zz" else zone)).astimezone(UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{fraction[:9].ljust(9, '0')}".encode()


def stamp_of(time_ns: int) -> bytes:
    """Nanoseconds since the epoch as the 29 bytes of `Batch.stamps`."""
    return format_ns(time_ns)[:29].encode()


def time_of(stamp: bytes) -> int:
    """The reverse of `stamp_of`."""
    return parse_ns(stamp.decode() + "Z")


def split_lines(chunk: bytes) -> list[bytes]:
    """Lines of a chunk in the monitor's format that ends with a line end; what is no such line is dropped."""
    lines = chunk.split(b"\n")
    lines.pop()
    if not _heads(lines) <= _HEADS:
        # A power cut can leave zeros, and a punched file begins in the middle of a line.
        lines = [line for line in lines if line[35:PREFIX] in _HEADS]
    return lines


def _heads(lines: list[bytes]) -> set[bytes]:
    return {line[35:PREFIX] for line in lines}


def may_have_pieces(chunk: bytes) -> bool:
    """False: there is no piece of a line in the chunk. True: there may be one, or text that looks like it."""
    return _OUT_PART in chunk or _ERR_PART in chunk


def whole_lines(chunk: bytes) -> int:
    """How many of the lines in a chunk end a line of the container's: all but the pieces."""
    pieces = 0
    for head in (_OUT_PART, _ERR_PART):
        at = chunk.find(head)
        while at >= 0:
            # Text can look like it, but not where a line begins.
            pieces += at == 35 or chunk[at - 36 : at - 35] == b"\n"
            at = chunk.find(head, at + 1)
    return chunk.count(b"\n") - pieces


def unfinished(chunk: bytes) -> int:
    """Bytes at the end of a chunk that are pieces of a line which goes on; 0 when there are none, or very many."""
    begin = end = len(chunk)
    stream = b""
    while begin:
        start = chunk.rfind(b"\n", 0, begin - 1) + 1
        head = chunk[start + 35 : start + PREFIX]
        if head not in (_OUT_PART, _ERR_PART) or stream not in (b"", head):
            break
        stream, begin = head, start
        if end - begin > LINE_LIMIT:
            return 0
    return end - begin


def join_pieces(lines: list[bytes]) -> list[bytes]:
    """Put the pieces of a line together, up to LINE_LIMIT; a joined line has the first piece's time."""
    if not _heads(lines) & {_OUT_PART, _ERR_PART}:
        return lines
    pieces = [index for index, line in enumerate(lines) if line[43:44] == b"P"]
    if len({line[36:42] for line in lines}) == 1:
        return _join_following(lines, pieces)
    joined: list[bytes] = []
    open_at: dict[bytes, int] = {}
    for line in lines:
        stream = line[36:42]
        at = open_at.get(stream)
        if at is None:
            at = len(joined)
            joined.append(line)
        else:
            full, joined[at] = _put_together(joined[at], line)
            if full:
                joined[at : at + 1] = [full, joined[at]]
                at += 1
                open_at = {other: place + (place >= at) for other, place in open_at.items()}
        if line[43:44] == b"P":
            open_at[stream] = at
        else:
            open_at.pop(stream, None)
    return joined


def _join_following(lines: list[bytes], pieces: list[int]) -> list[bytes]:
    """`join_pieces` where each piece goes on in the very next line: only pieces are looked at."""
    joined: list[bytes] = []
    done = 0
    for index in pieces:
        if index < done:
            continue
        joined += lines[done:index]
        line, done = lines[index], index + 1
        while done < len(lines) and line[43:44] == b"P":
            full, line = _put_together(line, lines[done])
            joined += [full] if full else []
            done += 1
        joined.append(line)
    joined += lines[done:]
    return joined


def _put_together(before: bytes, line: bytes) -> tuple[bytes, bytes]:
    """A piece and what follows it: the part that is full and still goes on (or empty), and the part that the next one joins."""
    room = PREFIX + LINE_LIMIT - len(before)
    if len(line) - PREFIX > room:
        return before + line[PREFIX : PREFIX + room], line[:PREFIX] + line[PREFIX + room :]
    # The head of the last piece says whether the line is complete.
    return b"", before[:35] + line[35:PREFIX] + before[PREFIX:] + line[PREFIX:]


def parse_monitor(lines: list[bytes]) -> Batch:
    """Lines in the monitor's format (without line ends) as a batch."""

    def stamps() -> list[bytes]:
        known = {stamp: _safe_utc(stamp) for stamp in {line[:35] for line in lines}}
        return [known[line[:35]] for line in lines]

    if _heads(lines) == {_OUT_FULL}:
        return Batch(stamps, [1] * len(lines), [line[PREFIX:] + b"\n" for line in lines])
    streams = [1 if line[41:42] == b"t" else 2 for line in lines]
    return Batch(stamps, streams, [line[PREFIX:] + (b"\n" if line[43:44] == b"F" else b"") for line in lines])


def parse_json(chunk: bytes) -> Batch:
    """Whole lines of json-file's format; a broken one is dropped."""
    try:
        rows = orjson.loads(b"[" + chunk.rstrip(b"\n").replace(b"\n", b",") + b"]")
        return _from_rows(rows)
    except (ValueError, KeyError, TypeError, AttributeError):
        return _from_rows([row for row in map(_row, chunk.split(b"\n")) if row is not None])


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row: dict[str, Any] = orjson.loads(line)
        _from_rows([row])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return row


def _from_rows(rows: list[dict[str, Any]]) -> Batch:
    def stamps() -> list[bytes]:
        times = [str(row.get("time")) for row in rows]
        known = {time: _safe_utc(time.encode()) for time in set(times)}
        return [known[time] for time in times]

    return Batch(
        stamps,
        [2 if row["stream"] == "stderr" else 1 for row in rows],
        [row["log"].encode() for row in rows],
        [row.get("attrs") or {} for row in rows] if rows and "attrs" in rows[0] else (),
    )


def _safe_utc(stamp: bytes) -> bytes:
    try:
        return utc(stamp)
    except ValueError:
        return b"1970-01-01T00:00:00.000000000"


def from_entries(entries: Iterable[LogEntry]) -> Batch:
    """Entries of a driver as a batch."""
    rows = list(entries)
    return Batch(
        [stamp_of(entry.time_ns) for entry in rows],
        [entry.stream for entry in rows],
        [entry.line if entry.partial else entry.line + b"\n" for entry in rows],
        [entry.attributes for entry in rows],
    )


def to_entries(batch: Batch, attributes: Mapping[str, str]) -> list[LogEntry]:
    """A batch as entries; `attributes` are given to lines that have none of their own."""
    times = {stamp: time_of(stamp) for stamp in set(batch.stamps)}
    each = batch.attributes or [attributes] * len(batch)
    return [
        LogEntry(times[stamp], stream, line[:-1] if line[-1:] == b"\n" else line, line[-1:] != b"\n", found)
        for stamp, stream, line, found in zip(batch.stamps, batch.streams, batch.lines, each, strict=True)
    ]

"""Log entries as they travel between the engine and a log plugin: through a FIFO, and back as ReadLogs' answer.

A stream of messages, each a big-endian uint32 with its length and a protobuf `LogEntry`:

    1 source string ("stdout", "stderr")   2 time_nano int64   3 line bytes   4 partial bool
    5 partial_log_metadata {1 last bool, 2 id string, 3 ordinal int32}   6 attrs, repeated {1 key, 2 value}

On the wire every piece of a long line is `partial`, the last one too, with `last` set. A `LogEntry` says the same in fewer
words: its `partial` is true on all pieces but the last. `Encoder` and `Decoder` translate; what an `Encoder` is given,
a `Decoder` returns. Source: moby, api/types/plugins/logdriver and daemon/logger/{adapter,copier}.go.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from kernel.contracts.logs import LogEntry

LIMIT = 1 << 20
"""Bytes of one message. Docker's own plugins take up to 1 000 000; the engine's lines have 16 KiB at most."""

_LENGTH = struct.Struct(">I")
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SOURCES = {1: b"\x0a\x06stdout\x10", 2: b"\x0a\x06stderr\x10"}
"""Field 1, and the tag of field 2, which always follows."""


class WireError(ValueError):
    """Bytes that are no log entries. The stream cannot be read any further: nobody knows where the next one begins."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The place of a piece in its line.

    Attributes:
        id: the same on all pieces of a line.
        ordinal: 1 for the first.
        last: it ends the line.
    """

    id: str
    ordinal: int
    last: bool = False


def encode(entry: LogEntry, piece: Piece | None = None, *, line_end: bool = False) -> bytes:
    """One message.

    Args:
        piece: for pieces of a long line; `Encoder` counts them. Without it `entry.partial` alone is sent.
        line_end: put a line end behind a line that is complete. Docker prints what ReadLogs answers as it is, so there
            it must be; in a FIFO it must not.
    """
    line = entry.line
    if line_end and not entry.partial:
        line += b"\n"
    parts = [_SOURCES[2 if entry.stream == 2 else 1], _varint(entry.time_ns), b"\x1a", _varint(len(line)), line]
    if piece is not None:
        identity = piece.id.encode()
        place = (b"\x08\x01" if piece.last else b"") + b"\x12" + _varint(len(identity)) + identity
        place += b"\x18" + _varint(piece.ordinal)
        parts += [b"\x20\x01\x2a", _varint(len(place)), place]
    elif entry.partial:
        parts.append(b"\x20\x01")
    for key, value in entry.attributes.items():
        pair = b"".join(_text(tag, text) for tag, text in ((b"\x0a", key), (b"\x12", value)))
        parts += [b"\x32", _varint(len(pair)), pair]
    body = b"".join(parts)
    return _LENGTH.pack(len(body)) + body


class Encoder:
    """Encodes the entries of one container in order, and numbers the pieces of long lines."""

    def __init__(self, *, line_end: bool = False) -> None:
        self._line_end = line_end
        self._pieces = Pieces()

    def encode(self, entries: Iterable[LogEntry]) -> list[bytes]:
        """A message for each entry."""
        return [encode(entry, self._pieces.place(entry), line_end=self._line_end) for entry in entries]


class Pieces:
    """Numbers the pieces of long lines, among the entries of one container in order."""

    def __init__(self) -> None:
        self._open: dict[int, Piece] = {}

    def place(self, entry: LogEntry) -> Piece | None:
        """The place of the next entry in its line; None for a line that is whole."""
        before = self._open.get(entry.stream)
        if before is None:
            if not entry.partial:
                return None
            piece = Piece(secrets.token_hex(32), 1)
        else:
            piece = Piece(before.id, before.ordinal + 1, not entry.partial)
        if piece.last:
            del self._open[entry.stream]
        else:
            self._open[entry.stream] = piece
        return piece


class Decoder:
    """Takes messages apart that arrive in pieces of any size.

    Args:
        limit: bytes of one message; a longer one is refused before it is read.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes of a message that is not complete. At the end of a stream it should be 0."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[LogEntry]:
        """The entries that are complete now. A line end behind a line is taken off.

        Raises:
            WireError: these are no log entries, or one is longer than the limit.
        """
        self._buffer += data
        entries: list[LogEntry] = []
        begin = 0
        while len(self._buffer) - begin >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, begin)
            if length > self._limit:
                raise WireError(f"a log entry of {length} bytes; at most {self._limit} are taken")
            end = begin + _LENGTH.size + length
            if end > len(self._buffer):
                break
            entries.append(_entry(bytes(self._buffer[begin + _LENGTH.size : end])))
            begin = end
        del self._buffer[:begin]
        return entries


def _entry(body: bytes) -> LogEntry:
    source, time_ns, line, partial, last = b"", 0, b"", False, False
    attributes: dict[str, str] = {}
    for number, value in _fields(body):
        match number, value:
            case 1, bytes():
                source = value
            case 2, int():
                time_ns = value - (1 << 64) if value >> 63 else value
            case 3, bytes():
                line = value
            case 4, int():
                partial = bool(value)
            case 5, bytes():
                last = any(inner == 1 and told for inner, told in _fields(value))
            case 6, bytes():
                pair = {inner: told for inner, told in _fields(value) if isinstance(told, bytes)}
                attributes[pair.get(1, b"").decode(errors="replace")] = pair.get(2, b"").decode(errors="replace")
            case ((1 | 2 | 3 | 4 | 5 | 6), _):
                raise WireError(f"field {number} of a log entry has the wrong type")
    if line.endswith(b"\n"):
        line, last = line[:-1], True
    return LogEntry(time_ns, 2 if source == b"stderr" else 1, line, partial and not last, attributes)


def _fields(body: bytes) -> Iterable[tuple[int, int | bytes]]:
    """Number and value of each protobuf field."""
    at = 0
    while at < len(body):
        tag, at = _read_varint(body, at)
        number, form = tag >> 3, tag & 7
        value: int | bytes
        if form == _VARINT:
            value, at = _read_varint(body, at)
        else:
            if form == _BYTES:
                size, at = _read_varint(body, at)
            elif form in (_FIXED32, _FIXED64):
                size = 4 if form == _FIXED32 else 8
            else:
                raise WireError(f"a log entry with a field of wire type {form}")
            value, at = body[at : at + size], at + size
            if at > len(body):
                raise WireError("a log entry that ends in the middle of a field")
        yield number, value


def _read_varint(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(body) or shift > 63:
            raise WireError("a log entry with a broken number")
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at
        shift += 7


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _text(tag: bytes, text: str) -> bytes:
    data = text.encode(errors="replace")
    return tag + _varint(len(data)) + data

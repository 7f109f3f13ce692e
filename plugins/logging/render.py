"""Batches as the bytes that `docker logs` gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from urllib.parse import quote_plus

from .batch import Batch


class _Headers(dict[int, bytes]):
    """Frame headers by payload length; made when first needed."""

    def __init__(self, stream: int) -> None:
        super().__init__()
        self._start = bytes([stream, 0, 0, 0])

    def __missing__(self, length: int) -> bytes:
        header = self._start + length.to_bytes(4, "big")
        if len(self) < 1 << 15:
            self[length] = header
        return header


_HEADERS = {1: _Headers(1), 2: _Headers(2)}


def details(attributes: Mapping[str, str]) -> bytes:
    """`key=value,key2=value2`, escaped as in a query."""
    return ",".join(f"{quote_plus(key)}={quote_plus(value)}" for key, value in sorted(attributes.items())).encode()


FRAME = 32 << 10
"""Bytes of a frame that holds many lines: what the docker CLI's buffer takes at once."""
SINGLE = 1000
"""Lines of a stream that come in a frame each, as clients that take a frame for a line expect. Long logs would keep the
client busy with tiny writes: from there on, frames hold many lines, unless few lines come at a time."""
_FEW = 64


class Renderer:
    """Renders one client's stream: frames, or bare bytes for a tty. Keeps track of lines that are not yet whole.

    Args:
        framed: frames, see `SINGLE`.
        timestamps: put the time before each line.
        attributes: what `--details` shows before lines that have no attributes of their own; None: no details.
    """

    def __init__(self, *, framed: bool, timestamps: bool = False, attributes: Mapping[str, str] | None = None) -> None:
        self._framed = framed
        self._timestamps = timestamps
        self._attributes = attributes
        self._open = {1: False, 2: False}
        self._lines = 0

    def render(self, batch: Batch) -> bytes:
        """All lines of a batch."""
        lines = batch.lines
        if self._timestamps or self._attributes is not None:
            lines = self._decorated(batch)
        if not self._framed:
            return b"".join(lines)
        streams = batch.streams
        if self._lines >= SINGLE and len(lines) > _FEW:
            return _merged(streams, lines)
        self._lines += len(lines)
        return b"".join([_HEADERS[stream][len(line)] + line for stream, line in zip(streams, lines, strict=True)])

    def _decorated(self, batch: Batch) -> list[bytes]:
        out: list[bytes] = []
        opened = self._open
        common = details(self._attributes) + b" " if self._attributes is not None else b""
        for index, line in enumerate(batch.lines):
            stream = batch.streams[index]
            if not opened[stream]:
                own = common
                if self._attributes is not None and batch.attributes:
                    own = details(batch.attributes[index]) + b" "
                stamp = batch.stamps[index] + b"Z " if self._timestamps else b""
                out.append(stamp + own + line)
            else:
                out.append(line)
            opened[stream] = line[-1:] != b"\n"
        return out


def _merged(streams: Sequence[int], lines: Sequence[bytes]) -> bytes:
    out: list[bytes] = []
    begin = 0
    alike = streams.count(streams[0]) == len(streams)
    runs = (
        [(streams[0], len(streams))] if alike else [(stream, sum(1 for _ in run)) for stream, run in groupby(streams)]
    )
    for stream, count in runs:
        end = begin + count
        text = b"".join(lines[begin:end])
        begin = end
        headers, position = _HEADERS[stream], 0
        while position < len(text):
            cut = text.rfind(b"\n", position, position + FRAME) + 1
            cut = cut or text.find(b"\n", position + FRAME) + 1 or len(text)
            if len(text) - position <= FRAME:
                cut = len(text)
            out += (headers[cut - position], text[position:cut])
            position = cut
    return b"".join(out)

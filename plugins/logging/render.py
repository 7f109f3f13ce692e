"""Batches as the bytes that `docker logs` gets."""

from __future__ import annotations

from collections.abc import Mapping
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


class Renderer:
    """Renders one client's stream: frames, or bare bytes for a tty. Keeps track of lines that are not yet whole.

    Args:
        framed: one frame per line.
        timestamps: put the time before each line.
        attributes: what `--details` shows before lines that have no attributes of their own; None: no details.
    """

    def __init__(self, *, framed: bool, timestamps: bool = False, attributes: Mapping[str, str] | None = None) -> None:
        self._framed = framed
        self._timestamps = timestamps
        self._attributes = attributes
        self._open = {1: False, 2: False}

    def render(self, batch: Batch) -> bytes:
        """All lines of a batch."""
        lines = batch.lines
        if self._timestamps or self._attributes is not None:
            lines = self._decorated(batch)
        if not self._framed:
            return b"".join(lines)
        if len(set(batch.streams)) == 1:
            headers = _HEADERS[batch.streams[0]]
            return b"".join([headers[len(line)] + line for line in lines])
        return b"".join([_HEADERS[stream][len(line)] + line for stream, line in zip(batch.streams, lines, strict=True)])

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

"""The frame format of attach, exec and logs without a tty.

A frame: one byte for the stream (0 stdin, 1 stdout, 2 stderr, 3 an error of the engine), three zero bytes, the payload's
length as a big-endian uint32, the payload. Source: Docker Engine API, "Attach to a container", Stream format.
"""

from __future__ import annotations

import struct

_HEADER = struct.Struct(">BxxxI")


def frame(stream: int, payload: bytes) -> bytes:
    """One frame."""
    return _HEADER.pack(stream, len(payload)) + payload


class Unframer:
    """Takes frames apart that arrive in pieces of any size."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The frames that are complete now, as (stream, payload)."""
        self._buffer += data
        frames = []
        while len(self._buffer) >= _HEADER.size:
            stream, length = _HEADER.unpack_from(self._buffer)
            end = _HEADER.size + length
            if len(self._buffer) < end:
                break
            frames.append((stream, bytes(self._buffer[_HEADER.size : end])))
            del self._buffer[:end]
        return frames

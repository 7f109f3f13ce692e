"""Takes a chunked body apart, and stops exactly where it ends (RFC 9112, section 7.1)."""

from __future__ import annotations

import re

LINE_LIMIT = 16 * 1024
"""Bytes of a chunk's size line, and of all trailers."""

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(;.*)?")


class ChunkedError(ValueError):
    """The body is not framed as it must be."""


class ChunkedDecoder:
    """Fed with a growing buffer, takes off it what belongs to the body."""

    def __init__(self) -> None:
        self._left = 0
        self._need_newline = False
        self._in_trailers = False
        self._trailers = 0

    def feed(self, buffer: bytearray) -> tuple[bytes, bool]:
        """Decode what `buffer` holds and remove it from there; what comes after the body stays.

        Returns:
            the payload, and whether the body is complete.

        Raises:
            ChunkedError: a bad size line or a missing line end.
        """
        out = bytearray()
        position = 0
        complete = False
        while not complete:
            if self._left:
                taken = buffer[position : position + self._left]
                out += taken
                position += len(taken)
                self._left -= len(taken)
                if self._left:
                    break
                self._need_newline = True
            elif self._need_newline:
                if len(buffer) - position < 2:
                    break
                if buffer[position : position + 2] != b"\r\n":
                    raise ChunkedError("no line end after a chunk")
                position += 2
                self._need_newline = False
            else:
                end = buffer.find(b"\r\n", position)
                if end < 0:
                    if len(buffer) - position > LINE_LIMIT:
                        raise ChunkedError("a line is too long")
                    break
                complete = self._line(bytes(buffer[position:end]))
                position = end + 2
        del buffer[:position]
        return bytes(out), complete

    def _line(self, line: bytes) -> bool:
        """A size line or a trailer; True: the last one of the body."""
        if self._in_trailers:
            self._trailers += len(line)
            if self._trailers > LINE_LIMIT:
                raise ChunkedError("the trailers are too long")
            return not line
        found = _SIZE.fullmatch(line)
        if not found:
            raise ChunkedError(f"bad chunk size {line[:40]!r}")
        self._left = int(found[1], 16)
        self._in_trailers = self._left == 0
        return False

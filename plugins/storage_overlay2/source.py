"""The diff as it comes in: read, and hashed, by a thread of its own, ahead of the one that unpacks."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Iterator
from typing import Protocol

from plugin_sdk import InvalidParameter

CHUNK = 1 << 20
AHEAD = 6


class Reader(Protocol):
    """What is read of a diff's file."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, b"" at the end."""


class SourceFailed(Exception):
    """Reading the stream failed; the cause says how. (Not to be taken for a failure to write.)"""


class Source:
    """A stream of bytes with its SHA-256. Reading, decompressing and hashing so overlap with writing files."""

    def __init__(self, stream: Reader) -> None:
        self._stream = stream
        self._queue: queue.Queue[bytes | BaseException] = queue.Queue(AHEAD)
        self._hash = hashlib.sha256()
        self._chunk = b""
        self._position = 0
        self._ended = False
        self._closed = threading.Event()
        self.size = 0
        self._thread = threading.Thread(target=self._ahead, name="layer-source", daemon=True)
        self._thread.start()

    def _ahead(self) -> None:
        try:
            while not self._closed.is_set():
                chunk = self._stream.read(CHUNK)
                self._hash.update(chunk)
                self._queue.put(chunk)
                if not chunk:
                    return
        except BaseException as error:  # noqa: BLE001 - raised where the data is used
            self._queue.put(error)

    def read(self, size: int, *, short_ok: bool = False) -> bytes:
        """Exactly `size` bytes. Raises InvalidParameter when the stream ends before (less is fine with `short_ok`)."""
        start = self._position
        end = start + size
        if end <= len(self._chunk):
            self._position = end
            return self._chunk[start:end]
        data = b"".join(self._gather(size))
        if len(data) < size and not short_ok:
            raise InvalidParameter("unexpected EOF in the archive")
        return data

    def pieces(self, size: int) -> Iterator[memoryview]:
        """Exactly `size` bytes, in pieces that need no copying. Raises like `read`."""
        left = size
        for piece in self._gather(size):
            left -= len(piece)
            yield piece
        if left:
            raise InvalidParameter("unexpected EOF in the archive")

    def _gather(self, size: int) -> Iterator[memoryview]:
        while size:
            if self._position == len(self._chunk) and not self._more():
                return
            piece = memoryview(self._chunk)[self._position : self._position + size]
            self._position += len(piece)
            size -= len(piece)
            yield piece

    def _more(self) -> bool:
        if self._ended:
            return False
        item = self._queue.get()
        if isinstance(item, BaseException):
            self._ended = True
            raise SourceFailed from item
        self._chunk, self._position = item, 0
        self.size += len(item)
        self._ended = not item
        return not self._ended

    def digest(self) -> str:
        """`sha256:...` of all of it; call it when the end has been read."""
        return "sha256:" + self._hash.hexdigest()

    def close(self) -> None:
        """Let the reading thread end: it does as soon as its present read returns."""
        self._closed.set()
        while self._thread.is_alive():
            try:
                self._queue.get_nowait()
            except queue.Empty:
                break

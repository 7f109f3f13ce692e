"""Byte streams between threads, and between a thread and the event loop: bounded, and honest about failures.

`Inlet` is filled by one side and read like a file by a thread; `Outlet` is written like a file by a thread and
iterated by the event loop. An end that fails makes the other fail too: a broken upload is never taken for a short one.
"""

from __future__ import annotations

import asyncio
import io
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

LIMIT = 8 << 20
"""Bytes that wait at most, by default."""


async def apart(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run long blocking work in a thread of its own: it takes no worker from the pool that short work shares.

    A cancelled caller does not stop the thread: make the function's input fail, or give it something to look at.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result: T | None = None
        failure: BaseException | None = None
        try:
            result = function(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 - carried over to the caller
            failure = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=work, name=f"apart-{getattr(function, '__name__', 'work')}", daemon=True).start()
    return await future


class Inlet(io.RawIOBase):
    """A readable file that someone else fills, from a thread (`put`) or from the event loop (`aput`)."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._head = 0
        self._ended = False
        self._error: BaseException | None = None
        self._reader_gone = False
        self._changed = threading.Condition()
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def put(self, data: bytes) -> None:
        """Add data; waits while the reader is behind. Raises BrokenPipeError when it has closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._size < self._limit or self._reader_gone)
            self._add(data)

    async def aput(self, data: bytes) -> None:
        """`put` for the event loop."""
        while True:
            with self._changed:
                if self._size < self._limit or self._reader_gone:
                    self._add(data)
                    return
                event = asyncio.Event()
                self._waiter = (asyncio.get_running_loop(), event)
            await event.wait()

    def _add(self, data: bytes) -> None:
        if self._reader_gone:
            raise BrokenPipeError("nobody reads any more")
        if data:
            self._chunks.append(data)
            self._size += len(data)
            self._changed.notify_all()

    def end(self) -> None:
        """All data is in."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """No more data comes, because of this: the reader gets it raised."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int | None = -1) -> bytes:
        """Up to `size` bytes, as soon as there are any; all up to the end when it is negative; b"" at the end."""
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(1 << 20), b""))
        with self._changed:
            self._changed.wait_for(lambda: self._chunks or self._ended or self._error)
            if self._error is not None:
                raise self._error
            if not self._chunks or not size:
                return b""
            chunk, start = self._chunks[0], self._head
            piece = chunk if not start and len(chunk) <= size else chunk[start : start + size]
            self._head += len(piece)
            if self._head == len(chunk):
                self._chunks.popleft()
                self._head = 0
            self._size -= len(piece)
            self._wake()
        return piece

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """As of files."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """The reader goes; whoever still adds data gets BrokenPipeError."""
        with self._changed:
            self._reader_gone = True
            self._chunks.clear()
            self._wake()
        super().close()

    def _wake(self) -> None:
        self._changed.notify_all()
        if self._waiter is not None:
            loop, event = self._waiter
            self._waiter = None
            loop.call_soon_threadsafe(event.set)


class Outlet(io.RawIOBase):
    """A writable file for a thread; the event loop iterates over what was written, in pieces of 64 KiB or more.

    Use it as an async context: leaving it makes further writes raise BrokenPipeError, which ends the thread's work.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._error: BaseException | None = None
        self._gone = False
        self._changed = threading.Condition()
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        """Takes all of it; waits while the reader is behind."""
        with self._changed:
            self._changed.wait_for(lambda: self._size < self._limit or self._gone)
            if self._gone:
                raise BrokenPipeError("nobody reads any more")
            self._chunks.append(bytes(data))
            self._size += len(data)
            self._tell()
        return len(data)

    def end(self, error: BaseException | None = None) -> None:
        """All was written, or the writer failed: the iteration ends, or raises the error."""
        with self._changed:
            self._ended, self._error = True, error
            self._tell()

    def _tell(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ready.set)

    async def __aenter__(self) -> Outlet:
        return self

    async def __aexit__(self, *exc: object) -> None:
        with self._changed:
            self._gone = True
            self._chunks.clear()
            self._changed.notify_all()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await self._ready.wait()
            with self._changed:
                self._ready.clear()
                data = b"".join(self._chunks)
                self._chunks.clear()
                self._size = 0
                ended, error = self._ended, self._error
                self._changed.notify_all()
            if data:
                yield data
            if ended:
                if error is not None:
                    raise error
                return

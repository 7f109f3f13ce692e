"""Output of processes on its way to one client: read as it comes, kept within bounds."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

Chunk = tuple[int, bytes]
Receive = Callable[[], Chunk | None]
"""Gives what is there, or None at the end. Raises BlockingIOError when there is nothing now."""

LIMIT = 4 << 20
"""Bytes kept for a client that reads slowly; then nothing more is read for it."""
MERGED = 64 << 10
"""Bytes of one stream that a single read gives."""
BURST = 32
"""Receives in one turn of the event loop."""


class ChunkQueue:
    """What one client has still to read.

    Args:
        drained: called when it was full and has room again.
    """

    def __init__(self, drained: Callable[[], None] | None = None) -> None:
        self._chunks: deque[Chunk] = deque()
        self._size = 0
        self._drained = drained
        self._waiter: asyncio.Future[None] | None = None
        self._discarding = False
        self.finished = False
        self.full = False
        self.taken = 0

    def put(self, chunk: Chunk) -> None:
        """Add a piece; dropped once the client has left."""
        if not self._discarding:
            self._chunks.append(chunk)
            self._size += len(chunk[1])
            self.full = self._size >= LIMIT
            self._wake()

    def finish(self) -> None:
        """Nothing more comes."""
        self.finished = True
        self._wake()

    def discard(self) -> None:
        """The client has left: keep nothing."""
        self._discarding = True
        self._chunks.clear()
        self._size = 0
        self._has_room()

    async def read(self) -> Chunk | None:
        """The next piece; None at the end."""
        while not self._chunks:
            if self.finished:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        stream, data = self._chunks.popleft()
        self._size -= len(data)
        if self._chunks and self._chunks[0][0] == stream:
            data = self._merge(stream, data)
        self.taken += len(data)
        if self._size < LIMIT // 2:
            self._has_room()
        return stream, data

    def _merge(self, stream: int, first: bytes) -> bytes:
        parts, length = [first], len(first)
        while self._chunks and self._chunks[0][0] == stream and length + len(self._chunks[0][1]) <= MERGED:
            part = self._chunks.popleft()[1]
            self._size -= len(part)
            length += len(part)
            parts.append(part)
        return b"".join(parts)

    def _has_room(self) -> None:
        if self.full:
            self.full = False
            if self._drained is not None:
                self._drained()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Output(ChunkQueue):
    """A queue that descriptors fill; they wait while it is full."""

    def __init__(self) -> None:
        super().__init__(self._resume)
        self._loop = asyncio.get_running_loop()
        self._sources: dict[int, Receive] = {}
        self.finished = True

    def watch(self, descriptor: int, receive: Receive) -> None:
        """Read from a descriptor whenever there is something."""
        self.finished = False
        self._sources[descriptor] = receive
        self._loop.add_reader(descriptor, self._readable, descriptor)

    def finish(self) -> None:
        """Read no more."""
        for descriptor in list(self._sources):
            self._end(descriptor)

    def _readable(self, descriptor: int) -> None:
        receive = self._sources.get(descriptor)
        for _ in range(BURST):
            if receive is None or self.full:
                break
            try:
                chunk = receive()
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # EIO of a terminal that nobody holds any more
                chunk = None
            if chunk is None:
                self._end(descriptor)
                return
            self.put(chunk)
        if self.full:
            for source in self._sources:
                self._loop.remove_reader(source)

    def _end(self, descriptor: int) -> None:
        if self._sources.pop(descriptor, None) is not None:
            self._loop.remove_reader(descriptor)
        if not self._sources:
            super().finish()

    def _resume(self) -> None:
        for descriptor in self._sources:
            self._loop.add_reader(descriptor, self._readable, descriptor)


class Input:
    """Writes to a non-blocking descriptor, waiting while it takes nothing.

    Args:
        send: gives how many bytes were taken; raises BlockingIOError when it takes none now.
        piece: bytes offered at once.
    """

    def __init__(self, descriptor: int, send: Callable[[memoryview], int], piece: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor = descriptor
        self._send = send
        self._piece = piece
        self._lock = asyncio.Lock()
        self._waiter: asyncio.Future[None] | None = None
        self.closed = False

    async def write(self, data: bytes) -> None:
        """All of it, in order; dropped when nobody reads any more."""
        async with self._lock:
            left = memoryview(data)
            while left and not self.closed:
                try:
                    left = left[self._send(left[: self._piece]) :]
                except (BlockingIOError, InterruptedError):
                    await self._writable()
                except OSError:
                    self.closed = True

    async def _writable(self) -> None:
        self._waiter = self._loop.create_future()
        self._loop.add_writer(self._descriptor, self._woken)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if not self.closed:
                self._loop.remove_writer(self._descriptor)

    def _woken(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """Stop writing; whoever waits goes on. The descriptor stays the caller's."""
        if not self.closed:
            self.closed = True
            if self._waiter is not None:
                self._loop.remove_writer(self._descriptor)
                self._woken()

    async def drained(self) -> None:
        """Until all that was written before is taken."""
        async with self._lock:
            return

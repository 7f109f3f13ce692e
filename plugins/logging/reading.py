"""What `docker logs` shows of one container: the past, from whatever holds it, then what comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Generic, TypeVar

from plugin_sdk import PluginError
from plugin_sdk.logs import LogEntry, LogQuery

from . import history
from .batch import Batch, from_entries, join_pieces, parse_monitor, stamp_of, to_entries
from .channel import Channel
from .history import Piece, within
from .jsonfile import path_of
from .sinks import Pin
from .spool import CHUNK, Cursor, Position

T = TypeVar("T")

READ_DEADLINE = 30.0
"""Seconds that a driver may take for its next entries."""
_INLINE = 32 << 10
"""Bytes that are parsed on the event loop rather than in a thread."""


class Reader(Generic[T]):
    """One client's way through a log.

    Args:
        convert: makes what the client wants of a batch; runs in threads, never twice at once.
    """

    def __init__(self, channel: Channel, query: LogQuery, convert: Callable[[Batch], T]) -> None:
        self._channel = channel
        self._query = query
        self._convert = convert
        self._since = stamp_of(query.since_ns) if query.since_ns > 0 else b""
        self._until = stamp_of(query.until_ns) if query.until_ns > 0 else b""
        self._past_until = False
        self._run = channel.run

    async def read(self) -> AsyncGenerator[T, None]:
        """Converted batches; ends at the end, or with `follow` when the container's run ends."""
        channel = self._channel
        follow = self._query.follow and channel.running
        event = channel.waiter()
        pin = Pin(channel.spool.position)
        channel.pins.add(pin)
        try:
            pieces, end = await channel.work(self._snapshot)
            try:
                async with aclosing(self._past(pieces)) as past:
                    async for found in past:
                        yield found
            finally:
                for piece in pieces:
                    piece.close()
            if follow and not self._past_until:
                pin.position = end
                async with aclosing(self._follow(end, pin, event)) as coming:
                    async for found in coming:
                        yield found
        finally:
            channel.leave(event, pin)

    def _snapshot(self) -> tuple[list[Piece], Position]:
        """Blocks. What there is now; the pump cannot move anything meanwhile."""
        channel = self._channel
        spool = channel.spool
        with channel.lock:
            end = spool.end()
            if channel.outlet.retained:
                return history.spool_pieces(spool, spool.start(), end), end
            if not channel.outlet.raw:
                return history.spool_pieces(spool, spool.position, end), end
            path = path_of(channel.info)
            size = None
            inode, _, rest = spool.position.mark.partition(":")
            try:
                if inode == str(path.stat().st_ino):
                    size = int(rest.partition(":")[0])
            except FileNotFoundError:
                size = None
            return history.json_pieces(path, size) + history.spool_pieces(spool, spool.position, end), end

    async def _past(self, pieces: Sequence[Piece]) -> AsyncGenerator[T, None]:
        channel, query = self._channel, self._query
        if channel.outlet.raw or channel.outlet.retained:
            async with aclosing(self._of_pieces(pieces, query.tail)) as found:
                async for item in found:
                    yield item
            return
        # The driver has the older part, and the buffer what it has not yet taken.
        tail, border = query.tail, await channel.work(_first, pieces)
        if tail >= 0:
            tail = max(0, tail - await channel.work(lambda: sum(piece.back(tail) for piece in pieces[-1:])))
        if tail:
            async with aclosing(self._of_driver(replace(query, tail=tail), border)) as told:
                async for item in told:
                    yield item
        async with aclosing(self._of_pieces(pieces, query.tail)) as found:
            async for item in found:
                yield item

    async def _of_pieces(self, pieces: Sequence[Piece], tail: int) -> AsyncGenerator[T, None]:
        channel = self._channel
        await channel.work(lambda: history.cut(pieces, tail=tail, since=self._since))
        batches = history.read(pieces, since=self._since, until=self._until)
        while (found := await channel.work(self._next, batches)) is not None:
            for item in found:
                yield item

    def _next(self, batches: Iterator[Batch]) -> list[T] | None:
        """Blocks. One batch, converted; None at the end."""
        batch = next(batches, None)
        return None if batch is None else self._shown(batch)

    def _shown(self, batch: Batch) -> list[T]:
        query = self._query
        if not (query.stdout and query.stderr):
            wanted = 1 if query.stdout else 2
            streams = batch.streams
            batch = batch.keep(lambda index: streams[index] == wanted)
        return [self._convert(batch)] if len(batch) else []

    async def _of_driver(self, query: LogQuery, border: LogEntry | None) -> AsyncGenerator[T, None]:
        """What the driver has, up to `border`: it may have taken that since, and it is shown from the buffer."""
        driver, name = self._channel.outlet.driver, self._channel.outlet.name
        assert driver is not None
        if border is not None:
            query = replace(query, until_ns=min(query.until_ns, border.time_ns) if self._until else border.time_ns)
        entries = aiter(driver.read(self._channel.info, query))
        try:
            while True:
                async with asyncio.timeout(READ_DEADLINE):
                    several: Sequence[LogEntry] = await anext(entries)
                end = _border(several, border)
                for item in self._shown(within(from_entries(several[:end]), self._since, self._until)):
                    yield item
                if end < len(several):
                    return
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise PluginError(name, "LogDriver.read", f"no answer within {READ_DEADLINE:g} s") from None
        finally:
            if isinstance(entries, AsyncGenerator):
                await entries.aclose()

    async def _follow(self, start: Position, pin: Pin, event: asyncio.Event) -> AsyncGenerator[T, None]:
        channel = self._channel
        cursor = Cursor(channel.spool, start)
        try:
            while True:
                # Asked before reading: what was written before the end is still read.
                over = not channel.running or channel.run != self._run
                event.clear()
                found = await self._more(cursor)
                if found is None and not over:
                    channel.arm()
                    found = await self._more(cursor)
                if found is None:
                    if over or not await self._wait(event):
                        return
                    continue
                pin.position = Position(cursor.segment, cursor.offset)
                for item in found:
                    yield item
                if self._past_until:
                    return
        finally:
            cursor.close()

    async def _more(self, cursor: Cursor) -> list[T] | None:
        """What has come since, converted; None without any."""
        channel = self._channel
        waiting = channel.spool.size(cursor.segment) - cursor.offset
        if waiting <= _INLINE:
            return self._take(cursor)
        return await channel.work(self._take, cursor)

    def _take(self, cursor: Cursor) -> list[T] | None:
        lines = cursor.lines(final=True, limit=CHUNK)
        if not lines:
            return None
        batch = parse_monitor(join_pieces(lines))
        self._past_until = bool(self._until) and max(batch.stamps) > self._until
        return self._shown(within(batch, self._since, self._until))

    async def _wait(self, event: asyncio.Event) -> bool:
        """Until something changes; False when `until` comes first."""
        left = (self._query.until_ns - time.time_ns()) / 1e9 if self._until else None
        if left is not None and left <= 0:
            return False
        try:
            async with asyncio.timeout(left):
                await event.wait()
        except TimeoutError:
            return False
        return True


def _first(pieces: Sequence[Piece]) -> LogEntry | None:
    """Blocks. The first line of a buffer's part."""
    batch = next((batch for piece in pieces for batch in piece.batches() if len(batch)), None)
    return to_entries(batch.keep(lambda index: index == 0), {})[0] if batch is not None else None


def _border(entries: Sequence[LogEntry], border: LogEntry | None) -> int:
    """How many entries come before `border`."""
    if border is None:
        return len(entries)
    here = (border.time_ns, border.stream, border.line)
    for at, entry in enumerate(entries):
        if entry.time_ns > border.time_ns or (entry.time_ns, entry.stream, entry.line) == here:
            return at
    return len(entries)

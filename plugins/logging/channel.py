"""One container's log at work: its buffer, its driver, and what moves entries from the one to the other."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any, TypeVar

from plugin_sdk import NotFound, PluginContext, PluginError, Unavailable
from plugin_sdk.logs import LogDriver, LogEntry, LogInfo, LogSink

from . import bounds
from .batch import join_pieces, parse_monitor, to_entries, whole_lines
from .bounds import Loss
from .outlet import CLOSE_DEADLINE, Outlet, known
from .sinks import Pin, RawSink, accompanied
from .spool import Cursor, Position, Spool
from .watch import Watcher

T = TypeVar("T")

PUMP_DELAY = 0.2
"""Seconds from the first line to the pump's work: what comes meanwhile is moved in one go."""
CHUNKS_PER_STEP = 4
RAW_CHUNK = 1 << 20
"""Bytes that go at once to a sink that takes the monitor's lines as they are."""
WRITE_DEADLINE = 60.0
"""Seconds after which a sink that neither took entries nor raised is asked anew."""
FLUSH_DEADLINE = 5.0
"""Seconds that the removal of a container waits for a sink that has not yet taken all."""
BACKOFF = (0.5, 5.0)
GREET_DEADLINE = 3.0
"""Seconds that a start waits for the log driver."""
COMPLAIN_EVERY = 60.0
PIN_REACH = 4
"""Segments that a reader may lie behind the pump before its place is given up."""
_BOUND_EVERY = 16
_BOUND_SECONDS = 0.25
"""How often the bound is looked at while a sink is waited for."""


class Channel:
    """See the module. Methods run on the event loop unless they say that they block.

    Attributes:
        run: counts the starts of the container; a reader that follows ends with the run it began in.
        running: the monitor writes.
        outlet: its driver and its sink.
    """

    def __init__(
        self, ctx: PluginContext, threads: Executor, watcher: Watcher, info: LogInfo, driver: LogDriver | None
    ) -> None:
        self.ctx = ctx
        self.info = info
        self.spool = Spool(info.folder)
        self.run = 0
        self.running = False
        self.lock = threading.Lock()
        self.pins: set[Pin] = set()
        self._threads = threads
        self._watcher = watcher
        self.outlet = Outlet(ctx, info, driver)
        self._cursor: Cursor | None = None
        self._waiting: set[asyncio.Event] = set()
        self._pumping: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._dirty = False
        self._final = False
        self._halted = False
        self._settled = False
        self._steps = 0
        self._idle = asyncio.Event()
        self._lost = Loss()
        self._told_loss = -COMPLAIN_EVERY
        self._taken = Loss()
        self._complaint = (0.0, "")
        self.on_settled: Callable[[Channel], None] = lambda channel: None

    @property
    def id(self) -> str:
        """The container's ID."""
        return self.info.container.Id

    @property
    def idle(self) -> bool:
        """There is nothing to move, and nothing to close."""
        return not self.spool.written() and not self.outlet.used

    @property
    def segment_size(self) -> int:
        """Bytes after which the monitor begins a new file; 0, never, for a log that has no bound."""
        return bounds.segment_size(self.info.options, raw=self.outlet.raw, buffered=self.outlet.buffered)

    @property
    def _retention(self) -> int:
        return bounds.retention(self.info.options, buffered=self.outlet.buffered)

    async def work(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run what blocks, in a thread of the logs' own."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    # A run's beginning and end.

    async def begin(self) -> None:
        """The container is about to start."""
        self.run += 1
        self.running = True
        self._settled = False
        if self._pumping is None:
            self.spool.prepare()
        else:
            await self.work(self._prepare_locked)
        self.arm()

    def _prepare_locked(self) -> None:
        with self.lock:
            self.spool.prepare()

    async def greet(self) -> None:
        """Let the driver know of the run, before it begins; one that is not ready within a moment is not waited for.

        Raises:
            EngineError: the driver refuses the container.
        """
        if self.outlet.raw or self.outlet.buffered:
            return
        try:
            async with asyncio.timeout(GREET_DEADLINE):
                await self.outlet.opened()
        except (TimeoutError, Unavailable, PluginError) as error:
            reason = str(error) or f"not ready within {GREET_DEADLINE:g} s"
            self.ctx.log.warning(
                "container %s: log driver %s: %s; output is kept", self.id[:12], self.outlet.name, reason
            )

    def resume(self) -> None:
        """The container was running before the daemon."""
        self.run += 1
        self.running = True
        self.changed()

    def end(self, *, drain: bool) -> None:
        """The container has ended; all it wrote is in the buffer."""
        self.running = False
        self.wake()
        if drain:
            self._start()

    # What the watcher tells.

    def arm(self) -> None:
        """Hear of the next growth, once."""
        if not self._watcher.arm(self.id, self.spool.live) and self.spool.live.exists():
            asyncio.get_running_loop().call_later(1.0, self.changed)

    def changed(self) -> None:
        """The buffer grew or began anew."""
        self._watcher.follow(self.id, self.spool.folder)
        self.spool.note()
        self.wake()
        if self._pumping is not None:
            self._dirty = True
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PUMP_DELAY, self._start)

    def wake(self) -> None:
        """Let those who follow look again."""
        for event in self._waiting:
            event.set()

    def waiter(self) -> asyncio.Event:
        """An event that is set at each change, until `leave`."""
        event = asyncio.Event()
        self._waiting.add(event)
        return event

    def leave(self, event: asyncio.Event, pin: Pin | None = None) -> None:
        """The reader is gone."""
        self._waiting.discard(event)
        if pin is not None:
            self.pins.discard(pin)
            if self._settled and not self.pins and not self.running:
                self.ctx.spawn(self.work(self._clear), name=f"log buffer {self.id[:12]}")

    def lost(self, segments: int) -> None:
        """Renames came faster than links could be made. Called in the watcher's thread."""
        text = "container %s: %d files of its buffer (64 MB each) were replaced before they could be kept"
        self.ctx.log.warning(text, self.id[:12], segments)

    # The pump.

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pumping is not None:
            self._dirty = True
            return
        if self._halted:
            return
        self._idle.clear()
        self._pumping = self.ctx.spawn(self._pump(), name=f"log pump {self.id[:12]}")

    async def _pump(self) -> None:
        delay = BACKOFF[0]
        try:
            while True:
                self._dirty = False
                self._final = not self.running
                try:
                    moved = await self._step()
                except Exception as error:  # noqa: BLE001 - a sink of anybody's; said, and tried again
                    self._complain(str(error) or type(error).__name__)
                    await self._bound()
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, BACKOFF[1])
                    continue
                delay = BACKOFF[0]
                if moved:
                    continue
                if self._final:
                    await self._settle()
                    if self.running:
                        # Started anew meanwhile; what it wrote by now woke nobody.
                        continue
                    return
                if self._dirty:
                    await asyncio.sleep(PUMP_DELAY)
                    continue
                self.arm()
                if self._caught_up():
                    return
                await asyncio.sleep(PUMP_DELAY)
        finally:
            self._pumping = None
            self._idle.set()

    def _complain(self, what: str) -> None:
        """The same words once a minute."""
        now = time.monotonic()
        if what != self._complaint[1] or now - self._complaint[0] >= COMPLAIN_EVERY:
            self._complaint = (now, what)
            self.ctx.log.warning(
                "container %s: log driver %s: %s; its output is kept, and offered again",
                self.id[:12],
                self.outlet.name,
                what,
            )

    def _caught_up(self) -> bool:
        """Nothing more to take for now; pieces held back count as taken."""
        end, cursor = self.spool.end(), self._cursor
        if self.outlet.buffered or cursor is None:
            return self.outlet.buffered or not end.offset
        return (end.segment, end.offset) == (cursor.segment, cursor.offset + cursor.held)

    async def _step(self) -> bool:
        """Move some; whether there was any."""
        if self.outlet.buffered:
            await self.work(self.spool.keep, self._retention)
            return False
        self._steps += 1
        if self._steps % _BOUND_EVERY == 0:
            await self._bound()
        if self._final and not self.outlet.raw and self.outlet.sink is None and not await self.work(self.spool.unread):
            return False
        sink = await self._patiently(self.outlet.opened())
        if isinstance(sink, RawSink):
            return await self.work(self._step_raw, sink)
        entries = await self.work(self._take)
        if not entries:
            return False
        await self._patiently(self._offer(sink, entries))
        return True

    async def _offer(self, sink: LogSink, entries: Sequence[LogEntry]) -> None:
        try:
            async with asyncio.timeout(WRITE_DEADLINE):
                await sink.write(entries)
        except TimeoutError:
            raise Unavailable(f"did not take its entries within {WRITE_DEADLINE:g} s") from None
        # At once, in this very step of the loop: a cancelled pump must not offer these entries again.
        here, told = self.spool.position, self._taken
        assert self._cursor is not None
        if (here.segment, here.offset) > (self._cursor.segment, self._cursor.offset):
            # They were dropped from the buffer meanwhile.
            self.spool.save(Position(here.segment, here.offset, Loss.of(here.mark).minus(told).mark))
        else:
            self._consumed("")

    async def _patiently(self, act: Coroutine[Any, Any, T]) -> T:
        return await accompanied(act, self._bound, _BOUND_SECONDS)

    def _step_raw(self, sink: RawSink) -> bool:
        """Blocks."""
        moved = False
        with self.lock:
            if self._halted:
                return False
            if self._cursor is None:
                sink.recover(self.spool.position.mark)
            for _ in range(CHUNKS_PER_STEP):
                block = self._at_position().block(final=self._final, limit=RAW_CHUNK)
                if not block:
                    break
                sink.append(block)
                self._consumed(sink.mark)
                moved = True
        if not moved:
            sink.tidy()
        return moved

    def _take(self) -> list[LogEntry]:
        """Blocks. After a failed write, the same lines again."""
        lines = self._at_position().lines(final=self._final)
        missing = Loss.of(self.spool.position.mark)
        block = b"\n".join([*lines, b""])
        self._taken = missing.plus(Loss(len(block), whole_lines(block)))
        entries = to_entries(parse_monitor(join_pieces(lines)), {})
        return [missing.entry(entries[0].time_ns), *entries] if missing.lines and entries else entries

    def _at_position(self) -> Cursor:
        """Blocks. A cursor before the first line that was not taken."""
        here = self.spool.position
        cursor = self._cursor
        if cursor is None or (cursor.segment, cursor.offset) != (here.segment, here.offset):
            if cursor is not None:
                cursor.close()
            cursor = self._cursor = Cursor(self.spool, here)
        return cursor

    def _consumed(self, mark: str) -> None:
        """Blocks."""
        assert self._cursor is not None
        here = Position(self._cursor.segment, self._cursor.offset, mark)
        self.spool.save(here)
        if self.outlet.retained:
            self._keep()
            return
        low = min([here, *(pin.position for pin in self.pins if pin.position.segment >= here.segment - PIN_REACH)])
        self.spool.free(low.segment, low.offset)

    async def _bound(self) -> None:
        """A sink that takes nothing must not fill the disk."""
        if self.outlet.raw and self.outlet.sink is None:
            return
        bound = bounds.waiting_bound(self.info.options, self.outlet.sink)
        before = self.spool.position
        found = await self.work(bounds.surplus, self.spool, bound) if bound else None
        if found is None or self.spool.position != before:
            return
        place, lost = found
        # A sink that takes the monitor's lines has a mark of its own, and its files would not have kept these lines.
        mark = place.mark if self.outlet.raw else Loss.of(place.mark).plus(lost).mark
        self.spool.save(Position(place.segment, place.offset, mark))
        if self.outlet.retained:
            await self.work(self._keep)
        else:
            await self.work(self.spool.free, place.segment, place.offset)
        self._say_lost(lost, "the log driver takes them too slowly or not at all")

    def _keep(self) -> None:
        """Blocks. Hold the part that is read back to its bound; what no sink has taken yet has another."""
        self.spool.keep(max(self._retention, self.spool.unread()))

    def _say_lost(self, lost: Loss, why: str) -> None:
        """The same reason once a minute, with the sum."""
        self._lost = self._lost.plus(lost)
        now = time.monotonic()
        if now - self._told_loss < COMPLAIN_EVERY:
            return
        self._told_loss = now
        text = "container %s: %d lines (%d bytes) of its log were dropped so far: %s"
        self.ctx.log.warning(text, self.id[:12], self._lost.lines, self._lost.size, why)

    # The end.

    async def _settle(self) -> None:
        """All was taken, and nothing writes."""
        await self._close_sink()
        self._settled = True
        if not self.pins:
            await self.work(self._clear)
        if not self.running:
            self.on_settled(self)

    def _clear(self) -> None:
        """Blocks."""
        with self.lock:
            if not self.running and not self.outlet.retained:
                self.spool.clear()

    async def _close_sink(self) -> None:
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None
        await self.outlet.close()

    async def drained(self, seconds: float) -> bool:
        """Wait until the pump has nothing to do; whether it came to that."""
        if self._pumping is None:
            return True
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def halt(self) -> None:
        """Stop the pump for good; the buffer keeps what was not taken."""
        self._halted = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        task = self._pumping
        if task is not None:
            task.cancel()
            await asyncio.wait([task], timeout=CLOSE_DEADLINE)
        # A step may still be at work in its thread.
        await self.work(self._barrier)
        await self._close_sink()

    def _barrier(self) -> None:
        """Blocks until no step is at work."""
        with self.lock:
            pass

    async def remove(self) -> None:
        """The container is gone: what was not taken within some seconds is dropped, and said."""
        left = 0 if self.outlet.raw or self.outlet.buffered else await self.work(self.spool.unread)
        if left:
            self._start()
            if not await self.drained(FLUSH_DEADLINE):
                left = await self.work(self.spool.unread)
                text = "container %s: %d bytes were not taken by the log driver before the container was removed"
                self.ctx.log.warning(text, self.id[:12], left)
        await self.halt()
        self._watcher.forget(self.id)
        driver = known(self.ctx, self.outlet.name)
        if driver is not None:
            with suppress(NotFound):
                await driver.remove(self.info)
        await self.work(self.spool.remove)

"""From a container's FIFO into a `LogSink`."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from kernel.contracts.logs import LogEntry, LogSink
from kernel.errors import EngineError, InvalidParameter
from plugin_sdk.logwire import Decoder, WireError
from plugin_sdk.serving.dispatch import DEADLINE, within

PIECE = 256 * 1024
"""Bytes that are read at once; a FIFO holds 64 KiB unless the engine has enlarged it."""
DRAIN = 10.0
"""Seconds that StopLogging waits for a sink that takes nothing."""
_PAUSES = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Seconds between tries to write; the last one repeats."""
_WAITING = 10_000
"""Batches that a follower may lag behind."""

log = logging.getLogger("plugin.logs")


def open_fifo(path: Path) -> int:
    """The reading end, which never blocks. Raises InvalidParameter for what is no FIFO, OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InvalidParameter(f"{path} is no FIFO")
    return descriptor


class Follower:
    """The batches that a sink has taken since this follower began; None ends them."""

    def __init__(self) -> None:
        self.batches: asyncio.Queue[Sequence[LogEntry] | None] = asyncio.Queue(_WAITING)
        self.lost = False

    def offer(self, batch: Sequence[LogEntry] | None) -> None:
        """Add a batch; one that does not fit ends the follower's log, since the rest would have a hole."""
        if not self.lost:
            try:
                self.batches.put_nowait(batch)
            except asyncio.QueueFull:
                self.lost = True


class Pump:
    """Moves entries until the engine is done with the FIFO. A sink that fails is tried again: meanwhile the FIFO fills up,
    and the engine buffers."""

    def __init__(self, descriptor: int, sink: LogSink, what: str) -> None:
        """`what`: the container, for messages. The pump closes `descriptor` and the sink."""
        self._descriptor = descriptor
        self._sink = sink
        self._what = what
        self._decoder = Decoder()
        self._stopping = False
        self._wake: asyncio.Future[None] | None = None
        self._trouble = ""
        self._followers: set[Follower] = set()
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"log of {what}")

    def follow(self) -> Follower | None:
        """A follower from now on; None when the log has ended."""
        if self._task.done():
            return None
        follower = Follower()
        self._followers.add(follower)
        return follower

    def leave(self, follower: Follower) -> None:
        """The follower wants no more."""
        self._followers.discard(follower)

    async def stop(self) -> None:
        """Write what is in the FIFO, and close the sink.

        Raises:
            EngineError: not all could be written; says why.
        """
        self._stopping = True
        self._awake()
        done, _ = await asyncio.wait((self._task,), timeout=DRAIN)
        if not done:
            self._task.cancel()
            await asyncio.wait((self._task,), timeout=DRAIN)
            self._trouble = self._trouble or f"the sink did not take it within {DRAIN:g} s"
        if self._trouble:
            raise EngineError(f"the log of {self._what} is not complete: {self._trouble}")

    def _awake(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _run(self) -> None:
        try:
            await self._move()
        except WireError as error:
            self._trouble = str(error)
            log.error("the log of %s cannot be read any further: %s", self._what, error)
        finally:
            os.close(self._descriptor)
            for follower in self._followers:
                follower.offer(None)
            try:
                await within(DEADLINE, self._sink.close(), f"closing the log of {self._what}")
            except Exception as error:
                self._trouble = self._trouble or f"it could not be closed: {error}"
                log.error("the log of %s could not be closed", self._what, exc_info=error)

    async def _move(self) -> None:
        while True:
            try:
                data = os.read(self._descriptor, PIECE)
            except BlockingIOError:
                if self._stopping:
                    break
                await self._readable()
                continue
            if not data:
                break
            if entries := self._decoder.feed(data):
                await self._write(entries)
        if self._decoder.pending:
            raise WireError("the FIFO ended within an entry")

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        self._wake = loop.create_future()
        loop.add_reader(self._descriptor, self._awake)
        try:
            await self._wake
        finally:
            loop.remove_reader(self._descriptor)

    async def _write(self, entries: Sequence[LogEntry]) -> None:
        tries = 0
        while True:
            try:
                await within(DEADLINE, self._sink.write(entries), f"writing the log of {self._what}")
            except Exception as error:  # noqa: BLE001 - entries are kept until a sink has taken them
                self._trouble = f"the sink takes nothing: {error}"
                if tries == 0:
                    log.warning("the log of %s is held back: %s: %s", self._what, type(error).__name__, error)
                await asyncio.sleep(_PAUSES[min(tries, len(_PAUSES) - 1)])
                tries += 1
            else:
                break
        if tries:
            log.info("the log of %s goes on", self._what)
        self._trouble = ""
        for follower in self._followers:
            follower.offer(entries)

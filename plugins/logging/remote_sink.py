"""One container's open log at a plugin in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from plugin_sdk import PluginError, Unavailable, Wire
from plugin_sdk.aio import blocking
from plugin_sdk.logbatch import Batch
from plugin_sdk.logs import LogEntry
from plugin_sdk.managed import PluginPeer

from .fifo import Fifo

START_DEADLINE = 30.0
STOP_DEADLINE = 2.0
OPEN_PATIENCE = 10.0
"""Seconds after StartLogging within which a plugin opens its FIFO."""
CLOSE_WAIT = 2.0
"""Seconds that a plugin gets at the end to read what is in the pipe."""


class Nothing(Wire):
    """A reply without content."""


class RemoteSink:
    """Fulfils `plugin_sdk.logs.LogSink`.

    `write` returns when the plugin has read the entries out of the pipe. So nothing is lost with the pipe, whoever dies:
    what was not read is still in the engine's buffer. A message that was half read when the plugin died is sent again.

    Attributes:
        closed: `close` was called.
    """

    def __init__(self, peer: PluginPeer, facts: Mapping[str, Any], batch: Batch[bytes]) -> None:
        self._peer = peer
        self._facts = facts
        self._batch = batch
        self._fifo: Fifo | None = None
        self._started = 0.0
        self._seen = False
        self._incarnation = ""
        self.closed = False
        self._lock = asyncio.Lock()

    @property
    def fifo(self) -> str:
        """Name of the FIFO that is in use, or ""."""
        return self._fifo.name if self._fifo is not None else ""

    async def start(self) -> Fifo:
        """Call StartLogging with a fresh FIFO. Raises what `PluginPeer.call` raises, or PluginError."""
        shared, _ = self._peer.shared_folder()
        # Known from the beginning, so that nobody sweeps it away.
        fifo = self._fifo = Fifo(shared)
        try:
            await blocking(fifo.make)
        except OSError as error:
            self._drop()
            raise PluginError(
                self._peer.name, "LogDriver.StartLogging", f"no FIFO can be made in {shared}: {error.strerror or error}"
            ) from None
        self._incarnation = self._peer.incarnation()
        try:
            arguments = {"File": self._path(fifo), "Info": self._facts}
            await self._peer.call("LogDriver.StartLogging", arguments, Nothing, deadline=START_DEADLINE)
            fifo.hand_over()
        except BaseException:
            self._drop()
            raise
        if self.closed:
            self._drop()
            raise Unavailable(f"plugin {self._peer.name!r}: its log was closed meanwhile")
        self._started = asyncio.get_running_loop().time()
        self._seen = False
        return fifo

    async def write(self, entries: Sequence[LogEntry]) -> None:
        """See `LogSink.write`. Raises Unavailable, saying that the plugin does not read, or what `start` raises."""
        async with self._lock:
            if self.closed:
                raise Unavailable(f"plugin {self._peer.name!r}: its log was closed")
            fifo = await self._reading()
            if not self._batch.offer(entries, fifo.begun):
                fifo.settle()
            try:
                await fifo.write(self._batch.waiting[fifo.begun :])
                await fifo.emptied()
            except BrokenPipeError:
                self._drop()
                raise Unavailable(self._unread("closed the log's FIFO before it had read all")) from None
            self._batch.clear()
            fifo.settle()

    async def revive(self) -> None:
        """Start logging anew if the plugin has been started anew since. Raises what `start` raises."""
        if not self.closed and not self._lock.locked():
            async with self._lock:
                await self._reading()

    async def close(self) -> None:
        """See `LogSink.close`: StopLogging, close the FIFO, unlink. Raises what `PluginPeer.call` raises."""
        if self.closed:
            return
        self.closed = True
        fifo = self._fifo
        try:
            if fifo is None:
                return
            if fifo.is_read:
                # Docker's own plugins close their end at once when they are told to stop.
                with contextlib.suppress(TimeoutError, BrokenPipeError):
                    async with asyncio.timeout(CLOSE_WAIT):
                        await fifo.emptied()
            arguments = {"File": self._path(fifo)}
            await self._peer.call("LogDriver.StopLogging", arguments, Nothing, deadline=STOP_DEADLINE)
        finally:
            self._drop()

    async def _reading(self) -> Fifo:
        """The FIFO, with the plugin at its other end."""
        fifo = self._fifo
        forgotten = self._incarnation != self._peer.incarnation()
        if fifo is None or forgotten or (not fifo.is_read and (self._seen or self._late())):
            self._drop()
            fifo = await self.start()
        while not fifo.is_read:
            # Some open it a moment after they have answered.
            if self.closed or self._late():
                raise Unavailable(self._unread(f"has not opened the log's FIFO within {OPEN_PATIENCE:g} s"))
            await asyncio.sleep(0.01)
        self._seen = True
        return fifo

    def _late(self) -> bool:
        return asyncio.get_running_loop().time() - self._started > OPEN_PATIENCE

    def _drop(self) -> None:
        """Let go of the FIFO; what was read of it is not sent again."""
        fifo, self._fifo = self._fifo, None
        if fifo is not None:
            self._batch.done += fifo.read
            fifo.discard()

    def _path(self, fifo: Fifo) -> str:
        return f"{self._peer.shared_folder()[1]}/{fifo.name}"

    def _unread(self, what: str) -> str:
        return f"plugin {self._peer.name!r} {what}: has it died, or failed at StartLogging?"

"""Log plugins in a process of their own: Docker's LogDriver 1.0 as a log driver.

Calls: Capabilities, StartLogging{File, Info}, StopLogging{File}, ReadLogs{Info, Config}. Entries go through a FIFO, and
come back from ReadLogs, in the format of `plugin_sdk.logwire`. Source: Docker's "Docker log driver plugins" and, where the
two differ, moby's daemon/logger/{plugin,proxy,adapter}.go.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from plugin_sdk import DriverSpec, EngineError, PluginError, Wire
from plugin_sdk.aio import blocking
from plugin_sdk.containers import ContainerRecord
from plugin_sdk.logbatch import Batch
from plugin_sdk.logoptions import check_common
from plugin_sdk.logs import LogDriver, LogEntry, LogInfo, LogQuery
from plugin_sdk.logwire import Decoder, Encoder, WireError
from plugin_sdk.managed import InterfaceAdapter, PluginPeer
from plugin_sdk.times import NEVER, format_ns

from .fifo import sweep
from .remote_sink import RemoteSink

INTERFACE = "docker.logdriver/1.0"
CAPABILITIES_DEADLINE = 5.0
READ_DEADLINE = 30.0
"""Seconds within which the answer to ReadLogs begins."""
REVIVE_DEADLINE = 5.0

log = logging.getLogger("engine.logging")


class _Can(Wire):
    ReadLogs: bool = False


class _Capabilities(Wire):
    """Docker's documentation has `ReadLogs` at the top, its code in `Cap`."""

    Cap: _Can = _Can()
    ReadLogs: bool = False


class RemoteLogs(InterfaceAdapter):
    """See `plugin_sdk.managed.InterfaceAdapter`."""

    legacy = "LogDriver"

    def __init__(self) -> None:
        self._drivers: dict[str, RemoteDriver] = {}
        self._batches: dict[str, Batch[bytes]] = {}

    async def connect(self, peer: PluginPeer) -> Sequence[DriverSpec]:
        """The plugin's log driver."""
        shared, _ = peer.shared_folder()
        left = await blocking(sweep, shared, {name for driver in self._drivers.values() for name in driver.fifos()})
        if left:
            log.info("plugin %r: removed %d FIFOs of an earlier daemon", peer.name, left)
        driver = RemoteDriver(peer, await _can_read(peer), self._batches)
        self._drivers[peer.name] = driver
        return [DriverSpec(LogDriver, peer.name, driver)]

    async def disconnect(self, peer: PluginPeer) -> None:
        """StopLogging for what is open."""
        driver = self._drivers.pop(peer.name, None)
        if driver is not None:
            await driver.close()


async def _can_read(peer: PluginPeer) -> bool:
    try:
        told = await peer.call("LogDriver.Capabilities", None, _Capabilities, deadline=CAPABILITIES_DEADLINE)
    except EngineError as error:
        log.info("plugin %r is taken for one that cannot read logs back: %s", peer.name, error)
        return False
    return told.Cap.ReadLogs or told.ReadLogs


class RemoteDriver:
    """Fulfils `plugin_sdk.logs.LogDriver` for one plugin.

    Args:
        batches: by container, what was on its way when a sink was closed; shared with the drivers that come later.
    """

    def __init__(self, peer: PluginPeer, readable: bool, batches: dict[str, Batch[bytes]]) -> None:
        self.readable = readable
        self._peer = peer
        self._batches = batches
        self._sinks: dict[str, RemoteSink] = {}

    def fifos(self) -> list[str]:
        """Names of the FIFOs in use."""
        return [sink.fifo for sink in self._sinks.values() if sink.fifo]

    def validate(self, options: Mapping[str, str]) -> None:
        """See `LogDriver.validate`. The plugin gets its options with StartLogging, and may refuse them there."""
        check_common(options)

    def log_path(self, info: LogInfo) -> str:
        """See `LogDriver.log_path`."""
        return ""

    async def open(self, info: LogInfo) -> RemoteSink:
        """See `LogDriver.open`: StartLogging. Raises PluginRefusal with the plugin's words, and what stands in
        `PluginPeer.call`."""
        container = info.container.Id
        before = self._sinks.get(container)
        sink = RemoteSink(self._peer, facts_of(info), self._batches.setdefault(container, Batch(Encoder().encode)))
        self._sinks = {key: one for key, one in self._sinks.items() if not one.closed} | {container: sink}
        if before is not None:
            # They would send the same batch.
            await _closed(before)
        await sink.start()
        return sink

    async def read(self, info: LogInfo, query: LogQuery) -> AsyncIterator[Sequence[LogEntry]]:
        """See `LogDriver.read`. What the plugin answers beyond the query's bounds is left out.

        Raises:
            PluginError: it answered rubbish.
        """
        await self._revive(info.container.Id)
        arguments = {"Info": facts_of(info), "Config": _config(query)}
        decoder, tail = Decoder(), _Tail(query.tail)
        async with self._peer.stream("LogDriver.ReadLogs", arguments, deadline=READ_DEADLINE) as pieces:
            async for data in pieces:
                try:
                    entries = decoder.feed(data)
                except WireError as error:
                    raise self._rubbish(str(error)) from None
                late = query.until_ns > 0 and any(entry.time_ns > query.until_ns for entry in entries)
                if found := tail.take([entry for entry in entries if _wanted(entry, query)]):
                    yield found
                if late:
                    break
            else:
                if decoder.pending:
                    raise self._rubbish("its answer ends in the middle of a log entry")
        if found := tail.rest():
            yield found

    async def remove(self, info: LogInfo) -> None:
        """See `LogDriver.remove`. The protocol has no word for it: what the plugin keeps is its own affair."""
        self._batches.pop(info.container.Id, None)

    async def close(self) -> None:
        """The plugin stops: StopLogging for all."""
        sinks = [*self._sinks.values()]
        self._sinks.clear()
        await asyncio.gather(*(_closed(sink) for sink in sinks))

    async def _revive(self, container_id: str) -> None:
        """A plugin that was started anew may not know a container before it has heard StartLogging again."""
        sink = self._sinks.get(container_id)
        if sink is None:
            return
        try:
            async with asyncio.timeout(REVIVE_DEADLINE):
                await sink.revive()
        except (EngineError, TimeoutError) as error:
            log.debug("container %s: %s", container_id[:12], error)

    def _rubbish(self, what: str) -> PluginError:
        return PluginError(self._peer.name, "LogDriver.ReadLogs", f"answered rubbish: {what}")


async def _closed(sink: RemoteSink) -> None:
    try:
        await sink.close()
    except EngineError as error:
        log.warning("%s", error)


class _Tail:
    """Keeps the last lines; below 0 all go straight through."""

    def __init__(self, lines: int) -> None:
        self._lines = lines
        self._kept: deque[LogEntry] = deque()
        self._ends = 0

    def take(self, entries: list[LogEntry]) -> list[LogEntry]:
        """What need not wait for the end."""
        if self._lines < 0:
            return entries
        for entry in entries:
            self._kept.append(entry)
            self._ends += not entry.partial
            while self._ends + self._kept[-1].partial > self._lines:
                self._ends -= not self._kept.popleft().partial
                if not self._kept:
                    break
        return []

    def rest(self) -> list[LogEntry]:
        """The last lines."""
        return [*self._kept]


def _wanted(entry: LogEntry, query: LogQuery) -> bool:
    return entry.time_ns >= query.since_ns and (query.until_ns <= 0 or entry.time_ns <= query.until_ns)


def _config(query: LogQuery) -> dict[str, Any]:
    def moment(time_ns: int) -> str:
        return format_ns(time_ns) if time_ns > 0 else NEVER

    return {
        "Since": moment(query.since_ns),
        "Until": moment(query.until_ns),
        "Tail": query.tail if query.tail >= 0 else -1,
        "Follow": False,
    }


def facts_of(info: LogInfo) -> dict[str, Any]:
    """`Info` of StartLogging and ReadLogs."""
    container: ContainerRecord = info.container
    return {
        "Config": dict(info.options),
        "ContainerID": container.Id,
        "ContainerName": f"/{container.Name}",
        "ContainerEntrypoint": container.Path,
        "ContainerArgs": list(container.Args),
        "ContainerImageID": container.ImageID,
        "ContainerImageName": container.ImageRef,
        "ContainerCreated": container.Created,
        "ContainerEnv": list(container.Config.Env),
        "ContainerLabels": dict(container.Config.Labels),
        "LogPath": "",
        "DaemonName": info.daemon_name,
    }

"""LogDriver 1.0. Sources: moby, daemon/logger/{plugin,adapter,proxy}.go, where the field names differ from Docker's page."""

from __future__ import annotations

import asyncio
import os
import re
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kernel.contracts.common import Wire
from kernel.contracts.container_config import ContainerConfig, HostConfig, LogChoice
from kernel.contracts.containers import ContainerRecord
from kernel.contracts.logs import LogEntry, LogInfo, LogQuery
from kernel.errors import Conflict, EngineError, InvalidParameter, NotSupported
from plugin_sdk.logwire import Encoder
from plugin_sdk.serving.dispatch import Interface, Method, Nothing, Stream
from plugin_sdk.serving.pump import Follower, Pump, open_fifo
from plugin_sdk.times import parse_ns

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z")


class _Info(Wire):
    Config: dict[str, str] = {}
    ContainerID: str = ""
    ContainerName: str = ""
    ContainerEntrypoint: str = ""
    ContainerArgs: list[str] = []
    ContainerImageID: str = ""
    ContainerImageName: str = ""
    ContainerCreated: str = ""
    ContainerEnv: list[str] = []
    ContainerLabels: dict[str, str] = {}
    LogPath: str = ""
    DaemonName: str = ""


class _Start(Wire):
    File: str
    Info: _Info


class _Stop(Wire):
    File: str


class _Config(Wire):
    Since: str = ""
    Until: str = ""
    Tail: int = -1
    Follow: bool = False


class _Read(Wire):
    Info: _Info
    # No default that is true: pydantic would take the field for settings of the model.
    Config: _Config | None = None


class LogInterface(Interface):
    """Serves a `LogDriver`."""

    type = "docker.logdriver/1.0"
    legacy = "LogDriver"

    def __init__(self, driver: Any, folder: Path) -> None:
        super().__init__(driver, folder)
        self._pumps: dict[str, Pump] = {}
        self._containers: dict[str, str] = {}
        self._starting: set[str] = set()

    def methods(self) -> Mapping[str, Method | Stream]:
        """See `Interface.methods`."""
        return {
            "LogDriver.Capabilities": Method(self._capabilities),
            "LogDriver.StartLogging": Method(self._start, _Start),
            "LogDriver.StopLogging": Method(self._stop, _Stop),
            "LogDriver.ReadLogs": Stream(self._read, _Read),
        }

    async def close(self) -> None:
        """See `Interface.close`: what is in the FIFOs is written; the engine starts their logs anew."""
        pumps, self._pumps = list(self._pumps.values()), {}
        results = await asyncio.gather(*(pump.stop() for pump in pumps), return_exceptions=True)
        if failures := [str(result) for result in results if isinstance(result, Exception)]:
            raise EngineError("; ".join(failures))

    async def _capabilities(self, _: Nothing) -> Mapping[str, Any]:
        return {"Cap": {"ReadLogs": bool(self.driver.readable)}}

    async def _start(self, asked: _Start) -> Mapping[str, Any]:
        if asked.File in self._pumps or asked.File in self._starting:
            raise Conflict(f"the log in {asked.File} has already been started")
        info = self._info(asked.Info)
        self.driver.validate(info.options)
        self._starting.add(asked.File)
        try:
            descriptor = await asyncio.to_thread(self._prepare, info, Path(asked.File))
            try:
                sink = await self.driver.open(info)
            except BaseException:
                os.close(descriptor)
                raise
            self._pumps[asked.File] = Pump(descriptor, sink, info.container.Id[:12])
        finally:
            self._starting.discard(asked.File)
        self._containers[info.container.Id] = asked.File
        return {}

    def _prepare(self, info: LogInfo, fifo: Path) -> int:
        info.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return open_fifo(fifo)

    async def _stop(self, asked: _Stop) -> Mapping[str, Any]:
        pump = self._pumps.pop(asked.File, None)
        self._containers = {key: file for key, file in self._containers.items() if file != asked.File}
        if pump is not None:
            await pump.stop()
        return {}

    def _info(self, told: _Info) -> LogInfo:
        """The wire's facts as the contract has them; what the wire does not tell is empty."""
        if not _ID.match(told.ContainerID):
            raise InvalidParameter(f"{told.ContainerID!r} is no container's ID")
        container = ContainerRecord(
            Id=told.ContainerID,
            Name=told.ContainerName.lstrip("/"),
            Created=told.ContainerCreated,
            ImageID=told.ContainerImageID,
            ImageRef=told.ContainerImageName,
            Driver="",
            Runtime="",
            Path=told.ContainerEntrypoint,
            Args=told.ContainerArgs,
            Config=ContainerConfig(Image=told.ContainerImageName, Env=told.ContainerEnv, Labels=told.ContainerLabels),
            HostConfig=HostConfig(LogConfig=LogChoice(Config=told.Config)),
            LogPath=told.LogPath,
        )
        folder = self.folder / "logs" / told.ContainerID
        return LogInfo(container, told.Config, folder, told.DaemonName or "docker")

    async def _read(self, asked: _Read) -> AsyncIterator[bytes]:
        if not self.driver.readable:
            raise NotSupported("this log driver does not support reading")
        info, query = self._info(asked.Info), _query(asked.Config or _Config())
        pump = self._pumps.get(self._containers.get(info.container.Id, "")) if query.follow else None
        follower = pump.follow() if pump else None
        encoder = Encoder(line_end=True)
        try:
            # Those at the end of the history that the follower may have been given, too.
            last: deque[LogEntry] = deque(maxlen=10_000)
            async for batch in self.driver.read(info, query):
                last.extend(batch if follower else ())
                yield b"".join(encoder.encode(batch))
            yield b""
            if follower:
                async for batch in _news(follower, last):
                    if query.until_ns:
                        batch = [entry for entry in batch if entry.time_ns <= query.until_ns]
                        if not batch:
                            return
                    yield b"".join(encoder.encode(batch))
        finally:
            if pump and follower:
                pump.leave(follower)


def _query(config: _Config) -> LogQuery:
    return LogQuery(
        since_ns=_moment(config.Since), until_ns=_moment(config.Until), tail=max(config.Tail, -1), follow=config.Follow
    )


def _moment(text: str) -> int:
    """Go's zero time, and any other before the epoch, is no bound."""
    return max(0, parse_ns(text)) if text else 0


async def _news(follower: Follower, history: Sequence[LogEntry]) -> AsyncIterator[Sequence[LogEntry]]:
    """What the follower gets, without what the history already had.

    The follower began before the history was read, so a part of its first batches may be the history's end.
    """
    waiting: list[LogEntry] = []
    ended = False
    while not ended and not follower.batches.empty():
        batch = follower.batches.get_nowait()
        ended = batch is None
        waiting.extend(batch or ())
    seen = [_key(entry) for entry in history]
    fresh = [_key(entry) for entry in waiting]
    both = next((n for n in range(min(len(seen), len(fresh)), 0, -1) if seen[-n:] == fresh[:n]), 0)
    yield waiting[both:]
    while not ended and not (follower.lost and follower.batches.empty()):
        batch = await follower.batches.get()
        ended = batch is None
        if batch:
            yield batch


def _key(entry: LogEntry) -> tuple[int, int, bytes]:
    return entry.time_ns, entry.stream, entry.line

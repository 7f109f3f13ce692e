"""Log drivers, and the service that reads logs back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from kernel.contracts.containers import ContainerRecord


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line, or a piece of a long one.

    Attributes:
        time_ns: nanoseconds since the epoch.
        stream: 1 standard output, 2 standard error.
        line: bytes without the line's end.
        partial: no line end follows; the next entry of the stream goes on.
        attributes: shown by `docker logs --details`.
    """

    time_ns: int
    stream: int
    line: bytes
    partial: bool = False
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LogInfo:
    """What a driver is told of the container whose log it keeps.

    Attributes:
        folder: the container's own folder under the data root, for drivers that write files.
        options: `--log-opt`.
    """

    container: ContainerRecord
    options: Mapping[str, str]
    folder: Path
    daemon_name: str = "docker"


@dataclass(frozen=True, slots=True)
class LogQuery:
    """What to read: times in nanoseconds (0: no bound), tail in lines (-1: all)."""

    stdout: bool = True
    stderr: bool = True
    since_ns: int = 0
    until_ns: int = 0
    tail: int = -1
    follow: bool = False


class LogSink(Protocol):
    """An open log. Calls come one after the other."""

    async def write(self, entries: Sequence[LogEntry]) -> None:
        """Take the entries; when it returns they need not be offered again, also after a crash."""

    async def close(self) -> None:
        """Flush and let go."""


class LogDriver(Protocol):
    """Where logs go. An unreachable sink must raise or wait, never drop in silence: the entries stay buffered, the
    container is not slowed down, and `write` is tried again."""

    readable: bool
    """`read` works."""

    def validate(self, options: Mapping[str, str]) -> None:
        """Raises InvalidParameter, naming the option: `unknown log opt 'x' for json-file log driver`."""

    def log_path(self, info: LogInfo) -> str:
        """`LogPath` of inspect; "" without a file."""

    async def open(self, info: LogInfo) -> LogSink:
        """Begin or, after a restart, go on.

        Called when a container starts: an EngineError other than Unavailable and PluginError refuses that start. With
        those two the container starts, its output is buffered, and the opening is tried again.
        """

    def read(self, info: LogInfo, query: LogQuery) -> AsyncIterator[Sequence[LogEntry]]:
        """Entries in order, in batches, from what was written; ends at the end (following is the caller's work).

        `query.follow` is not looked at. Only called when `readable`.
        """

    async def remove(self, info: LogInfo) -> None:
        """The container is gone: drop its log; nothing there is fine."""


class Logs(Protocol):
    """Service: the logs of containers, whatever their driver."""

    def read(self, container: ContainerRecord, query: LogQuery) -> AsyncIterator[Sequence[LogEntry]]:
        """With `query.follow`, goes on until the container ends or the iterator is closed.

        Raises NotSupported ("configured logging driver does not support reading").
        """

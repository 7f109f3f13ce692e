"""The drivers "local" and "none"."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from plugin_sdk import InvalidParameter, NotSupported
from plugin_sdk.logoptions import check_common, check_names
from plugin_sdk.logs import LogEntry, LogInfo, LogQuery

from .options import limits


class Discard:
    """A sink for drivers that keep nothing themselves."""

    async def write(self, entries: Sequence[LogEntry]) -> None:
        """See `LogSink.write`."""

    async def close(self) -> None:
        """See `LogSink.close`."""


class NoneDriver:
    """The driver "none": output that nobody is attached to is dropped."""

    readable = False

    def validate(self, options: Mapping[str, str]) -> None:
        """See `LogDriver.validate`."""
        if options:
            raise InvalidParameter("invalid logging opts for driver none")

    def log_path(self, info: LogInfo) -> str:
        """See `LogDriver.log_path`."""
        return ""

    async def open(self, info: LogInfo) -> Discard:
        """See `LogDriver.open`."""
        return Discard()

    def read(self, info: LogInfo, query: LogQuery) -> AsyncIterator[Sequence[LogEntry]]:
        """See `LogDriver.read`: the engine reads its own buffer, if there is one."""
        raise NotSupported("configured logging driver does not support reading")

    async def remove(self, info: LogInfo) -> None:
        """See `LogDriver.remove`."""


class LocalDriver(NoneDriver):
    """The driver "local": the monitor's own files are the log, kept up to `max-size` times `max-file` bytes.

    Nothing is converted and nothing copied: the format is the monitor's (see `batch`), the files are the segments of
    the container's buffer (see `spool`), and the engine reads that buffer as it does for any driver that cannot read.
    """

    buffered = True
    """The buffer is the log: there is nothing to pump."""

    def validate(self, options: Mapping[str, str]) -> None:
        """See `LogDriver.validate`."""
        check_names(options, ("max-size", "max-file", "compress"), "unknown log opt '{}' for log driver local")
        check_common(options)
        limits(options, default_files=5)

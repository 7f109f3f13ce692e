"""What the drivers have in common: the driver's frame, and a sink that sends records over a link."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import ClassVar

from plugin_sdk import EngineError, NotSupported
from plugin_sdk.aio import blocking
from plugin_sdk.logbatch import Batch
from plugin_sdk.logoptions import check_attributes, check_names
from plugin_sdk.logs import LogEntry, LogInfo, LogQuery, LogSink
from plugin_sdk.logwire import Piece, Pieces

from .links import Link, Progress

FEW = 50
"""Entries that are encoded, and compressed, on the event loop; more of them go to a thread."""

Encode = Callable[[LogEntry, Piece | None], bytes]
"""Makes a record of an entry; the piece says where it stands in a line that was cut."""


class LinkSink:
    """Fulfils `plugin_sdk.logs.LogSink`: each entry is a record, sent over the link.

    Args:
        batch: what became of earlier offers; outlives the sink.
    """

    def __init__(self, link: Link, batch: Batch[bytes]) -> None:
        self.link = link
        self._batch = batch

    async def write(self, entries: Sequence[LogEntry]) -> None:
        """See `LogSink.write`. Raises Unavailable; what was sent is not sent again."""
        if len(entries) > FEW:
            await blocking(self._batch.offer, entries)
        else:
            self._batch.offer(entries)
        progress = Progress()
        try:
            await self.link.send(self._batch.waiting, progress)
        except BaseException:
            self._batch.done += progress.sent
            raise
        self._batch.clear()

    async def close(self) -> None:
        """See `LogSink.close`."""
        await self.link.close()


class ShippingDriver:
    """The frame of a `plugin_sdk.logs.LogDriver` that sends. Extend `check` and `open`.

    Attributes:
        options: names that `--log-opt` may have.
        unknown: the refusal of any other, with `{}` for the name.
    """

    readable = False
    name: ClassVar[str]
    options: ClassVar[tuple[str, ...]]
    unknown: ClassVar[str] = "unknown log opt '{{}}' for {name} log driver"

    def __init__(self) -> None:
        self._batches: dict[str, Batch[bytes]] = {}

    def validate(self, options: Mapping[str, str]) -> None:
        """See `LogDriver.validate`."""
        check_names(options, self.options, self.unknown.format(name=self.name))
        check_attributes(options)
        self.check(options)

    def check(self, options: Mapping[str, str]) -> None:
        """Check the options' values. Raises InvalidParameter."""

    def log_path(self, info: LogInfo) -> str:
        """See `LogDriver.log_path`."""
        return ""

    async def open(self, info: LogInfo) -> LogSink:
        """See `LogDriver.open`."""
        raise NotImplementedError

    def read(self, info: LogInfo, query: LogQuery) -> AsyncIterator[Sequence[LogEntry]]:
        """See `LogDriver.read`: the engine reads its own buffer."""
        raise NotSupported("configured logging driver does not support reading")

    async def remove(self, info: LogInfo) -> None:
        """See `LogDriver.remove`: what was sent stays where it is."""
        self._batches.pop(info.container.Id, None)

    def close(self) -> None:
        """The plugin stops; sinks are closed by those who opened them."""

    def batch(self, info: LogInfo, encode: Encode) -> Batch[bytes]:
        """What is under way of a container's log."""
        pieces = Pieces()

        def encoded(entries: Sequence[LogEntry]) -> list[bytes]:
            return [encode(entry, pieces.place(entry)) for entry in entries]

        batch = self._batches.setdefault(info.container.Id, Batch(encoded))
        batch.encode = encoded
        return batch

    async def linked(self, info: LogInfo, link: Link, encode: Encode, *, connect: bool = True) -> LinkSink:
        """A sink over a link, which is connected first if `connect`. Raises what `Link.connect` raises."""
        if connect:
            try:
                await link.connect()
            except EngineError:
                await link.close()
                raise
        return LinkSink(link, self.batch(info, encode))


def text(line: bytes) -> str:
    """A line for receivers of Unicode alone: what is no UTF-8 becomes U+FFFD, as with Docker."""
    return line.decode(errors="replace")


def partial_fields(piece: Piece) -> dict[str, str]:
    """What tells a receiver of fields how the pieces of a long line go together, in Docker's words."""
    return {
        "partial_message": "true",
        "partial_id": piece.id,
        "partial_ordinal": str(piece.ordinal),
        "partial_last": "true" if piece.last else "false",
    }

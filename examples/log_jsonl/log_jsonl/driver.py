"""The log driver "jsonl".

A container's log is `<folder>/log.jsonl`, with `log.1.jsonl` before it once `max-size` was reached:

    {"ns": 1767323045123456789, "fd": 1, "text": "hello"}
    {"ns": 1767323045123456790, "fd": 2, "text": "a piece", "more": true}
    {"ns": 1767323045123456791, "fd": 1, "base64": "/w=="}

A line that is no UTF-8 is kept as base64: no byte is lost. A line of the file that a crash cut off is taken away when the log is
opened again: the engine offers those entries once more, since `write` had not returned.
"""

from __future__ import annotations

import base64
import json
import os
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from plugin_sdk import EngineError, InvalidParameter
from plugin_sdk.aio import blocking
from plugin_sdk.files import parse_size
from plugin_sdk.logs import LogEntry, LogInfo, LogQuery

NAME = "log.jsonl"
OLDER = "log.1.jsonl"
OPTIONS = ("max-size", "fsync")
BATCH = 500
"""Entries that are read at a time."""


class JsonLines:
    """Fulfils `plugin_sdk.logs.LogDriver`."""

    readable = True

    def validate(self, options: Mapping[str, str]) -> None:
        """See `LogDriver.validate`."""
        for name in options:
            if name not in OPTIONS:
                raise InvalidParameter(f"unknown log opt '{name}' for jsonl log driver")
        _limit(options)
        _fsync(options)

    def log_path(self, info: LogInfo) -> str:
        """See `LogDriver.log_path`."""
        return str(info.folder / NAME)

    async def open(self, info: LogInfo) -> Sink:
        """See `LogDriver.open`."""
        return await blocking(Sink, info.folder, _limit(info.options), _fsync(info.options))

    async def read(self, info: LogInfo, query: LogQuery) -> AsyncIterator[Sequence[LogEntry]]:
        """See `LogDriver.read`."""
        entries = _chosen(info.folder, query)
        while batch := await blocking(_some, entries):
            yield batch

    async def remove(self, info: LogInfo) -> None:
        """See `LogDriver.remove`."""
        for name in (NAME, OLDER):
            await blocking((info.folder / name).unlink, missing_ok=True)


class Sink:
    """An open log; fulfils `plugin_sdk.logs.LogSink`. The constructor blocks.

    Args:
        limit: bytes after which the file is begun anew; 0: never.
        fsync: a returned `write` has reached the disk.
    """

    def __init__(self, folder: Path, limit: int, fsync: bool) -> None:
        self._folder, self._limit, self._fsync = folder, limit, fsync
        self._descriptor = -1
        self._open()

    def _open(self) -> None:
        self._folder.mkdir(mode=0o710, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(self._folder / NAME, flags, 0o640)
        self._size = _whole(self._descriptor)
        os.ftruncate(self._descriptor, self._size)

    async def write(self, entries: Sequence[LogEntry]) -> None:
        """See `LogSink.write`."""
        await blocking(self._write, b"".join(map(_line, entries)))

    def _write(self, data: bytes) -> None:
        try:
            if self._limit and self._size and self._size + len(data) > self._limit:
                os.close(self._descriptor)
                os.replace(self._folder / NAME, self._folder / OLDER)
                self._open()
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]
            if self._fsync:
                os.fsync(self._descriptor)
        except OSError as error:
            # All or nothing: the same entries are offered again.
            os.ftruncate(self._descriptor, self._size)
            raise EngineError(f"log driver jsonl cannot write to {self._folder / NAME}: {error.strerror}") from error
        self._size += len(data)

    async def close(self) -> None:
        """See `LogSink.close`."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _limit(options: Mapping[str, str]) -> int:
    return parse_size(options["max-size"]) if "max-size" in options else 0


def _fsync(options: Mapping[str, str]) -> bool:
    text = options.get("fsync", "false")
    if text not in ("true", "false"):
        raise InvalidParameter(f"log opt 'fsync' of jsonl must be true or false, not {text!r}")
    return text == "true"


def _line(entry: LogEntry) -> bytes:
    row: dict[str, Any] = {"ns": entry.time_ns, "fd": entry.stream}
    try:
        row["text"] = entry.line.decode()
    except UnicodeDecodeError:
        row["base64"] = base64.b64encode(entry.line).decode()
    if entry.partial:
        row["more"] = True
    if entry.attributes:
        row["attributes"] = dict(entry.attributes)
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def _entry(line: bytes) -> LogEntry:
    row = json.loads(line)
    data = base64.b64decode(row["base64"]) if "base64" in row else row["text"].encode()
    return LogEntry(row["ns"], row["fd"], data, row.get("more", False), row.get("attributes", {}))


def _whole(descriptor: int) -> int:
    """Where the last whole line of a file ends."""
    end = os.fstat(descriptor).st_size
    while end:
        start = max(0, end - 65536)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _lines(folder: Path) -> Iterator[bytes]:
    for name in (OLDER, NAME):
        try:
            with (folder / name).open("rb") as file:
                yield from (line for line in file if line.endswith(b"\n"))
        except FileNotFoundError:
            continue


def _chosen(folder: Path, query: LogQuery) -> Iterator[LogEntry]:
    entries = (
        entry
        for entry in map(_entry, _lines(folder))
        if (query.stdout if entry.stream == 1 else query.stderr)
        and entry.time_ns >= query.since_ns
        and (not query.until_ns or entry.time_ns <= query.until_ns)
    )
    return iter(deque(entries, maxlen=query.tail)) if query.tail >= 0 else entries


def _some(entries: Iterator[LogEntry]) -> list[LogEntry]:
    return list(islice(entries, BATCH))

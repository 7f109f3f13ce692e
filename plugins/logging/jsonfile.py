"""The driver "json-file": Docker's own files, one JSON object a line, rotated by size."""

from __future__ import annotations

import gzip
import os
import re
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from zlib import crc32

import orjson

from plugin_sdk.aio import blocking
from plugin_sdk.logoptions import ATTRIBUTES, check_attributes, check_common, check_names
from plugin_sdk.logs import LogEntry, LogInfo, LogQuery

from . import history
from .batch import stamp_of, to_entries
from .encoding import encode
from .options import Limits, attributes, limits

_OWN = ("max-file", "max-size", *ATTRIBUTES, "compress", "tag")
_MARK = re.compile(r"(\d+):(\d+):(\d+)")
_CHECKED = 256
"""Bytes at the end that a mark has a checksum of."""


def path_of(info: LogInfo) -> Path:
    """The present file of a container's log."""
    return info.folder / f"{info.container.Id}-json.log"


class JsonFileDriver:
    """Fulfils `plugin_sdk.logs.LogDriver`; its sinks take the monitor's lines as they are."""

    readable = True
    raw = True
    """The sinks' `append` takes the monitor's lines."""

    def validate(self, options: Mapping[str, str]) -> None:
        """See `LogDriver.validate`."""
        check_names(options, _OWN, "unknown log opt '{}' for json-file log driver")
        check_common(options)
        check_attributes(options)
        limits(options)

    def log_path(self, info: LogInfo) -> str:
        """See `LogDriver.log_path`."""
        return str(path_of(info))

    async def open(self, info: LogInfo) -> JsonFileSink:
        """See `LogDriver.open`."""
        return JsonFileSink(path_of(info), limits(info.options), attributes(info))

    async def read(self, info: LogInfo, query: LogQuery) -> AsyncIterator[Sequence[LogEntry]]:
        """See `LogDriver.read`."""
        pieces = await blocking(history.json_pieces, path_of(info))
        since = stamp_of(query.since_ns) if query.since_ns else b""
        until = stamp_of(query.until_ns) if query.until_ns else b""
        try:
            await blocking(history.cut, pieces, tail=query.tail, since=since)
            batches = history.read(pieces, since=since, until=until)
            while (batch := await blocking(next, batches, None)) is not None:
                entries = to_entries(batch, {})
                yield [entry for entry in entries if (query.stdout, query.stderr)[entry.stream - 1]]
        finally:
            for piece in pieces:
                piece.close()

    async def remove(self, info: LogInfo) -> None:
        """See `LogDriver.remove`."""
        await blocking(_remove, path_of(info))


def _remove(path: Path) -> None:
    for other in path.parent.glob(f"{path.name}*"):
        other.unlink(missing_ok=True)


class JsonFileSink:
    """An open json-file log. `append` and `recover` block."""

    def __init__(self, path: Path, bounds: Limits, extra: Mapping[str, str]) -> None:
        self._path = path
        self._bounds = bounds
        # Behind "stream", as Docker's own writer puts them.
        self._attributes = b',"attrs":' + orjson.dumps(dict(extra)) if extra else b""
        self._descriptor = -1
        self._inode = 0
        self._size = 0
        self._rotated: list[Path] = []

    @property
    def capacity(self) -> int:
        """Bytes that the files hold together; 0: no bound."""
        return self._bounds.total

    @property
    def mark(self) -> str:
        """How far the log is written: `inode:size:checksum` of the present file, see `_checksum`."""
        return f"{self._inode}:{self._size}:{_checksum(self._descriptor, self._size)}"

    def append(self, block: bytes) -> None:
        """Write whole lines of the monitor's format."""
        self._write(encode(block, self._attributes))

    async def write(self, entries: Sequence[LogEntry]) -> None:
        """See `LogSink.write`."""
        await blocking(self._write, b"".join(map(_encoded, entries)))

    async def close(self) -> None:
        """See `LogSink.close`."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, data: bytes) -> None:
        self._ready()
        rest = memoryview(data)
        while rest:
            room = self._bounds.size - self._size
            if not self._bounds.size or len(rest) <= room:
                cut = len(rest)
            else:
                begin = len(data) - len(rest)
                # Only the end of a row is a bare line end: within one, it is escaped.
                cut = data.rfind(b"\n", begin, begin + max(0, room)) + 1 - begin
                if cut <= 0 and self._size:
                    self._rotate()
                    continue
                if cut <= 0:
                    cut = data.index(b"\n", begin) + 1 - begin
            self._put(rest[:cut])
            rest = rest[cut:]

    def _put(self, data: memoryview) -> None:
        while data:
            written = os.write(self._descriptor, data)
            self._size += written
            data = data[written:]

    def _ready(self) -> None:
        """Have the file open, also after somebody has moved, removed or emptied it."""
        if self._descriptor >= 0:
            try:
                there = os.stat(self._path).st_ino == self._inode
            except FileNotFoundError:
                there = False
            if not there:
                os.close(self._descriptor)
                self._descriptor = -1
        if self._descriptor < 0:
            self._path.parent.mkdir(mode=0o710, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o640)
        facts = os.fstat(self._descriptor)
        self._inode, self._size = facts.st_ino, facts.st_size

    def _number(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _rotate(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1
        files = self._bounds.files
        for path in (self._number(files - 1), self._number(files - 1).with_name(f"{self._path.name}.{files - 1}.gz")):
            path.unlink(missing_ok=True)
        for number in range(files - 2, 0, -1):
            for suffix in ("", ".gz"):
                old = self._number(number)
                old = old.with_name(old.name + suffix)
                if old.exists():
                    os.rename(old, self._number(number + 1).with_name(self._number(number + 1).name + suffix))
        if files > 1:
            os.rename(self._path, self._number(1))
        else:
            self._path.unlink(missing_ok=True)
        self._ready()

    def tidy(self) -> None:
        """Compress what was rotated, when that is asked for. Long, and to be called while nothing is written."""
        if not self._bounds.compress:
            return
        for number in range(1, self._bounds.files):
            plain = self._number(number)
            if plain.exists():
                _compress(plain)

    def recover(self, mark: str) -> None:
        """Take back what was written after `mark`: the lines will come again."""
        found = _MARK.fullmatch(mark)
        if found is None:
            return
        inode, size, checksum = map(int, found.groups())
        paths = [self._number(number) if number else self._path for number in range(self._bounds.files)]
        there = [path for path in paths if path.exists()]
        for path in there:
            if _is_marked(path, inode, size, checksum):
                os.truncate(path, size)
                for later in there[: there.index(path)]:
                    later.unlink()
                if path != self._path:
                    os.rename(path, self._path)
                return
        if there == paths:
            # The marked file itself was rotated away: all of these are younger.
            for path in there:
                path.unlink()


def _is_marked(path: Path, inode: int, size: int, checksum: int) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        facts = os.fstat(descriptor)
        return facts.st_ino == inode and facts.st_size >= size and _checksum(descriptor, size) == checksum
    finally:
        os.close(descriptor)


def _checksum(descriptor: int, size: int) -> int:
    """Of the last bytes before `size`: numbers of inodes are given again to new files."""
    begin = max(0, size - _CHECKED)
    return crc32(os.pread(descriptor, size - begin, begin)) if descriptor >= 0 else 0


def _compress(plain: Path) -> None:
    packed = plain.with_name(f"{plain.name}.gz")
    temporary = plain.with_name(f"{plain.name}.gz.tmp")
    facts = plain.stat()
    with plain.open("rb") as source, gzip.open(temporary, "wb", compresslevel=6) as target:
        shutil.copyfileobj(source, target, 1 << 20)
    os.chmod(temporary, facts.st_mode & 0o777)
    os.replace(temporary, packed)
    plain.unlink()


def _encoded(entry: LogEntry) -> bytes:
    text = entry.line.decode(errors="replace") + ("" if entry.partial else "\n")
    row: dict[str, object] = {"log": text, "stream": "stderr" if entry.stream == 2 else "stdout"}
    if entry.attributes:
        row["attrs"] = dict(entry.attributes)
    row["time"] = stamp_of(entry.time_ns).decode() + "Z"
    return orjson.dumps(row) + b"\n"

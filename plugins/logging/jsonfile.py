"""The driver "json-file": Docker's own files, one JSON object a line, rotated by size."""

from __future__ import annotations

import gzip
import os
import shutil
from bisect import bisect_right
from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import orjson

from plugin_sdk.aio import blocking
from plugin_sdk.logoptions import ATTRIBUTES, check_attributes, check_common, check_names
from plugin_sdk.logs import LogEntry, LogInfo, LogQuery

from . import history
from .batch import PREFIX, stamp_of, to_entries, utc
from .options import Limits, attributes, limits

_OWN = ("max-file", "max-size", *ATTRIBUTES, "compress", "tag")
_CONTROLS = bytes(code for code in range(0x20) if code != 0x0A)
_ESCAPES = {b"\t": b"\\t", b"\r": b"\\r", b"\b": b"\\b", b"\f": b"\\f"}


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
        """How far the log is written: `inode:size`."""
        return f"{self._inode}:{self._size}"

    def append(self, lines: list[bytes]) -> None:
        """Write lines of the monitor's format, joined."""
        self._write(encode(lines, self._attributes))

    async def write(self, entries: Sequence[LogEntry]) -> None:
        """See `LogSink.write`."""
        await blocking(self._write, [_encoded(entry) for entry in entries])

    async def close(self) -> None:
        """See `LogSink.close`."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, lines: list[bytes]) -> None:
        self._ready()
        if not self._bounds.size:
            self._put(lines)
            return
        ends = list(accumulate(map(len, lines)))
        done = 0
        while done < len(lines):
            before = ends[done - 1] if done else 0
            fit = bisect_right(ends, before + self._bounds.size - self._size)
            if fit <= done:
                if self._size:
                    self._rotate()
                    continue
                fit = done + 1
            self._put(lines[done:fit])
            done = fit

    def _put(self, lines: list[bytes]) -> None:
        data = memoryview(b"".join(lines))
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
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
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
        inode_text, _, size_text = mark.partition(":")
        if not size_text.isdigit() or not inode_text.isdigit():
            return
        inode, size = int(inode_text), int(size_text)
        for number in range(self._bounds.files):
            path = self._number(number) if number else self._path
            try:
                facts = os.stat(path)
            except FileNotFoundError:
                continue
            if facts.st_ino == inode:
                if facts.st_size > size:
                    os.truncate(path, size)
                for later in range(number):
                    (self._number(later) if later else self._path).unlink(missing_ok=True)
                if number:
                    os.rename(path, self._path)
                return


def _compress(plain: Path) -> None:
    packed = plain.with_name(f"{plain.name}.gz")
    temporary = plain.with_name(f"{plain.name}.gz.tmp")
    facts = plain.stat()
    with plain.open("rb") as source, gzip.open(temporary, "wb", compresslevel=6) as target:
        shutil.copyfileobj(source, target, 1 << 20)
    os.chmod(temporary, facts.st_mode & 0o777)
    os.replace(temporary, packed)
    plain.unlink()


def encode(lines: list[bytes], extra: bytes) -> list[bytes]:
    """Lines of the monitor's format as json-file's, each with its line end."""
    lines = _escaped(lines)
    tails = {prefix: _tail(prefix, extra) for prefix in {line[:PREFIX] for line in lines}}
    return [b'{"log":"' + line[PREFIX:] + tails[line[:PREFIX]] for line in lines]


def _tail(prefix: bytes, extra: bytes) -> bytes:
    end = b'\\n"' if prefix[43:44] == b"F" else b'"'
    try:
        stamp = utc(prefix[:35])
    except ValueError:
        stamp = b"1970-01-01T00:00:00.000000000"
    return end + b',"stream":"' + prefix[36:42] + b'"' + extra + b',"time":"' + stamp + b'Z"}\n'


def _escaped(lines: list[bytes]) -> list[bytes]:
    text = b"\n".join(lines)
    changed = False
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError:
            text, changed = text.decode(errors="replace").encode(), True
    for plain, escape in ((b"\\", b"\\\\"), (b'"', b'\\"')):
        if plain in text:
            text, changed = text.replace(plain, escape), True
    if len(text.translate(None, _CONTROLS)) != len(text):
        changed = True
        for plain, escape in _ESCAPES.items():
            text = text.replace(plain, escape)
        for code in _CONTROLS:
            text = text.replace(bytes([code]), b"\\u%04x" % code)
    return text.split(b"\n") if changed else lines


def _encoded(entry: LogEntry) -> bytes:
    text = entry.line.decode(errors="replace") + ("" if entry.partial else "\n")
    row: dict[str, object] = {"log": text, "stream": "stderr" if entry.stream == 2 else "stdout"}
    if entry.attributes:
        row["attrs"] = dict(entry.attributes)
    row["time"] = stamp_of(entry.time_ns).decode() + "Z"
    return orjson.dumps(row) + b"\n"

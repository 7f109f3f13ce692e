"""What a managed plugin's process writes: kept by its monitor in a file, told to the daemon's log, read by `plugin logs`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from kernel.contracts.logs import LogEntry

MAX_SIZE = 8 << 20
"""Bytes after which the monitor begins the file anew."""
LOOK_SECONDS = 0.25
"""How often the file is looked at while somebody follows it."""
PIECE = 1 << 20

_LEVELS = {"debug": 10, "trace": 10, "info": 20, "warn": 30, "warning": 30, "error": 40, "fatal": 50, "panic": 50}
_LOGFMT = re.compile(r'\b(?:level|lvl)="?([A-Za-z]+)')

log = logging.getLogger("engine.plugin")


class Tail:
    """Reads a file that grows, and that may begin anew. Blocking."""

    def __init__(self, path: Path, *, at_end: bool) -> None:
        self._path = path
        self._inode = self._offset = 0
        self._rest = b""
        if at_end and path.exists():
            status = path.stat()
            self._inode, self._offset = status.st_ino, status.st_size

    def read(self) -> list[LogEntry]:
        """What has come since the last call, a piece at most."""
        try:
            with self._path.open("rb") as file:
                status = self._path.stat()
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self._inode, self._offset, self._rest = status.st_ino, 0, b""
                file.seek(self._offset)
                data = file.read(PIECE)
        except FileNotFoundError:
            return []
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return list(_entries(lines))


def _entries(lines: Sequence[bytes]) -> Iterator[LogEntry]:
    """Lines of the CRI log format: `TIME STREAM P|F TEXT`."""
    for line in lines:
        parts = line.split(b" ", 3)
        if len(parts) < 3:
            continue
        try:
            moment = datetime.fromisoformat(parts[0].decode()[:26] + parts[0].decode()[29:])
            nanoseconds = int(moment.timestamp() * 1_000_000) * 1000
        except ValueError:
            continue
        text = parts[3] if len(parts) > 3 else b""
        yield LogEntry(nanoseconds, 2 if parts[1] == b"stderr" else 1, text, partial=parts[2] == b"P")


def last(path: Path, count: int) -> list[LogEntry]:
    """The newest entries, all when `count` is negative. Blocking."""
    tail, found = Tail(path, at_end=False), deque[LogEntry](maxlen=count if count >= 0 else None)
    while entries := tail.read():
        found.extend(entries)
    return list(found)


def last_words(path: Path, count: int = 10) -> str:
    """The newest lines as one text, for error messages. Blocking."""
    return "\n".join(entry.line.decode(errors="replace") for entry in last(path, count))


async def follow(path: Path, *, count: int) -> AsyncIterator[Sequence[LogEntry]]:
    """The newest entries, then what comes; never ends by itself."""
    tail = Tail(path, at_end=True)
    past = await asyncio.to_thread(last, path, count)
    if past:
        yield past
    while True:
        entries = await asyncio.to_thread(tail.read)
        if entries:
            yield entries
        else:
            await asyncio.sleep(LOOK_SECONDS)


class Teller:
    """Hands what comes to the daemon's log, under the plugin's name and with the level that a line itself states.

    Args:
        at_end: what the file holds already was told before.
    """

    def __init__(self, path: Path, name: str, *, at_end: bool) -> None:
        self._tail, self._name = Tail(path, at_end=at_end), name
        self._over = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=f"output of plugin {name}")

    async def _run(self) -> None:
        # Never cancelled: what a thread has read would be lost with it.
        while not self._over.is_set():
            if not await self._tell():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._over.wait()
        while await self._tell():
            pass

    async def _tell(self) -> int:
        entries = await asyncio.to_thread(self._tail.read)
        for entry in entries:
            text = entry.line.decode(errors="replace")
            log.log(level(text), "%s: %s", self._name, text)
        return len(entries)

    async def close(self) -> None:
        """Tell what is left, and end."""
        self._over.set()
        await self._task


def level(text: str) -> int:
    """The level of a line that is JSON or logfmt; else that of information."""
    told = ""
    if text.startswith("{"):
        try:
            document = json.loads(text)
            told = str(document.get("level", "")) if isinstance(document, dict) else ""
        except ValueError:
            told = ""
    elif found := _LOGFMT.search(text[:512]):
        told = found[1]
    return _LEVELS.get(told.lower(), logging.INFO)

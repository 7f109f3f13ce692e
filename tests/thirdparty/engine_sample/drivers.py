"""The log driver and the volume driver, both named `sample`."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine_sample.modes import Modes
from plugin_sdk import InvalidParameter, NotFound
from plugin_sdk.logs import LogEntry, LogInfo, LogQuery
from plugin_sdk.volumes import DriverVolume


class SampleSink:
    """Appends one JSON array per entry."""

    def __init__(self, path: Path, modes: Modes) -> None:
        self._path = path
        self._modes = modes

    async def write(self, entries: Sequence[LogEntry]) -> None:
        await self._modes.obey("log")
        lines = [json.dumps([e.time_ns, e.stream, e.line.decode(errors="replace"), e.partial]) + "\n" for e in entries]
        with self._path.open("a") as file:
            file.writelines(lines)

    async def close(self) -> None:
        return None


class SampleLog:
    """Keeps the log in a file of its own format."""

    readable = True

    def __init__(self, modes: Modes) -> None:
        self._modes = modes

    def validate(self, options: Mapping[str, str]) -> None:
        for name in options:
            if name != "colour":
                raise InvalidParameter(f"unknown log opt '{name}' for sample log driver")

    def log_path(self, info: LogInfo) -> str:
        return str(self._path(info))

    async def open(self, info: LogInfo) -> Any:
        if await self._modes.obey("log"):
            return "rubbish"
        info.folder.mkdir(parents=True, exist_ok=True)
        return SampleSink(self._path(info), self._modes)

    async def read(self, info: LogInfo, query: LogQuery) -> AsyncIterator[Sequence[LogEntry]]:
        path = self._path(info)
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        wanted = {1: query.stdout, 2: query.stderr}
        entries = [LogEntry(at, stream, line.encode(), partial) for at, stream, line, partial in rows if wanted[stream]]
        yield entries if query.tail < 0 else entries[len(entries) - query.tail :]

    async def remove(self, info: LogInfo) -> None:
        self._path(info).unlink(missing_ok=True)

    @staticmethod
    def _path(info: LogInfo) -> Path:
        return info.folder / "sample.log"


class SampleVolumes:
    """A folder for each volume."""

    def __init__(self, root: Path, modes: Modes) -> None:
        self._root = root
        self._modes = modes

    async def create(self, name: str, options: Mapping[str, str]) -> None:
        await self._modes.obey("volume")
        (self._root / name).mkdir(parents=True, exist_ok=True)

    async def remove(self, name: str) -> None:
        await self._modes.obey("volume")
        shutil.rmtree(self._root / name, ignore_errors=True)

    async def mount(self, name: str, request: str) -> Any:
        if await self._modes.obey("volume"):
            return 42
        return str(self._root / name)

    async def unmount(self, name: str, request: str) -> None:
        await self._modes.obey("volume")

    async def path(self, name: str) -> str:
        return str(self._root / name)

    async def get(self, name: str) -> DriverVolume:
        if not (self._root / name).is_dir():
            raise NotFound(f"get {name}: no such volume")
        return DriverVolume(name, str(self._root / name))

    async def list(self) -> Any:
        if await self._modes.obey("volume"):
            return {"not": "a list"}
        names = sorted(path.name for path in self._root.iterdir()) if self._root.exists() else []
        return [DriverVolume(name, str(self._root / name)) for name in names]

    def scope(self) -> str:
        return "local"

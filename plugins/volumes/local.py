"""The driver "local": a folder per volume, or whatever `type`, `o` and `device` mount over it."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import ParamSpec, TypeVar

from plugin_sdk import EngineError, InvalidParameter, NotFound, sysmount
from plugin_sdk.files import write_atomic
from plugin_sdk.text import NAME
from plugin_sdk.times import format_ns
from plugin_sdk.volumes import DriverVolume

P = ParamSpec("P")
T = TypeVar("T")

DATA = "_data"
OPTIONS = "opts.json"
_NEEDS = {"device": ("type",), "type": ("device",), "o": ("device", "type")}
_TRASH = ".removed-"


def check_name(name: str) -> None:
    """Raises InvalidParameter, in Docker's words."""
    if len(name) == 1:
        raise InvalidParameter("volume name is too short, names should be at least two alphanumeric characters")
    if not NAME.match(name):
        raise InvalidParameter(
            f'"{name}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are '
            f"allowed. If you intended to pass a host directory, use absolute path"
        )


def check_options(options: Mapping[str, str]) -> None:
    """Raises InvalidParameter, naming the option."""
    for option in options:
        if option not in _NEEDS:
            raise InvalidParameter(f'invalid option: "{option}"')
    for option in options:
        for needed in _NEEDS[option]:
            if needed not in options:
                raise InvalidParameter(f'missing required option: "{needed}"')


class LocalDriver:
    """Fulfils `plugin_sdk.volumes.VolumeDriver`.

    A volume is `<root>/<name>/_data`, with its options in `opts.json` beside it. Mount counts live in memory; after a
    restart of the daemon `resume` is told which requests still hold.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._requests: dict[str, set[str]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        # Of its own: a mount of a dead server may hang for minutes, and must not take the engine's threads.
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="volume-local")

    def resume(self, name: str, request: str) -> None:
        """A mount made before the daemon's restart still holds."""
        self._requests.setdefault(name, set()).add(request)

    def clean(self) -> None:
        """Remove what a killed daemon had begun to remove. Blocking."""
        for folder in self._root.glob(f"{_TRASH}*"):
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def data(self, name: str) -> Path:
        """Where a volume's content is."""
        return self._root / name / DATA

    def options(self, name: str) -> dict[str, str]:
        """A volume's options. Raises NotFound. Blocking, and short."""
        try:
            stored: dict[str, str] = json.loads((self._root / name / OPTIONS).read_bytes())
        except FileNotFoundError:
            if not self.data(name).is_dir():
                raise NotFound(f"get {name}: no such volume") from None
            return {}
        except ValueError as error:
            raise EngineError(f"the options of volume {name} cannot be read: {error}") from None
        return stored

    async def create(self, name: str, options: Mapping[str, str]) -> None:
        """See `VolumeDriver.create`."""
        check_name(name)
        check_options(options)
        await self._run(self._create, name, dict(options))

    def _create(self, name: str, options: dict[str, str]) -> None:
        folder = self._root / name
        folder.mkdir(mode=0o701, parents=True, exist_ok=True)
        if options:
            write_atomic(folder / OPTIONS, json.dumps(options).encode())
        (folder / DATA).mkdir(mode=0o755, exist_ok=True)

    async def remove(self, name: str) -> None:
        """See `VolumeDriver.remove`."""
        if not NAME.match(name):
            return
        async with self._lock(name):
            self._requests.pop(name, None)
            await self._run(self._remove, name)

    def _remove(self, name: str) -> None:
        folder = self._root / name
        if not folder.exists():
            return
        self._unmount(name)
        trash = self._root / f"{_TRASH}{secrets.token_hex(8)}"
        os.rename(folder, trash)
        shutil.rmtree(trash)

    async def mount(self, name: str, request: str) -> str:
        """See `VolumeDriver.mount`."""
        async with self._lock(name):
            await self._run(self._mount, name)
            self._requests.setdefault(name, set()).add(request)
        return str(self.data(name))

    def _mount(self, name: str) -> None:
        options = self.options(name)
        target = str(self.data(name))
        if not options or sysmount.mounted(target):
            return
        device, fstype = options.get("device", ""), options.get("type", "")
        words = _with_address(fstype, options.get("o", ""))
        try:
            sysmount.mount_with_options(device, target, fstype, words)
        except OSError as error:
            raise EngineError(
                f"error while mounting volume '{target}': failed to mount local volume: mount {device}:{target}"
                f"{_shown(words)}: {(error.strerror or str(error)).lower()}"
            ) from None

    async def unmount(self, name: str, request: str) -> None:
        """See `VolumeDriver.unmount`."""
        async with self._lock(name):
            held = self._requests.get(name, set())
            held.discard(request)
            if not held:
                self._requests.pop(name, None)
                await self._run(self._unmount, name)

    def _unmount(self, name: str) -> None:
        with suppress(NotFound):
            if self.options(name):
                sysmount.unmount(str(self.data(name)))

    async def path(self, name: str) -> str:
        """See `VolumeDriver.path`."""
        return str(self.data(name))

    async def get(self, name: str) -> DriverVolume:
        """See `VolumeDriver.get`."""
        return await self._run(self._get, name)

    def _get(self, name: str) -> DriverVolume:
        try:
            born = (self._root / name).stat().st_ctime_ns
        except OSError:
            raise NotFound(f"get {name}: no such volume") from None
        return DriverVolume(name, str(self.data(name)), format_ns(born))

    async def list(self) -> Sequence[DriverVolume]:
        """See `VolumeDriver.list`."""
        return await self._run(lambda: [self._get(name) for name in self._names()])

    def _names(self) -> Iterable[str]:
        return sorted(entry.name for entry in os.scandir(self._root) if entry.is_dir() and NAME.match(entry.name))

    def scope(self) -> str:
        """See `VolumeDriver.scope`."""
        return "local"

    async def usage(self, name: str) -> int:
        """Bytes on disk of a volume's content."""
        return await self._run(_size, str(self.data(name)))

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    async def _run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: function(*args, **kwargs))


def _shown(words: str) -> str:
    kept = ["password=****" if word.startswith(("password=", "pass=")) else word for word in words.split(",")]
    return f", data: {','.join(kept)}" if words else ""


def _with_address(fstype: str, words: str) -> str:
    # The kernel's NFS and CIFS want an address where people write a host name.
    if not fstype.startswith(("nfs", "cifs")):
        return words
    options = words.split(",")
    for position, option in enumerate(options):
        if option.startswith("addr="):
            host = option.removeprefix("addr=")
            try:
                found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            except OSError as error:
                raise EngineError(f"error resolving passed in network volume address {host}: {error}") from None
            options[position] = f"addr={found[0][4][0]}"
    return ",".join(options)


def _size(path: str) -> int:
    total, seen = 0, set()
    for folder, _, files in os.walk(path):
        for name in files:
            with suppress(OSError):
                facts = os.lstat(os.path.join(folder, name))
                if facts.st_nlink > 1:
                    if facts.st_ino in seen:
                        continue
                    seen.add(facts.st_ino)
                total += facts.st_size
    return total

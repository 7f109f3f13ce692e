"""Volumes as folders."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from plugin_sdk import Conflict, InvalidParameter, NotFound
from plugin_sdk.aio import blocking
from plugin_sdk.text import NAME
from plugin_sdk.times import format_ns
from plugin_sdk.volumes import DriverVolume, VolumeDriver


class VolumePython(VolumeDriver):
    """A folder for each volume, with the permissions of the option `mode` (octal; 755 if not given)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._requests: dict[str, set[str]] = {}

    async def create(self, name: str, options: Mapping[str, str]) -> None:
        """See `VolumeDriver.create`."""
        if unknown := sorted(set(options) - {"mode"}):
            raise InvalidParameter(f"unknown option {unknown[0]!r}; there is: mode")
        try:
            mode = int(options.get("mode", "755"), 8)
        except ValueError:
            raise InvalidParameter(f"option mode: {options['mode']!r} is not octal") from None
        await blocking(self._create, self._path(name), mode)

    def _create(self, path: Path, mode: int) -> None:
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)

    async def remove(self, name: str) -> None:
        """See `VolumeDriver.remove`."""
        if self._requests.get(name):
            raise Conflict(f"volume {name} is mounted")
        await blocking(self._remove, self._path(name))

    def _remove(self, path: Path) -> None:
        if path.exists():
            # First out of the way, so that a crash leaves no half of a volume.
            trash = path.with_name(f".removed-{secrets.token_hex(8)}")
            os.rename(path, trash)
            shutil.rmtree(trash)

    async def mount(self, name: str, request: str) -> str:
        """See `VolumeDriver.mount`."""
        volume = await self.get(name)
        self._requests.setdefault(name, set()).add(request)
        return volume.mountpoint

    async def unmount(self, name: str, request: str) -> None:
        """See `VolumeDriver.unmount`."""
        self._requests.get(name, set()).discard(request)

    async def path(self, name: str) -> str:
        """See `VolumeDriver.path`."""
        return (await self.get(name)).mountpoint

    async def get(self, name: str) -> DriverVolume:
        """See `VolumeDriver.get`."""
        return await blocking(self._get, name)

    def _get(self, name: str) -> DriverVolume:
        path = self._path(name)
        try:
            made = path.stat().st_ctime_ns
        except FileNotFoundError:
            raise NotFound(f"get {name}: no such volume") from None
        return DriverVolume(name, str(path), format_ns(made))

    async def list(self) -> Sequence[DriverVolume]:
        """See `VolumeDriver.list`."""
        return await blocking(self._list)

    def _list(self) -> Sequence[DriverVolume]:
        if not self._folder.exists():
            return []
        return [self._get(path.name) for path in sorted(self._folder.iterdir()) if NAME.match(path.name)]

    def scope(self) -> str:
        """See `VolumeDriver.scope`."""
        return "local"

    def _path(self, name: str) -> Path:
        if not NAME.match(name):
            raise InvalidParameter(f"{name!r} is no name for a volume")
        return self._folder / name

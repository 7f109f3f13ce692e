"""VolumeDriver 1.0. Source of the protocol: Docker's "Docker volume plugins"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kernel.contracts.common import Wire
from kernel.contracts.volumes import DriverVolume
from plugin_sdk.serving.dispatch import Interface, Method, Nothing, expect

_LONG = 120.0
"""Seconds for Create and Mount, as in the contract and in Docker."""


class _Named(Wire):
    Name: str


class _Create(_Named):
    Opts: dict[str, str] = {}


class _Request(_Named):
    ID: str = ""


class VolumeInterface(Interface):
    """Serves a `VolumeDriver`."""

    type = "docker.volumedriver/1.0"
    legacy = "VolumeDriver"

    def methods(self) -> Mapping[str, Method]:
        """See `Interface.methods`."""
        return {
            "VolumeDriver.Capabilities": Method(self._capabilities),
            "VolumeDriver.Create": Method(self._create, _Create, _LONG),
            "VolumeDriver.Remove": Method(self._remove, _Named),
            "VolumeDriver.Mount": Method(self._mount, _Request, _LONG),
            "VolumeDriver.Unmount": Method(self._unmount, _Request),
            "VolumeDriver.Path": Method(self._path, _Named),
            "VolumeDriver.Get": Method(self._get, _Named),
            "VolumeDriver.List": Method(self._list),
        }

    async def _capabilities(self, _: Nothing) -> Mapping[str, Any]:
        return {"Capabilities": {"Scope": self.driver.scope()}}

    async def _create(self, asked: _Create) -> Mapping[str, Any]:
        await self.driver.create(asked.Name, asked.Opts)
        return {}

    async def _remove(self, asked: _Named) -> Mapping[str, Any]:
        await self.driver.remove(asked.Name)
        return {}

    async def _mount(self, asked: _Request) -> Mapping[str, Any]:
        return {"Mountpoint": expect(await self.driver.mount(asked.Name, asked.ID), str, "mount")}

    async def _unmount(self, asked: _Request) -> Mapping[str, Any]:
        await self.driver.unmount(asked.Name, asked.ID)
        return {}

    async def _path(self, asked: _Named) -> Mapping[str, Any]:
        return {"Mountpoint": expect(await self.driver.path(asked.Name), str, "path")}

    async def _get(self, asked: _Named) -> Mapping[str, Any]:
        return {"Volume": _shown(await self.driver.get(asked.Name), "get")}

    async def _list(self, _: Nothing) -> Mapping[str, Any]:
        volumes = expect(await self.driver.list(), Sequence, "list")
        return {"Volumes": [_shown(volume, "an element of list") for volume in volumes]}


def _shown(volume: Any, what: str) -> dict[str, Any]:
    expect(volume, DriverVolume, what)
    shown: dict[str, Any] = {"Name": volume.name, "Mountpoint": volume.mountpoint, "Status": dict(volume.status)}
    # Docker's decoder fails on an empty time.
    return shown | ({"CreatedAt": volume.created_at} if volume.created_at else {})

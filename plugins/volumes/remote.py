"""Volume drivers in a process of their own: VolumeDriver 1.0 over a plugin's socket.

Source of the protocol facts: Docker's "Docker volume plugins", and what its engine and plugins in use really send.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import field_validator

from plugin_sdk import (
    DriverSpec,
    EngineError,
    InvalidParameter,
    NotFound,
    NotSupported,
    PluginError,
    PluginRefusal,
    Unavailable,
    Wire,
)
from plugin_sdk.managed import InterfaceAdapter, PluginPeer
from plugin_sdk.times import parse_ns
from plugin_sdk.volumes import DriverVolume, VolumeDriver

INTERFACE = "docker.volumedriver/1.0"
LONG_DEADLINE = 120.0
"""Seconds for Create and Mount, as Docker has it: they may attach a disk, or wait for a server."""
DEADLINE = 60.0
CAPABILITIES_DEADLINE = 10.0
"""Less than an adapter has to connect: a plugin that does not tell its scope is taken for a local one, and not refused."""

log = logging.getLogger("engine.volumes")

R = TypeVar("R", bound=Wire)


class Nothing(Wire):
    """A reply that says no more than that it worked."""


class Mounted(Wire):
    """Reply of Mount and Path."""

    Mountpoint: str = ""


class ToldVolume(Wire):
    """A volume in the replies of Get and List. What is only shown to people is taken as far as it makes sense."""

    Name: str = ""
    Mountpoint: str = ""
    CreatedAt: str = ""
    Status: dict[str, Any] = {}

    @field_validator("CreatedAt", mode="before")
    @classmethod
    def _time(cls, told: Any) -> str:
        if not isinstance(told, str) or not told:
            return ""
        try:
            parse_ns(told)
        except InvalidParameter:
            return ""
        return told

    @field_validator("Status", mode="before")
    @classmethod
    def _status(cls, told: Any) -> dict[str, Any]:
        return {str(key): value for key, value in told.items()} if isinstance(told, dict) else {}


class Got(Wire):
    """Reply of Get."""

    Volume: ToldVolume | None = None


class Listed(Wire):
    """Reply of List."""

    Volumes: list[ToldVolume] = []

    @field_validator("Volumes", mode="before")
    @classmethod
    def _volumes(cls, told: Any) -> Any:
        return [volume for volume in told if volume is not None] if isinstance(told, list) else told


class Capability(Wire):
    """See `Capabilities`."""

    Scope: str = ""


class Capabilities(Wire):
    """Reply of Capabilities."""

    Capabilities: Capability = Capability()


class VolumeInterface(InterfaceAdapter):
    """Makes the volume drivers of plugins on sockets."""

    legacy = "VolumeDriver"

    async def connect(self, peer: PluginPeer) -> Sequence[DriverSpec]:
        """See `InterfaceAdapter.connect`. Asks for the scope, once."""
        return [DriverSpec(VolumeDriver, peer.name, RemoteDriver(peer, await _scope(peer)))]


async def _scope(peer: PluginPeer) -> str:
    try:
        reply = await peer.call("VolumeDriver.Capabilities", None, Capabilities, deadline=CAPABILITIES_DEADLINE)
    except NotSupported:
        return "local"
    except EngineError as error:
        log.warning("%s; its volumes are taken for local ones", error)
        return "local"
    scope = reply.Capabilities.Scope.lower()
    if scope not in ("", "local", "global"):
        log.warning("plugin %r: VolumeDriver.Capabilities: unknown scope %r is taken for local", peer.name, scope[:80])
    return "global" if scope == "global" else "local"


class RemoteDriver:
    """One plugin's driver; fulfils `plugin_sdk.volumes.VolumeDriver`.

    Every error names the plugin and the call. A refusal in the plugin's own words is a `PluginRefusal`, but where the words
    say that there is no such volume.
    """

    def __init__(self, peer: PluginPeer, scope: str) -> None:
        self._peer = peer
        self._scope = scope

    async def create(self, name: str, options: Mapping[str, str]) -> None:
        """See `VolumeDriver.create`. What the plugin has already is not made again: as Docker, which asks first."""
        try:
            await self.get(name)
            return
        except Unavailable:
            raise
        except EngineError as error:
            log.debug("volume %s is to be made: %s", name, error)
        await self._call("Create", {"Name": name, "Opts": dict(options)}, Nothing, LONG_DEADLINE)

    async def remove(self, name: str) -> None:
        """See `VolumeDriver.remove`."""
        try:
            await self._call("Remove", {"Name": name}, Nothing)
        except PluginRefusal as refusal:
            if not says_no_such_volume(refusal.text, name):
                raise

    async def mount(self, name: str, request: str) -> str:
        """See `VolumeDriver.mount`. Raises PluginError for a mount point that is none, or leads out of the plugin."""
        told = await self._call("Mount", {"Name": name, "ID": request}, Mounted, LONG_DEADLINE)
        if not told.Mountpoint.startswith("/"):
            reason = f"want an absolute path, got {told.Mountpoint[:200]!r}"
            raise PluginError(self._peer.name, "VolumeDriver.Mount", f"gave no mount point for volume {name}: {reason}")
        return await self._on_host(told.Mountpoint, "Mount", name)

    async def unmount(self, name: str, request: str) -> None:
        """See `VolumeDriver.unmount`."""
        await self._call("Unmount", {"Name": name, "ID": request}, Nothing)

    async def path(self, name: str) -> str:
        """See `VolumeDriver.path`."""
        told = await self._call("Path", {"Name": name}, Mounted)
        return await self._on_host(told.Mountpoint, "Path", name)

    async def get(self, name: str) -> DriverVolume:
        """See `VolumeDriver.get`."""
        try:
            told = await self._call("Get", {"Name": name}, Got)
        except PluginRefusal as refusal:
            if says_no_such_volume(refusal.text, name):
                raise NotFound(f"get {name}: no such volume: {refusal}") from None
            raise
        # Neither volume nor error is how many plugins say it.
        if told.Volume is None:
            raise NotFound(f"get {name}: no such volume: plugin {self._peer.name!r} knows none of that name")
        return await self._volume(told.Volume, name, "Get")

    async def list(self) -> Sequence[DriverVolume]:
        """See `VolumeDriver.list`. Plugins older than this call have none to tell of."""
        try:
            told = await self._call("List", None, Listed)
        except NotSupported:
            return []
        return [await self._shown(volume) for volume in told.Volumes if volume.Name]

    def scope(self) -> str:
        """See `VolumeDriver.scope`."""
        return self._scope

    async def _call(
        self, method: str, arguments: Mapping[str, Any] | None, reply: type[R], deadline: float = DEADLINE
    ) -> R:
        return await self._peer.call(f"VolumeDriver.{method}", arguments, reply, deadline=deadline)

    async def _on_host(self, path: str, method: str, name: str) -> str:
        """ "" stays so: a volume that is mounted nowhere."""
        if not path:
            return ""
        try:
            return await self._peer.host_path(path)
        except PluginError as error:
            reason = f"the mount point of volume {name}: {error.reason}"
            raise PluginError(self._peer.name, f"VolumeDriver.{method}", reason) from None

    async def _volume(self, told: ToldVolume, name: str, method: str) -> DriverVolume:
        return DriverVolume(name, await self._on_host(told.Mountpoint, method, name), told.CreatedAt, told.Status)

    async def _shown(self, told: ToldVolume) -> DriverVolume:
        try:
            return await self._volume(told, told.Name, "List")
        except EngineError as error:
            # One bad entry must not hide the others; Mount is where it matters, and refuses it.
            return DriverVolume(told.Name, "", told.CreatedAt, {**told.Status, "Error": str(error)})


_ABSENT = r"(?:is |was |could |can )?(?:not (?:be )?found|(?:does|did) ?n[o']t exist|not exist)"
_ITSELF = r"(?<!\bfor )(?<!\bof )(?<!\bon )(?<!\bin )"
"""Not the host for the volume, nor the key of it."""


def says_no_such_volume(text: str, name: str) -> bool:
    """Whether a plugin's refusal says that it has no volume of that name.

    The protocol has no code for it, and plugins say it in their own words. Only what speaks of the volume itself counts: the
    server, a key or a mount point that is "not found" is a failure, and must not look as if the volume were gone.
    """
    named = rf"[\"'`]?{re.escape(name.lower())}[\"'`]?"
    text = text.lower().replace("doesn't", "does not").replace("didn't", "did not")
    patterns = (
        rf"\bno such volume\b|\bunknown volume\b|\bno volume (?:named|called|with|found|{named})",
        rf"{_ITSELF}\bvolume:? (?:named |with name )?(?:[\"'`]?[\w./:-]+[\"'`]?:? )?{_ABSENT}",
        rf"(?:^|[:;,(] ?){named}:? {_ABSENT}",
        rf"\b(?:could not|cannot|can't|unable to|failed to) (?:find|locate) (?:the )?(?:docker )?(?:volume\b|{named}(?![\w/-]))",
        rf"\bnot found: (?:volume )?{named}(?![\w/-])",
    )
    return any(re.search(pattern, text) for pattern in patterns)

"""Plugins in a process of their own: managed ones (`config.json` + `rootfs`) and old-style ones (a socket in a folder).

Both speak Docker's plugin protocol: HTTP POST to `/<Interface>.<Method>`, JSON both ways. A subsystem contributes an
adapter for its interface (`engine_managed_interfaces`); the adapter turns a `PluginPeer` into ordinary drivers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeVar

from kernel.contracts.common import Wire

if TYPE_CHECKING:
    from kernel.contracts.plugin import DriverSpec
    from kernel.contracts.runtime import OciMount

W = TypeVar("W", bound=Wire)

REPLY_LIMIT = 4 << 20
"""Bytes of a reply that are read; a larger one is a failure of the plugin."""


class PluginPeer(Protocol):
    """A plugin on the other side of its socket.

    Attributes:
        name: what people call it, and the name that its drivers get: "me/volume:1.0", or "flocker" for an old-style one.
        interfaces: what it implements, lower case, for example "docker.volumedriver/1.0".
    """

    name: str
    interfaces: Sequence[str]

    async def call(self, method: str, arguments: Mapping[str, Any] | None, reply: type[W], *, deadline: float) -> W:
        """POST `/<method>` (for example "VolumeDriver.Mount"); gives the reply as a model.

        Args:
            arguments: sent as JSON; None sends an empty body. `bytes` values go as base64.
            reply: a Wire model: key case does not matter, unknown keys are ignored, an empty reply is an empty object.
            deadline: seconds for the whole call.

        Raises (every message names the plugin and the call):
            NotSupported: the plugin does not implement the method (404).
            EngineError: the plugin's own refusal: a status other than 200, or a non-empty `Err` or `Error`.
            DeadlineExceeded, Unavailable: it does not answer in time; it cannot be reached, or is cut off for a while
                because it could not several times in a row.
            PluginError: rubbish: not JSON, not of the reply's shape, or more than REPLY_LIMIT bytes.
        """

    def stream(
        self, method: str, arguments: Mapping[str, Any] | None, *, deadline: float
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Like `call`, for a reply that is a stream of bytes. `deadline` is for its beginning; what comes has none."""

    async def host_path(self, path: str) -> str:
        """Path on the host of a path that the plugin told (its propagated mount, its rootfs, or the path itself for an
        old-style plugin). Raises PluginError when it leads out of the plugin, through links too."""

    def shared_folder(self) -> tuple[Path, str]:
        """A folder that both see, for FIFOs and the like: (on the host, for the plugin). It lasts as long as the
        plugin runs, and may not exist yet."""


class InterfaceAdapter:
    """Turns plugins that implement one interface into drivers. Subclass it in the plugin that owns the capability.

    Attributes:
        legacy: the interface's name in old-style plugins' `Implements`, for example "VolumeDriver".
    """

    legacy: str = ""

    async def mounts(self) -> Sequence[OciMount]:
        """What a managed plugin of this interface must find in its container, besides what its config asks for."""
        return ()

    async def connect(self, peer: PluginPeer) -> Sequence[DriverSpec]:
        """The plugin answers on its socket: its drivers, named `peer.name`. They leave before the plugin stops.

        May call the plugin; an exception fails its `enable` with that message. For plugins that are called rather than
        chosen by name (authz, metrics) keep the peer and give no driver.
        """
        return ()

    async def disconnect(self, peer: PluginPeer) -> None:
        """The plugin is about to stop, or is gone: let go of the peer. Idempotent."""


class ManagedPlugin(Wire):
    """A managed plugin as stored.

    Attributes:
        Id: 64 hex digits.
        Name: reference "repo:tag".
        Config: its `config.json`, keys in the API's spelling, unknown ones kept.
        Settings: `{"Env", "Args", "Mounts", "Devices"}`, defaults filled in from the config.
    """

    Id: str
    Name: str
    Enabled: bool = False
    Config: dict[str, Any] = {}
    Settings: dict[str, Any] = {}
    PluginReference: str = ""
    Created: str = ""


class ManagedPlugins(Protocol):
    """Kernel service: the managed plugins. `ref` is a name, an ID, or a unique prefix of an ID."""

    def get(self, ref: str) -> ManagedPlugin:
        """Raises NotFound (`plugin "REF" not found`)."""

    def list(self) -> Sequence[ManagedPlugin]:
        """All; a snapshot."""

    async def create(self, name: str, archive: BinaryIO) -> ManagedPlugin:
        """From a tar with `config.json` and `rootfs/`. Raises InvalidParameter with the field's path, or Conflict."""

    async def peer(self, name: str, capability: str) -> PluginPeer:
        """The plugin of that name, on its socket: a managed one (waits while it is being started), or an old-style one,
        which is activated.

        Args:
            capability: what it must implement, for example "authz".

        Raises NotFound when there is none, or it is disabled, or it does not implement that; Unavailable.
        """

    async def remove(self, ref: str, *, force: bool = False) -> ManagedPlugin:
        """Raises Conflict while enabled and not forced."""

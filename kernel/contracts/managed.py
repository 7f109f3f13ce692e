"""Plugins in a process of their own: managed ones (`config.json` + `rootfs`) and old-style ones (a socket in a folder).

Both speak Docker's plugin protocol: HTTP POST to `/<Interface>.<Method>`, JSON both ways. A subsystem contributes an
adapter for its interface (`engine_managed_interfaces`); the adapter turns a `PluginPeer` into ordinary drivers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeVar

from kernel.contracts.common import Wire

if TYPE_CHECKING:
    from kernel.contracts.containers import ExecSpec
    from kernel.contracts.logs import LogEntry
    from kernel.contracts.plugin import DriverSpec
    from kernel.contracts.registry import Credentials
    from kernel.contracts.runtime import ExecProcess, OciMount

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

    def incarnation(self) -> str:
        """Another value than before: the plugin was started anew, and has forgotten what it was told."""

    def endpoint(self) -> str:
        """Where it listens: "unix:///path" or a URL, for protocols other than HTTP."""

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


@dataclass(frozen=True, slots=True)
class Privilege:
    """One thing that a plugin may do beyond an ordinary container: `PluginPrivilege` of the API."""

    name: str
    description: str
    value: tuple[str, ...]


class PluginLayer(Wire):
    """A layer of a plugin's root file system.

    Attributes:
        ChainID, DiffID: as storage drivers name layers.
        Digest, Size: of the blob in a registry; "" and 0 for one that was never there.
    """

    ChainID: str
    DiffID: str
    Digest: str = ""
    Size: int = 0


class ManagedPlugin(Wire):
    """A managed plugin as stored.

    Attributes:
        Id: 64 hex digits.
        Name: reference "repo:tag".
        Config: its `config.json`, keys in the API's spelling, unknown ones kept.
        Settings: `{"Env", "Args", "Mounts", "Devices"}`, defaults filled in from the config; no secrets.
        SecretNames: settings that are kept apart.
        PluginReference: where it came from, and would be upgraded from.
        ManifestDigest: of what was pulled or pushed last, or "".
        Driver: storage driver; it holds the writable layer named `Writable`, on the last of `Layers`.
        Timeout: seconds that a start may take until the plugin answers.
        Before: this document as it was before an upgrade that is not over yet.
    """

    Id: str
    Name: str
    Enabled: bool = False
    Config: dict[str, Any] = {}
    Settings: dict[str, Any] = {}
    SecretNames: list[str] = []
    PluginReference: str = ""
    ManifestDigest: str = ""
    Created: str = ""
    Driver: str = ""
    Layers: list[PluginLayer] = []
    Writable: str = ""
    Timeout: float = 30.0
    Before: dict[str, Any] = {}


class RunState(StrEnum):
    """Where a managed plugin's process stands."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class ManagedStatus:
    """What is known of a managed plugin at this moment.

    Attributes:
        restarts: how often it was started again after it had ended by itself, since the daemon's start.
        last_error: why it is not ready, or what went wrong last; "" when nothing did.
        failures: calls of it that failed since it was started.
        since: RFC 3339 time of the state's beginning.
    """

    state: RunState = RunState.STOPPED
    pid: int = 0
    restarts: int = 0
    last_error: str = ""
    failures: int = 0
    since: str = ""


@dataclass(frozen=True, slots=True)
class OldStylePlugin:
    """A plugin that lies in a folder; interfaces and error are empty while nobody has used it."""

    name: str
    address: str
    interfaces: Sequence[str] = ()
    last_error: str = ""


Report = Callable[[dict[str, Any]], Awaitable[None]]
"""Takes one progress message in the shape that the docker CLI shows."""


class ManagedPlugins(Protocol):
    """Kernel service: the plugins in a process of their own. `ref` is a name, an ID, or a unique prefix of an ID."""

    def get(self, ref: str) -> ManagedPlugin:
        """Raises NotFound (`plugin "REF" not found`)."""

    def list(self) -> Sequence[ManagedPlugin]:
        """All; a snapshot."""

    def status(self, ref: str) -> ManagedStatus:
        """Of its process."""

    def shown_settings(self, ref: str) -> dict[str, Any]:
        """Settings for inspect, secrets hidden."""

    async def old_style(self) -> Sequence[OldStylePlugin]:
        """The old-style plugins that lie in the folders."""

    async def create(self, name: str, archive: BinaryIO) -> ManagedPlugin:
        """From a tar with `config.json` and `rootfs/`. Raises InvalidParameter with the field's path, or Conflict."""

    async def privileges(self, reference: str, credentials: Credentials) -> Sequence[Privilege]:
        """What the plugin in a registry asks for. Raises what `contracts.registry.Repository` does."""

    async def install(
        self, reference: str, name: str, granted: Sequence[Privilege], credentials: Credentials, report: Report
    ) -> ManagedPlugin:
        """Pull it, disabled, as `name`. Raises Forbidden unless exactly its privileges are granted; Conflict."""

    async def upgrade(
        self, ref: str, reference: str, granted: Sequence[Privilege], credentials: Credentials, report: Report
    ) -> ManagedPlugin:
        """Replace config and root file system, keep settings. An enabled plugin is stopped, started anew, and put back as
        it was when the new one does not get ready. Raises Conflict while running containers use it."""

    async def push(self, ref: str, credentials: Credentials, report: Report) -> None:
        """To the registry of its name."""

    async def enable(self, ref: str, *, timeout: float = 0.0) -> None:
        """Start it, and at every start of the daemon. Returns when it answers.

        Args:
            timeout: seconds until it must answer, remembered; 0: 30.

        Raises Conflict when it is enabled; EngineError with its exit code and last output when it does not get ready.
        """

    async def disable(self, ref: str, *, force: bool = False) -> None:
        """Stop it. Raises Conflict, naming the holders, while it is in use and not forced."""

    async def set(self, ref: str, changes: Sequence[str]) -> None:
        """`NAME[.FIELD]=VALUE` each. Raises Conflict while it is enabled, InvalidParameter."""

    async def remove(self, ref: str, *, force: bool = False) -> ManagedPlugin:
        """Raises Conflict while it is enabled or in use, and not forced."""

    def logs(self, ref: str, *, tail: int = -1, follow: bool = False) -> AsyncIterator[Sequence[LogEntry]]:
        """What its process wrote, in batches; the newest `tail` lines (-1: all that is kept)."""

    async def exec(self, ref: str, spec: ExecSpec) -> ExecProcess:
        """A further process in a plugin that runs. Raises Conflict when it does not run."""

    async def pids(self, ref: str) -> Sequence[int]:
        """Host PIDs of its processes. Raises Conflict when it does not run."""

    async def save(self, ref: str, out: BinaryIO) -> None:
        """Write it as a tar that `load` reads (`plugin.json`, `config.json`, `rootfs/`); settings are not in it."""

    async def load(self, archive: BinaryIO) -> ManagedPlugin:
        """Create a plugin, under the name it had, from what `save` wrote."""

    async def peer(self, name: str, capability: str) -> PluginPeer:
        """The plugin of that name, on its socket: a managed one (waits while it is being started), or an old-style one,
        which is activated.

        Args:
            capability: what it must implement, for example "authz".

        Raises NotFound when there is none, or it is disabled, or it does not implement that; Unavailable.
        """

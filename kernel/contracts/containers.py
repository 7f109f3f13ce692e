"""Containers: their record, the draft of one, what a start prepares, and the service that owns them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

# A field may not carry its type's bare name: pydantic would take the default for the type.
from kernel.contracts import container_config as wire
from kernel.contracts.common import IdMap, Wire
from kernel.contracts.container_config import ContainerConfig, HostConfig, NetworkingConfig

if TYPE_CHECKING:
    from kernel.contracts.images import Image
    from kernel.contracts.runtime import LogTarget, OciMount, ProcessIO


class ContainerStatus(StrEnum):
    """A container's state, in the API's words."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"


class HealthResult(Wire):
    """One probe. Times are RFC 3339; ExitCode 0 is healthy, -1 means that the probe did not come to an end."""

    Start: str
    End: str
    ExitCode: int
    Output: str = ""


class Health(Wire):
    """What probes have told of a container.

    Attributes:
        Status: "starting", "healthy" or "unhealthy".
        FailingStreak: probes that failed one after the other.
        Log: the latest probes, the oldest first.
    """

    Status: str
    FailingStreak: int = 0
    Log: list[HealthResult] = []


class ContainerState(Wire):
    """State as stored. Times are RFC 3339 with nanoseconds; "" means never.

    Attributes:
        Starting: written before a start acts (the intent), cleared with its result: seen at restore, the start
            was cut off.
        StoppedByUser: stopped or killed through the API: "unless-stopped" then does not start it again.
        RemoveVolumes: with status "removing": the anonymous volumes go too.
        Health: a `Health`, written by `Containers.set_health`; None for a container that is not probed.
    """

    Status: ContainerStatus = ContainerStatus.CREATED
    Pid: int = 0
    ExitCode: int = 0
    Error: str = ""
    OOMKilled: bool = False
    StartedAt: str = ""
    FinishedAt: str = ""
    Starting: bool = False
    StoppedByUser: bool = False
    RemoveVolumes: bool = False
    Health: dict[str, Any] | None = None

    @property
    def running(self) -> bool:
        """It has processes: running or paused."""
        return self.Status in (ContainerStatus.RUNNING, ContainerStatus.PAUSED)


class MountPoint(Wire):
    """One mount of a container, as inspect shows it.

    Attributes:
        Type: "bind", "volume", "tmpfs", ...
        Name: the volume's name.
        Source: path on the host; for a volume the driver's mount point as last known.
        Driver: the volume's driver.
        Mode: the mode string of `-v`.
        Subpath, Options, Anonymous, NoCopy: facts for the owner of this type; not shown by the API.
    """

    Type: str
    Name: str = ""
    Source: str = ""
    Destination: str = ""
    Driver: str = ""
    Mode: str = ""
    RW: bool = True
    Propagation: str = ""
    Subpath: str = ""
    Options: dict[str, Any] = {}
    Anonymous: bool = False
    NoCopy: bool = False


class ContainerRecord(Wire):
    """A container as stored. Frozen; the containers plugin alone writes new versions.

    Attributes:
        Path, Args: the command that runs: entrypoint and cmd resolved.
        ImageID: "sha256:..." of the image.
        ImageRef: the reference that the client gave.
        ChainID: of the image's top layer, "" for an image without layers.
        Driver: storage driver; it holds the writable layer under the container's ID.
        Runtime: the runtime driver's name.
        Ids: of its user namespace, None for the host's; chosen when it is created, and its own from then on.
    """

    Id: str
    Name: str
    Created: str
    ImageID: str
    ImageRef: str
    ChainID: str = ""
    Driver: str
    Runtime: str
    Path: str = ""
    Args: list[str] = []
    Config: ContainerConfig
    HostConfig: wire.HostConfig
    Networking: NetworkingConfig = NetworkingConfig()
    Mounts: list[MountPoint] = []
    State: ContainerState = ContainerState()
    RestartCount: int = 0
    LogPath: str = ""
    Ids: IdMap | None = None

    @property
    def env(self) -> dict[str, str]:
        """Config.Env as a mapping."""
        return {name: value for name, _, value in (entry.partition("=") for entry in self.Config.Env)}


@dataclass(slots=True)
class ContainerDraft:
    """A container that is being created. `engine_container_validate` and `engine_container_create` may change it.

    Attributes:
        image: the image; its defaults are already merged into `config`.
        mounts: what will be mounted, filled by `engine_container_create`.
        warnings: shown to the client.
        api_version: of the request, for example (1, 41).
        rootfs: mounts the writable layer if it is not yet mounted, and gives its path.
        ids: see `ContainerRecord.Ids`; set by the runtime's plugin.
    """

    id: str
    name: str
    config: ContainerConfig
    host: HostConfig
    networking: NetworkingConfig
    image: Image
    api_version: tuple[int, int]
    rootfs: Callable[[], Awaitable[Path]]
    mounts: list[MountPoint] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    log_path: str = ""
    ids: IdMap | None = None


@dataclass(slots=True)
class Preparation:
    """What one start is made of. `engine_container_prepare` fills it; the runtime turns it into an OCI spec.

    Attributes:
        bundle: the container's folder under the exec root; whatever lies in it goes with the run.
        rootfs: the mounted root file system.
        mounts: in addition to the usual kernel file systems; sorted by destination before use.
        netns: path of the network namespace to join; None: the host's.
        userns: path of the user namespace that owns it, for a container with `Ids`.
        env: added behind the container's own environment.
        annotations: for the OCI spec.
        log: where the container's output goes; None drops it.
        facts: for other plugins; keys start with the plugin's name.
    """

    bundle: Path
    rootfs: Path
    mounts: list[OciMount] = field(default_factory=list)
    netns: Path | None = None
    userns: Path | None = None
    env: list[str] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)
    log: LogTarget | None = None
    facts: dict[str, Any] = field(default_factory=dict)


class ContainerCreate(ContainerConfig):
    """Body of `POST /containers/create`."""

    HostConfig: wire.HostConfig = wire.HostConfig()
    NetworkingConfig: wire.NetworkingConfig = wire.NetworkingConfig()


@dataclass(frozen=True, slots=True)
class ExecSpec:
    """A process to run in a running container; empty fields mean the container's own."""

    argv: Sequence[str]
    env: Sequence[str] = ()
    user: str = ""
    cwd: str = ""
    tty: bool = False
    stdin: bool = False
    privileged: bool = False
    console: tuple[int, int] = (0, 0)


WaitCondition = Literal["not-running", "next-exit", "removed"]


class Containers(Protocol):
    """Service: the containers. `ref` is a full ID, a name, or a unique prefix of an ID."""

    def get(self, ref: str) -> ContainerRecord:
        """Raises NotFound ("No such container: REF") or InvalidParameter when the prefix is ambiguous."""

    def list(self) -> Sequence[ContainerRecord]:
        """All, newest first; a snapshot."""

    async def create(
        self, request: ContainerCreate, *, name: str = "", api_version: tuple[int, int] = (1, 51)
    ) -> tuple[ContainerRecord, Sequence[str]]:
        """Create; gives the record and warnings. A failure leaves nothing behind."""

    async def start(self, ref: str) -> None:
        """Raises NotModified when it runs."""

    async def stop(self, ref: str, *, timeout: int | None = None, signal: str | None = None) -> None:
        """Signal, wait, kill. Raises NotModified when it does not run. A timeout below 0 waits for ever."""

    async def kill(self, ref: str, signal: str = "KILL") -> None:
        """Raises Conflict when it does not run."""

    async def wait(self, ref: str, condition: WaitCondition = "not-running") -> int:
        """Exit code."""

    async def remove(self, ref: str, *, force: bool = False, volumes: bool = False) -> None:
        """Raises Conflict when it runs and is not forced."""

    async def settled(self, container_id: str = "") -> None:
        """Returns when what ended or removed containers (or this one) took is given back: layers, endpoints, mounts.

        A removed container answers to no name any more while this still goes on. Waits 10 seconds at most.
        """

    async def attach(self, ref: str) -> ProcessIO:
        """Streams of the running container, or of its next start when it does not run yet."""

    async def exec(self, ref: str, spec: ExecSpec, *, timeout: float | None = None) -> tuple[int, bytes]:
        """Run to the end; gives exit code and output (64 KiB at most).

        Raises DeadlineExceeded after `timeout` seconds; the process is killed then.
        """

    async def set_health(self, ref: str, health: Health | None) -> None:
        """Store what the probes of a container tell, and publish `health_status: ...` when its status changes.

        Raises NotFound.
        """

"""Runtimes: what starts, watches and ends the processes of a container."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from kernel.contracts.container_config import Resources
    from kernel.contracts.containers import ContainerRecord, ExecSpec, Preparation

STDOUT = 1
STDERR = 2

OciSpec = dict[str, Any]
"""A runtime configuration (`config.json` of the OCI runtime spec 1.0), as a document."""


@dataclass(frozen=True, slots=True)
class OciMount:
    """One entry of the OCI spec's `mounts`."""

    destination: str
    source: str
    type: str = "bind"
    options: tuple[str, ...] = ("rbind", "rprivate")


@dataclass(frozen=True, slots=True)
class LogTarget:
    """Where a container's output is kept until its log driver has it.

    Attributes:
        path: a file in the CRI log format (`TIME STREAM P|F TEXT`), written by the container's monitor, so that
            nothing is lost while the daemon is away.
        max_size: bytes after which the monitor starts the file anew; 0: never.
    """

    path: Path
    max_size: int = 0


@dataclass(frozen=True, slots=True)
class Launch:
    """All that a runtime needs to create a container.

    Attributes:
        id: the container's ID.
        bundle: its folder under the exec root; the runtime keeps its own files there too.
        stdin: keep a standard input open that attach can write to.
        stdin_once: close it when the first attached client has closed its own.
    """

    id: str
    bundle: Path
    spec: OciSpec
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False
    log: LogTarget | None = None
    console: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Exit:
    """How a container ended.

    Attributes:
        code: 0 to 255; 128 + signal for a killed one.
        oom: the kernel killed it, or a process of it, for memory.
        finished_ns: nanoseconds since the epoch.
    """

    code: int
    oom: bool
    finished_ns: int


@dataclass(frozen=True, slots=True)
class Running:
    """A live container: host PIDs of its first process and of its monitor."""

    pid: int
    monitor_pid: int = 0


class ProcessIO(Protocol):
    """The streams of one process, for one client. Several clients may hold one each."""

    async def read(self) -> tuple[int, bytes] | None:
        """(STDOUT or STDERR, data); with a tty all is STDOUT. None at the end."""

    async def write(self, data: bytes) -> None:
        """To standard input; waits while the process does not read. Data for a closed input is dropped."""

    async def close_stdin(self) -> None:
        """End of this client's input."""

    async def close(self) -> None:
        """Let go; the process goes on."""


class ExecProcess(ProcessIO, Protocol):
    """A further process in a container.

    Attributes:
        pid: host PID.
    """

    pid: int

    async def wait(self) -> int:
        """Exit code, after all output was read or `close` called."""

    async def resize(self, height: int, width: int) -> None:
        """Set the terminal's size."""


OnExit = Callable[[str, Exit], Awaitable[None]]
"""Called once per container with its ID; not for an end that `adopt` has already given back."""


class Runtime(Protocol):
    """One way to run containers, chosen by `--runtime`. IDs are the containers' full IDs.

    The processes belong to a monitor of their own: they outlive the daemon, and `adopt` finds them again.
    """

    def expect(self) -> None:
        """A start or an exec is likely to come within some milliseconds: get ready what takes time. Returns at once."""

    async def spec(self, container: ContainerRecord, preparation: Preparation) -> OciSpec:
        """The OCI spec: defaults, the container's options, the preparation's mounts and namespaces.

        Raises InvalidParameter for what cannot be (an unknown user, a bad capability), NotSupported with the name of
        what this kernel lacks.
        """

    async def create(self, launch: Launch, on_exit: OnExit) -> Running:
        """Create, without starting the command. A failure leaves nothing behind.

        Raises:
            InvalidParameter: the command cannot be found or run; the message is the one that the docker CLI knows
                (`exec: "x": executable file not found in $PATH`, `permission denied`) and turns into 127 and 126.
            EngineError: the runtime's own reason.
        """

    async def start(self, container_id: str) -> None:
        """Let the created command run."""

    async def adopt(self, container_id: str, bundle: Path, on_exit: OnExit) -> Running | Exit | None:
        """After a restart of the daemon: Running (and watched again), Exit (how it ended meanwhile), None (no trace)."""

    async def attach(self, container_id: str) -> ProcessIO:
        """Streams of a created or running container. Raises Conflict when it has ended."""

    async def exec(self, container_id: str, exec_id: str, spec: ExecSpec, container: ContainerRecord) -> ExecProcess:
        """Start a further process. Raises like `create`."""

    async def kill(self, container_id: str, signal: int, *, all: bool = False) -> None:
        """Signal the first process, or all. Raises Conflict when there is none."""

    async def pause(self, container_id: str) -> None:
        """Freeze."""

    async def resume(self, container_id: str) -> None:
        """Thaw."""

    async def resize(self, container_id: str, height: int, width: int) -> None:
        """Set the terminal's size."""

    async def update(self, container_id: str, resources: Resources) -> None:
        """Change the limits of a running container."""

    async def pids(self, container_id: str) -> Sequence[int]:
        """Host PIDs of all its processes."""

    async def delete(self, container_id: str) -> None:
        """Remove what the runtime keeps of a container, killing what is left; nothing there is fine."""

    def describe(self) -> RuntimeDescription:
        """For info."""


@dataclass(frozen=True, slots=True)
class RuntimeDescription:
    """What `info` tells of a runtime."""

    name: str
    path: str
    version: str = ""
    commit: str = ""
    arguments: Sequence[str] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


class Runtimes(Protocol):
    """Service: which runtime is meant."""

    default: str

    def init_path(self) -> str:
        """Path of the init program of `--init` on the host. Raises NotSupported when there is none."""

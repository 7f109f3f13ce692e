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


@dataclass(frozen=True, slots=True)
class CpuUsage:
    """Processor time that a container has used, in nanoseconds.

    Attributes:
        read_ns: when it was read, since the epoch.
        total, kernel, user: since the container's start.
        per_cpu: by processor; empty where the kernel does not tell (cgroup v2).
        system: what all of the machine's processors together have offered until then; only differences mean something.
        online: processors of the machine.
        periods, throttled_periods, throttled: of a limit on processor time.
    """

    read_ns: int
    total: int
    system: int
    online: int
    kernel: int = 0
    user: int = 0
    per_cpu: Sequence[int] = ()
    periods: int = 0
    throttled_periods: int = 0
    throttled: int = 0


@dataclass(frozen=True, slots=True)
class MemoryUsage:
    """Bytes; None where the kernel does not tell (cgroup v2).

    Attributes:
        limit: the lowest that holds; the machine's memory when there is none.
        stats: the kernel's own numbers by its own names, which differ between cgroup v1 and v2.
    """

    usage: int
    limit: int
    max_usage: int | None = None
    failcnt: int | None = None
    stats: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BlockIo:
    """One number of one block device: bytes or operations, by operation ("Read", "Write", ...)."""

    major: int
    minor: int
    operation: str
    value: int


@dataclass(frozen=True, slots=True)
class LinkUsage:
    """Counters of one network interface as the container sees it."""

    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0


@dataclass(frozen=True, slots=True)
class ContainerUsage:
    """What a container uses of the machine.

    Attributes:
        pids: processes and threads; pids_limit 0: none.
        block_bytes, block_operations: None where the kernel does not tell.
        links: of the network namespace that its processes are in, by name, without the loopback.
        v2: `memory.stats` has the names of cgroup v2.
    """

    cpu: CpuUsage
    memory: MemoryUsage
    pids: int
    pids_limit: int
    block_bytes: Sequence[BlockIo] | None
    block_operations: Sequence[BlockIo] | None
    links: Mapping[str, LinkUsage]
    v2: bool


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
        """Exit code, as soon as the process has ended; awaited while its output is still read."""

    async def resize(self, height: int, width: int) -> None:
        """Set the terminal's size."""


OnExit = Callable[[str, Exit], Awaitable[None]]
"""Called once per container with its ID; not for an end that `adopt` has already given back."""

OnOom = Callable[[str], Awaitable[None]]
"""Called with a running container's ID when the kernel has killed a process of it for memory, once in a run."""


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

    async def create(self, launch: Launch, on_exit: OnExit, on_oom: OnOom | None = None) -> Running:
        """Create, without starting the command. A failure leaves nothing behind.

        Raises:
            InvalidParameter: the command cannot be found or run; the message is the one that the docker CLI knows
                (`exec: "x": executable file not found in $PATH`, `permission denied`) and turns into 127 and 126.
            EngineError: the runtime's own reason.
        """

    async def start(self, container_id: str) -> None:
        """Let the created command run."""

    async def adopt(
        self, container_id: str, bundle: Path, on_exit: OnExit, on_oom: OnOom | None = None
    ) -> Running | Exit | None:
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

    async def usage(self, container_id: str) -> ContainerUsage:
        """What it uses now. Raises Conflict when it does not run."""

    async def cpu_usage(self, container_ids: Sequence[str]) -> Mapping[str, CpuUsage]:
        """Total processor time of many at once, at a fraction of the cost of `usage`; what does not run is left out."""

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

"""What is known of a running container in memory, and in its bundle for the time after a restart of the daemon."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from plugin_sdk.runtime import Launch, OciSpec, OnExit, OnOom
from plugins.runtime_oci import monitor
from plugins.runtime_oci.attach import Hub
from plugins.runtime_oci.usage import Meter

LAUNCH_FILE = "launch.json"
CONFIG_FILE = "config.json"
RESIZE_PAUSE = 0.05

log = logging.getLogger("engine.runtime_oci")


@dataclass(frozen=True, slots=True)
class Terms:
    """What of a `Launch` matters for as long as the container lives."""

    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False
    memory_limited: bool = False

    @classmethod
    def of(cls, launch: Launch) -> Terms:
        """Those of a launch."""
        memory = (launch.spec["linux"].get("resources") or {}).get("memory") or {}
        # Without a limit of its own, the kernel's messages about memory name no container.
        return cls(launch.tty, launch.stdin, launch.stdin_once, bool(memory.get("limit")))

    @classmethod
    def load(cls, bundle: Path) -> Terms:
        """Those stored in a bundle; the defaults when there are none."""
        try:
            return cls(**json.loads((bundle / LAUNCH_FILE).read_text()))
        except (OSError, ValueError, TypeError):
            return cls()

    def encode(self) -> str:
        """For the bundle."""
        return json.dumps(asdict(self))


@dataclass(slots=True, eq=False)
class Live:
    """One container that has not ended, as far as the engine knows.

    Attributes:
        pid, pidfd: of its first process.
        ending: its end is being told.
        process: the `process` of its OCI spec, once an exec has needed it.
        hub: the attached clients, if there are any.
        meter: reads what it uses, once somebody has asked.
        plain_start: nothing but its command waits for the start (no poststart hooks).
    """

    id: str
    bundle: Path
    pid: int
    monitor_pid: int
    terms: Terms
    on_exit: OnExit
    on_oom: OnOom | None = None
    pidfd: int = -1
    ending: bool = False
    process: OciSpec | None = None
    plain_start: bool = True
    hub: Hub | None = None
    meter: Meter | None = None
    attaching: asyncio.Lock = field(default_factory=asyncio.Lock)
    _sizes: tuple[int, int] | None = None
    _resizing: asyncio.TimerHandle | None = None

    def watch(self, gone: Callable[[Live], None]) -> None:
        """Hold on to the process, so that its PID cannot come to mean another. Raises ProcessLookupError."""
        self.pidfd = os.pidfd_open(self.pid)
        asyncio.get_running_loop().add_reader(self.pidfd, self._gone, gone)

    def _gone(self, gone: Callable[[Live], None]) -> None:
        asyncio.get_running_loop().remove_reader(self.pidfd)
        gone(self)

    def tell_oom(self) -> None:
        """The kernel has killed a process of it."""
        if self.on_oom is not None:
            asyncio.get_running_loop().create_task(self._oom(self.on_oom), name=f"oom of {self.id[:12]}")

    async def _oom(self, on_oom: OnOom) -> None:
        try:
            await on_oom(self.id)
        except Exception:
            log.exception("container %s: a process was killed for memory, and what follows failed", self.id[:12])

    def signal(self, number: int) -> bool:
        """Send a signal; False when the process has ended."""
        try:
            if self.pidfd >= 0:
                signal.pidfd_send_signal(self.pidfd, number)
                return True
        except ProcessLookupError:
            pass
        return False

    def release(self) -> None:
        """Let go of the process."""
        if self._resizing is not None:
            self._resizing.cancel()
        if self.pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self.pidfd)
            os.close(self.pidfd)
            self.pidfd = -1

    def spec(self) -> OciSpec:
        """The container's OCI spec, from the bundle. Blocking."""
        spec: OciSpec = json.loads((self.bundle / CONFIG_FILE).read_bytes())
        return spec

    def resize(self, height: int, width: int) -> None:
        """Set the terminal's size.

        conmon loses all but the first of several sizes that it reads at once, so they are sent with a pause between.
        Raises OSError when the monitor is gone.
        """
        if self._resizing is not None:
            self._sizes = (height, width)
            return
        monitor.set_size(self.bundle, height, width)
        self._resizing = asyncio.get_running_loop().call_later(RESIZE_PAUSE, self._resize_again)

    def _resize_again(self) -> None:
        self._resizing = None
        if self._sizes is None:
            return
        (height, width), self._sizes = self._sizes, None
        try:
            self.resize(height, width)
        except OSError:
            return  # it has ended meanwhile

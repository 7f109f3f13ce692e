"""Gets the kernel ready to move a process into a cgroup.

Such a move waits for an RCU grace period, 7 to 13 ms on an idle machine, unless another move was made a moment ago
(linux/kernel/cgroup/cgroup.c: `cgroup_threadgroup_rwsem`, an RCU-synchronised lock that stays fast for one more grace period after
each use). Every create, and an exec on cgroup v1, contains one. So when one is likely to come, a thread moves the daemon into
the cgroup where it is already: nothing changes, and the wait is over when the runtime gets there.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path

LASTS = 0.04
"""Seconds for which the kernel is kept ready after a call of `soon`."""
STEP = 0.004
"""Seconds between two moves; a grace period takes longer."""

log = logging.getLogger("engine.runtime_oci")


class Readiness:
    """One thread that sleeps until it is needed."""

    def __init__(self, procs: Path | None) -> None:
        """`procs`: file `cgroup.procs` of the daemon's own cgroup; None: there is none that can be written."""
        self._procs = procs
        self._until = 0.0
        self._wake = threading.Event()
        self._ended = False
        if procs is not None:
            threading.Thread(target=self._work, name="cgroup-ready", daemon=True).start()

    def soon(self) -> None:
        """A process will be moved soon. Costs nothing to the caller."""
        self._until = time.monotonic() + LASTS
        self._wake.set()

    def close(self) -> None:
        """End the thread."""
        self._ended = True
        self._wake.set()

    def _work(self) -> None:
        assert self._procs is not None
        try:
            with self._procs.open("wb", buffering=0) as file:
                while not self._ended:
                    self._wake.wait()
                    self._wake.clear()
                    while time.monotonic() < self._until and not self._ended:
                        file.write(b"%d" % os.getpid())
                        time.sleep(STEP)
        except OSError as error:
            log.debug("the kernel is not got ready for moves between cgroups: %s: %s", self._procs, error)


def own_procs(proc: Path = Path("/proc/self"), mounts: Path = Path("/sys/fs/cgroup")) -> Path | None:
    """`cgroup.procs` of a cgroup that this process is in: of v1's `pids`, else of v2. None where neither is mounted as usual."""
    groups = {}
    for line in (proc / "cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        groups["" if number == "0" else controllers] = path.lstrip("/")
    for controller in ("pids", ""):
        if controller in groups:
            procs = mounts / controller / groups[controller] / "cgroup.procs"
            if procs.exists():
                return procs
    return None

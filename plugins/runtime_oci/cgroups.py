"""Control groups of this machine: v1, v2, or both (hybrid); where a process lies in them, and what it has there.

Source: cgroups(7), Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst of the kernel.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
BUSY_DEADLINE = 0.5
"""Seconds in which the last process of a group that was killed leaves it."""
FROM_PROCESS = ("memory", "pids", "cpu", "devices", "freezer")
"""v1 controllers by which a container's cgroup is found, in this order."""


def _read(path: Path | str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


@dataclass(frozen=True)
class Cgroups:
    """The hierarchies as they are mounted.

    Attributes:
        mounts: v1 controller to mount point.
        unified: mount point of the v2 hierarchy, or None.
    """

    mounts: Mapping[str, Path] = field(default_factory=dict)
    unified: Path | None = None

    @property
    def v2(self) -> bool:
        """Only the v2 hierarchy counts (a hybrid host is v1)."""
        return self.unified is not None and not self.mounts

    @cached_property
    def controllers(self) -> frozenset[str]:
        """Controllers that containers can be limited by."""
        if self.v2 and self.unified:
            return frozenset(_read(self.unified / "cgroup.controllers").split()) | {"devices", "freezer"}
        return frozenset(self.mounts)

    def has_file(self, controller: str, v1: str, v2: str) -> bool:
        """The kernel offers this limit. On v2 the root group lacks most files, so a child's are looked at."""
        if not self.v2:
            return controller in self.mounts and (self.mounts[controller] / v1).exists()
        if controller not in self.controllers or self.unified is None:
            return False
        return not v2 or any((child / v2).exists() for child in _some_children(self.unified))

    def of(self, pid: int) -> Path | None:
        """Folder of the process's cgroup in the hierarchy that tells most; None when it is gone."""
        v2_path = None
        places: dict[str, str] = {}
        for line in _read(f"/proc/{pid}/cgroup").splitlines():
            number, controllers, path = line.split(":", 2)
            if number == "0":
                v2_path = path
            places.update(dict.fromkeys(controllers.split(","), path))
        for controller in FROM_PROCESS:
            if controller in self.mounts and controller in places:
                return self.mounts[controller] / places[controller].lstrip("/")
        if self.unified is not None and v2_path is not None:
            return self.unified / v2_path.lstrip("/")
        return None

    def in_controller(self, pid: int, controller: str) -> Path | None:
        """Folder of the process's cgroup in one controller's hierarchy."""
        for line in _read(f"/proc/{pid}/cgroup").splitlines():
            number, controllers, path = line.split(":", 2)
            if self.v2 and number == "0" and self.unified:
                return self.unified / path.lstrip("/")
            if controller in controllers.split(",") and controller in self.mounts:
                return self.mounts[controller] / path.lstrip("/")
        return None


def _some_children(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)][:8]
    except OSError:
        return []


def detect(mountinfo: str | None = None) -> Cgroups:
    """Look at what is mounted. A v2 hierarchy beside v1 ones, as systemd makes it, leaves the host a v1 host."""
    mounts: dict[str, Path] = {}
    unified = None
    for line in (mountinfo if mountinfo is not None else _read("/proc/self/mountinfo")).splitlines():
        before, _, after = line.partition(" - ")
        place, kind = Path(before.split(" ")[4]), after.split(" ")
        if kind[0] == "cgroup2":
            unified = unified or place
        elif kind[0] == "cgroup":
            for option in kind[-1].split(","):
                if option not in ("rw", "ro", "xattr", "clone_children", "noprefix") and "=" not in option:
                    mounts.setdefault(option, place)
    return Cgroups(mounts, unified)


def processes(group: Path) -> list[int]:
    """PIDs of a cgroup and of those below it (systemd and nested engines make some). Blocking, but kernel memory only."""
    found: list[int] = []
    for folder, _, _ in os.walk(group):
        found += map(int, _read(os.path.join(folder, "cgroup.procs")).split())
    return found


def remove(groups: Cgroups, path: str) -> None:
    """Remove a container's groups, in all hierarchies, unless processes are in them; none is fine. Blocking.

    Args:
        path: absolute, below the mount points; a name for systemd is left to systemd.
    """
    if not path.startswith("/") or path == "/":
        return
    places = {groups.unified} if groups.unified else set()
    for folder in {mount.parent for mount in groups.mounts.values()}:
        places |= set(folder.iterdir())  # those with a name and no controller too
    for place in places:
        _remove_folder(place / path.lstrip("/"))


def _remove_folder(folder: Path) -> None:
    until = time.monotonic() + BUSY_DEADLINE
    while True:
        try:
            os.rmdir(folder)
        except OSError as error:
            if error.errno == errno.EBUSY and time.monotonic() < until:
                time.sleep(0.01)  # a killed process is in it until it is reaped
                continue
            if error.errno not in (errno.ENOENT, errno.EBUSY, errno.ENOTEMPTY):
                raise
        return


def oom_killed(group: Path, *, v2: bool) -> bool:
    """The kernel has killed a process of this (memory) cgroup."""
    text = _read(group / ("memory.events" if v2 else "memory.oom_control"))
    return any(line.startswith("oom_kill ") and line.split()[1] != "0" for line in text.splitlines())


def frozen(group: Path) -> bool:
    """The freezer cgroup (or the v2 cgroup) is frozen."""
    return (
        _read(group / "freezer.state").strip() in ("FROZEN", "FREEZING")
        or _read(group / "cgroup.freeze").strip() == "1"
    )

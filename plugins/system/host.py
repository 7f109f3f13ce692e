"""Facts of the machine: kernel, memory, processors, distribution, control groups."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")

# What clients call the machine's architecture (GOARCH), by what uname calls it.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


@dataclass(frozen=True, slots=True)
class Host:
    """What does not change while the daemon runs."""

    name: str
    kernel: str
    machine: str
    architecture: str
    system: str
    system_version: str
    processors: int
    memory: int
    cgroup_version: str
    limits: dict[str, bool]


def look(root: Path = Path("/")) -> Host:
    """Find out. Reads small files only."""
    release = os_release(root)
    version, limits = cgroup_limits(CGROUPS)
    uname = os.uname()
    return Host(
        name=uname.nodename,
        kernel=uname.release,
        machine=uname.machine,
        architecture=_ARCHITECTURES.get(uname.machine, uname.machine),
        system=release.get("PRETTY_NAME") or platform.system(),
        system_version=release.get("VERSION_ID", ""),
        processors=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        cgroup_version=version,
        limits=limits,
    )


def os_release(root: Path) -> dict[str, str]:
    """The keys of os-release(5); empty without the file."""
    for name in ("etc/os-release", "usr/lib/os-release"):
        try:
            lines = (root / name).read_text(errors="replace").splitlines()
        except OSError:
            continue
        pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
        return {key.strip(): value.strip().strip("\"'") for key, _, value in pairs}
    return {}


def cgroup_limits(root: Path) -> tuple[str, dict[str, bool]]:
    """Version of the control groups ("1" or "2"), and which limits of `info` they offer."""
    if (root / "cgroup.controllers").exists():
        offered = set(_text(root / "cgroup.controllers").split())
        return "2", {
            "MemoryLimit": "memory" in offered,
            "SwapLimit": "memory" in offered,
            "CpuCfsPeriod": "cpu" in offered,
            "CpuCfsQuota": "cpu" in offered,
            "CPUShares": "cpu" in offered,
            "CPUSet": "cpuset" in offered,
            "PidsLimit": "pids" in offered,
            "OomKillDisable": False,
        }
    files = {
        "MemoryLimit": "memory/memory.limit_in_bytes",
        "SwapLimit": "memory/memory.memsw.limit_in_bytes",
        "KernelMemoryTCP": "memory/memory.kmem.tcp.limit_in_bytes",
        "CpuCfsPeriod": "cpu/cpu.cfs_period_us",
        "CpuCfsQuota": "cpu/cpu.cfs_quota_us",
        "CPUShares": "cpu/cpu.shares",
        "CPUSet": "cpuset/cpuset.cpus",
        "PidsLimit": "pids",
        "OomKillDisable": "memory/memory.oom_control",
    }
    return "1", {name: (root / path).exists() for name, path in files.items()}


def sysctl_on(name: str) -> bool:
    """A sysctl such as "net/ipv4/ip_forward" is 1; False when the kernel has none of that name."""
    return _text(Path("/proc/sys") / name).strip() == "1"


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""

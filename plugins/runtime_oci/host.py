"""What this kernel can do for containers, looked at once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from plugins.runtime_oci import seccomp
from plugins.runtime_oci.cgroups import Cgroups
from plugins.runtime_oci.security import apparmor_enabled, selinux_enabled


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Abilities, named like the fields of `GET /info` where they are there."""

    memory_limit: bool
    swap_limit: bool
    swappiness: bool
    kernel_memory_tcp: bool
    oom_kill_disable: bool
    cfs: bool
    shares: bool
    realtime: bool
    cpuset: bool
    pids: bool
    block_weight: bool
    block_limits: bool
    cgroup_namespaces: bool
    cpus: int
    cpus_usable: frozenset[int]
    memory_nodes: frozenset[int]


def look(groups: Cgroups) -> HostFacts:
    """Reads a few kernel files; under a millisecond."""
    has = groups.has_file
    return HostFacts(
        memory_limit="memory" in groups.controllers,
        swap_limit=has("memory", "memory.memsw.limit_in_bytes", "memory.swap.max"),
        swappiness=has("memory", "memory.swappiness", "") and not groups.v2,
        kernel_memory_tcp=has("memory", "memory.kmem.tcp.limit_in_bytes", "") and not groups.v2,
        oom_kill_disable=has("memory", "memory.oom_control", "") and not groups.v2,
        cfs=has("cpu", "cpu.cfs_quota_us", "cpu.max"),
        shares=has("cpu", "cpu.shares", "cpu.weight"),
        realtime=has("cpu", "cpu.rt_period_us", "") and not groups.v2,
        cpuset="cpuset" in groups.controllers,
        pids="pids" in groups.controllers,
        block_weight=has("blkio", "blkio.weight", "")
        or has("blkio", "blkio.bfq.weight", "")
        or has("io", "", "io.weight"),
        block_limits=has("blkio", "blkio.throttle.read_bps_device", "") or "io" in groups.controllers,
        cgroup_namespaces=Path("/proc/self/ns/cgroup").exists(),
        cpus=len(os.sched_getaffinity(0)),
        cpus_usable=_online("/sys/devices/system/cpu/online"),
        memory_nodes=_online("/sys/devices/system/node/online"),
    )


def _online(path: str) -> frozenset[int]:
    try:
        return parse_set(Path(path).read_text().strip())
    except OSError:
        return frozenset({0})


def parse_set(text: str) -> frozenset[int]:
    """`0-2,7` as numbers. Raises ValueError."""
    found: set[int] = set()
    for part in text.split(",") if text else []:
        first, dash, last = part.partition("-")
        low, high = int(first), int(last if dash else first)
        if low > high or high > 8191 or low < 0:
            raise ValueError(f"not a range: {part}")
        found.update(range(low, high + 1))
    return frozenset(found)


def security_options(profile: str, *, cgroupns: bool, no_new_privileges: bool, userns: bool) -> list[str]:
    """`SecurityOptions` of info."""
    found = []
    if apparmor_enabled():
        found.append("name=apparmor")
    if selinux_enabled():
        found.append("name=selinux")
    if seccomp.supported():
        found.append(f"name=seccomp,profile={profile}")
    if userns:
        found.append("name=userns")
    if cgroupns:
        found.append("name=cgroupns")
    if no_new_privileges:
        found.append("name=no-new-privileges")
    return found


def info(facts: HostFacts, groups: Cgroups, driver: str) -> dict[str, object]:
    """The fields of `GET /info` about limits, and warnings in dockerd's words."""
    warnings = [
        f"WARNING: {words}"
        for missing, words in (
            (not facts.memory_limit, "No memory limit support"),
            (not facts.swap_limit, "No swap limit support"),
            (not facts.cfs, "No cpu cfs quota support"),
            (not facts.shares, "No cpu shares support"),
            (not facts.cpuset, "No cpuset support"),
            (not facts.pids, "No pids limit support"),
            (not facts.block_weight, "No blkio weight support"),
        )
        if missing
    ]
    return {
        "CgroupDriver": driver,
        "CgroupVersion": "2" if groups.v2 else "1",
        "MemoryLimit": facts.memory_limit,
        "SwapLimit": facts.swap_limit,
        "KernelMemory": False,
        "KernelMemoryTCP": facts.kernel_memory_tcp,
        "OomKillDisable": facts.oom_kill_disable,
        "CpuCfsPeriod": facts.cfs,
        "CpuCfsQuota": facts.cfs,
        "CPUShares": facts.shares,
        "CPUSet": facts.cpuset,
        "PidsLimit": facts.pids,
        "Warnings": warnings,
    }

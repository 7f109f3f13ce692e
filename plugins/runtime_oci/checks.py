"""Checks of the options that the runtime interprets, in dockerd's words, and their defaults."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from plugin_sdk import InvalidParameter
from plugin_sdk.containers import HostConfig, Resources
from plugins.runtime_oci import capabilities, cdi, devices, seccomp
from plugins.runtime_oci.host import HostFacts, parse_set
from plugins.runtime_oci.namespaces import check_mode
from plugins.runtime_oci.security import parse_security_options
from plugins.runtime_oci.ulimits import check_ulimits

MIB = 1 << 20
MINIMUM_MEMORY = 6 * MIB
NO_KERNEL = "Your kernel does not support "
NO_CGROUP = " or the cgroup is not mounted."

_SYSCTL = re.compile(
    r"(?:kernel\.(?:domainname|msgmax|msgmnb|msgmni|sem|shmall|shmmax|shmmni|shm_rmid_forced)|(?:net|fs\.mqueue)\..+)\Z"
)
_SYSCTL_NAME = re.compile(r"[A-Za-z0-9_.\-/]+\Z")

_THROTTLES = {
    "BlkioDeviceReadBps": ("BPS Block I/O read limit", "Block I/O BPS read limit"),
    "BlkioDeviceWriteBps": ("BPS Block I/O write limit", "Block I/O BPS write limit"),
    "BlkioDeviceReadIOps": ("IOPS Block read limit", "Block I/O IOPS read limit"),
    "BlkioDeviceWriteIOps": ("IOPS Block write limit", "Block I/O IOPS write limit"),
}

Warn = Callable[[str], None]


def check_options(host: HostConfig) -> None:
    """All but the limits. Raises InvalidParameter."""
    check_mode(host.IpcMode, ("", "none", "private", "shareable", "host", "container:"), "IPC")
    check_mode(host.PidMode, ("", "host", "container:"), "PID")
    check_mode(host.UTSMode, ("", "host"), "UTS")
    check_mode(host.UsernsMode, ("", "host"), "userns")
    check_mode(host.CgroupnsMode, ("", "host", "private"), "cgroup namespace")
    if host.Isolation not in ("", "default"):
        raise InvalidParameter(f"Invalid isolation: \"{host.Isolation}\" - linux only supports 'default'")
    for value, what in ((host.IOMaximumBandwidth, "bandwidth"), (host.IOMaximumIOps, "IOs per second")):
        if value:
            raise InvalidParameter(f"Invalid QoS settings: linux does not support configuration of maximum {what}")
    capabilities.normalise(host.CapAdd, "CapAdd")
    capabilities.normalise(host.CapDrop, "CapDrop")
    options = parse_security_options(host.SecurityOpt)
    if options.seccomp not in ("", "unconfined"):
        seccomp.parse(options.seccomp)
    check_ulimits(host.Ulimits)
    for mapping in host.Devices:
        devices.check_mapping(mapping)
    for rule in host.DeviceCgroupRules:
        devices.check_rule(rule)
    if host.ShmSize < 0:
        raise InvalidParameter("SHM size can not be less than 0")
    if not -1000 <= host.OomScoreAdj <= 1000:
        raise InvalidParameter(f"Invalid value {host.OomScoreAdj}, range for oom score adj is [-1000, 1000]")
    _check_sysctls(host)
    for path in [*(host.MaskedPaths or ()), *(host.ReadonlyPaths or ())]:
        if not path.startswith("/"):
            raise InvalidParameter(f"invalid masked or read-only path {path!r}: want an absolute path")
    cdi.wanted(host.DeviceRequests)


def _check_sysctls(host: HostConfig) -> None:
    for name in host.Sysctls:
        dotted = name.replace("/", ".")
        if not _SYSCTL_NAME.match(name) or ".." in name or not _SYSCTL.match(dotted):
            raise InvalidParameter(
                f"sysctl {name!r} is not allowed: it belongs to no namespace, so it would change the host".replace(
                    '"', "'"
                )
            )
        if dotted.startswith("net.") and host.NetworkMode == "host":
            raise InvalidParameter(f"sysctl {name!r} not allowed in host network namespace".replace('"', "'"))
        if dotted == "kernel.domainname":
            if host.UTSMode == "host":
                raise InvalidParameter(f"sysctl {name!r} not allowed in host uts namespace".replace('"', "'"))
            continue
        if dotted.startswith(("kernel.", "fs.")) and host.IpcMode == "host":
            raise InvalidParameter(f"sysctl {name!r} not allowed in host ipc namespace".replace('"', "'"))


def check_limits(asked: Resources, facts: HostFacts | None = None) -> None:
    """What contradicts itself, or passes what the host has. Raises InvalidParameter."""
    _check_memory(asked)
    _check_cpu(asked, facts)
    if asked.BlkioWeight and not 10 <= asked.BlkioWeight <= 1000:
        raise InvalidParameter("Range of blkio weight is from 10 to 1000")
    for device in asked.BlkioWeightDevice:
        if not 10 <= device.Weight <= 1000:
            raise InvalidParameter(f"{device.Path}: range of blkio weight is from 10 to 1000")
    for throttles in (
        *(asked.BlkioDeviceReadBps, asked.BlkioDeviceWriteBps),
        *(asked.BlkioDeviceReadIOps, asked.BlkioDeviceWriteIOps),
    ):
        for throttle in throttles:
            if throttle.Rate < 0:
                raise InvalidParameter(f"{throttle.Path}: want a rate of 0 or more, got {throttle.Rate}")


def _check_memory(asked: Resources) -> None:
    memory, swap, reservation = asked.Memory, asked.MemorySwap, asked.MemoryReservation
    if memory < 0 or 0 < memory < MINIMUM_MEMORY:
        raise InvalidParameter("Minimum memory limit allowed is 6MB")
    if memory > 0 and 0 < swap < memory:
        raise InvalidParameter("Minimum memoryswap limit should be larger than memory limit, see usage")
    if memory == 0 and swap > 0:
        raise InvalidParameter("You should always set the Memory limit when using Memoryswap limit, see usage")
    if 0 < reservation < MINIMUM_MEMORY:
        raise InvalidParameter("Minimum memory reservation allowed is 6MB")
    if memory > 0 and reservation > memory:
        raise InvalidParameter("Minimum memory limit can not be less than memory reservation limit, see usage")
    swappiness = asked.MemorySwappiness
    if swappiness is not None and not -1 <= swappiness <= 100:
        raise InvalidParameter(f"Invalid value: {swappiness}, valid memory swappiness range is 0-100")


def _check_cpu(asked: Resources, facts: HostFacts | None) -> None:
    if asked.NanoCpus:
        if asked.CpuPeriod > 0:
            raise InvalidParameter("Conflicting options: Nano CPUs and CPU Period cannot both be set")
        if asked.CpuQuota > 0:
            raise InvalidParameter("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
        cpus = facts.cpus if facts else 1 << 16
        if not 0 < asked.NanoCpus <= cpus * 10**9:
            raise InvalidParameter(f"Range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available")
    if asked.CpuPeriod and not 1000 <= asked.CpuPeriod <= 1_000_000:
        raise InvalidParameter("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < asked.CpuQuota < 1000:
        raise InvalidParameter("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if asked.CpuRealtimePeriod and asked.CpuRealtimeRuntime > asked.CpuRealtimePeriod:
        raise InvalidParameter("cpu real-time runtime cannot be higher than cpu real-time period")
    if asked.CpuShares < 0:
        raise InvalidParameter(f"invalid CPU shares {asked.CpuShares}: want 0 or more")
    for value, what, field in (
        (asked.CpusetCpus, "Requested CPUs are", "cpus"),
        (asked.CpusetMems, "Requested memory nodes are", "mems"),
    ):
        try:
            wanted = parse_set(value)
        except ValueError:
            raise InvalidParameter(f"Invalid value {value} for cpuset {field}: invalid format: {value}") from None
        have = (facts.cpus_usable if field == "cpus" else facts.memory_nodes) if facts else wanted
        if not wanted <= have:
            raise InvalidParameter(f"{what} not available - requested {value}, available: {show_set(have)}")


def show_set(numbers: Iterable[int]) -> str:
    """`{0, 1, 2, 7}` as `0-2,7`."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)


def fit_limits(host: HostConfig, facts: HostFacts, *, v2: bool, warn: Warn) -> dict[str, Any]:
    """Fields of `host` to replace: dockerd's defaults, and limits that this kernel cannot hold, with a warning each."""
    changed: dict[str, Any] = {}

    def discard(asked: object, able: bool, what: str, thing: str = "Limitation", **fields: Any) -> None:
        if asked and not able:
            warn(f"{NO_KERNEL}{what}{NO_CGROUP} {thing} discarded.")
            changed.update(fields)

    discard(host.Memory, facts.memory_limit, "memory limit capabilities", Memory=0, MemorySwap=-1)
    discard(host.MemoryReservation, facts.memory_limit, "memory soft limit capabilities", MemoryReservation=0)
    discard(host.CpuShares, facts.shares, "CPU shares", CpuShares=0)
    discard(host.NanoCpus, facts.cfs, "CPU CFS scheduler", NanoCpus=0)
    discard(host.CpuPeriod or host.CpuQuota, facts.cfs, "CPU CFS quota", CpuPeriod=0, CpuQuota=0)
    discard(host.CpusetCpus or host.CpusetMems, facts.cpuset, "cpuset", CpusetCpus="", CpusetMems="")
    discard(host.PidsLimit and host.PidsLimit > 0, facts.pids, "PIDs limit capabilities", PidsLimit=None)
    able = facts.block_weight
    discard(host.BlkioWeight, able, "Block I/O weight", "Weight", BlkioWeight=0)
    discard(host.BlkioWeightDevice, able, "Block I/O weight_device", "Weight-device", BlkioWeightDevice=[])
    discard(
        host.CpuRealtimePeriod or host.CpuRealtimeRuntime,
        facts.realtime,
        "CPU real-time scheduler",
        CpuRealtimePeriod=0,
        CpuRealtimeRuntime=0,
    )
    discard(host.KernelMemoryTCP, facts.kernel_memory_tcp, "kernel memory TCP", KernelMemoryTCP=0)
    for fields, words in _THROTTLES.items():
        discard(getattr(host, fields), facts.block_limits, *words, **{fields: []})
    swappiness = host.MemorySwappiness
    discard(
        swappiness is not None and swappiness != -1,
        facts.swappiness,
        "memory swappiness capabilities",
        MemorySwappiness=None,
    )
    if swappiness == -1:
        changed["MemorySwappiness"] = None
    if host.PidsLimit is not None and host.PidsLimit <= 0:
        changed["PidsLimit"] = None
    if host.KernelMemory:
        warn("Specifying a kernel memory limit is deprecated and has no effect.")
    if "Memory" not in changed and host.Memory > 0:
        if host.MemorySwap != -1 and not facts.swap_limit:
            warn(f"{NO_KERNEL}swap limit capabilities{NO_CGROUP} Memory limited without swap.")
            changed["MemorySwap"] = -1
        elif host.MemorySwap == 0:
            changed["MemorySwap"] = host.Memory * 2
    if host.OomKillDisable and not facts.oom_kill_disable:
        warn(f"{NO_KERNEL}OomKillDisable. OomKillDisable discarded.")
        changed["OomKillDisable"] = None
    elif host.OomKillDisable and not host.Memory:
        warn(
            "OOM killer is disabled for the container, but no memory limit is set,"
            " this can result in the system running out of resources."
        )
    elif host.OomKillDisable is None and not v2:
        changed["OomKillDisable"] = False
    return changed

"""What a container uses of the machine, read from its control groups and its network namespace. Blocking.

Source: Documentation/admin-guide/cgroup-v1 (cpuacct, memory, blkio-controller, pids) and cgroup-v2.rst of the kernel,
proc_pid_net(5).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from plugin_sdk.runtime import BlockIo, ContainerUsage, CpuUsage, LinkUsage, MemoryUsage
from plugins.runtime_oci.cgroups import Cgroups

_TICK = 10**9 // os.sysconf("SC_CLK_TCK")
_MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
_USEC = 1000
# The kernel itself puts these into each new network namespace once a tunnel module is loaded.
_NOT_OURS = {"lo", "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0"}
_V1 = ("cpuacct", "cpu", "memory", "blkio", "pids")


class Meter:
    """Reads one container's numbers; finds its control groups once. May be used from several threads."""

    def __init__(self, groups: Cgroups, pid: int, container_id: str, *, proc: Path = Path("/proc")) -> None:
        self._groups = groups
        self._pid = pid
        self._id = container_id
        self._proc = proc

    @cached_property
    def _places(self) -> dict[str, Path]:
        names = ("",) if self._groups.v2 else _V1
        found = {name: own_group(self._groups.in_controller(self._pid, name), self._id) for name in names}
        return {name: place for name, place in found.items() if place is not None}

    def read(self) -> ContainerUsage:
        """All of it. Raises OSError when the container has ended."""
        v2 = self._groups.v2
        blocks = _blocks_v2(self._text("", "io.stat")) if v2 else None
        return ContainerUsage(
            cpu=self.cpu(),
            memory=self._memory_v2() if v2 else self._memory_v1(),
            pids=_number(self._text("pids", "pids.current")),
            pids_limit=_number(self._text("pids", "pids.max")),
            block_bytes=blocks if v2 else self._blocks_v1("io_service_bytes"),
            block_operations=None if v2 else self._blocks_v1("io_serviced"),
            links=_links((self._proc / str(self._pid) / "net/dev").read_text()),
            v2=v2,
        )

    def total_cpu(self) -> CpuUsage:
        """Processor time without the details. Raises OSError when the container has ended."""
        if self._groups.v2:
            total = _pairs(self._needed("", "cpu.stat")).get("usage_usec", 0) * _USEC
        else:
            total = int(self._needed("cpuacct", "cpuacct.usage"))
        return CpuUsage(time.time_ns(), total, _offered(), _online())

    def cpu(self) -> CpuUsage:
        """Processor time. Raises OSError when the container has ended."""
        now, offered, online = time.time_ns(), _offered(), _online()
        if self._groups.v2:
            stat = _pairs(self._needed("", "cpu.stat"))
            return CpuUsage(
                now,
                stat.get("usage_usec", 0) * _USEC,
                offered,
                online,
                kernel=stat.get("system_usec", 0) * _USEC,
                user=stat.get("user_usec", 0) * _USEC,
                periods=stat.get("nr_periods", 0),
                throttled_periods=stat.get("nr_throttled", 0),
                throttled=stat.get("throttled_usec", 0) * _USEC,
            )
        total = int(self._needed("cpuacct", "cpuacct.usage"))
        modes = _pairs(self._text("cpuacct", "cpuacct.stat"))
        limit = _pairs(self._text("cpu", "cpu.stat"))
        return CpuUsage(
            now,
            total,
            offered,
            online,
            kernel=modes.get("system", 0) * _TICK,
            user=modes.get("user", 0) * _TICK,
            # The kernel lists all processors that the machine could have.
            per_cpu=[int(part) for part in self._text("cpuacct", "cpuacct.usage_percpu").split()][:online],
            periods=limit.get("nr_periods", 0),
            throttled_periods=limit.get("nr_throttled", 0),
            throttled=limit.get("throttled_time", 0),
        )

    def _memory_v1(self) -> MemoryUsage:
        stats = _pairs(self._text("memory", "memory.stat"))
        return MemoryUsage(
            usage=_number(self._text("memory", "memory.usage_in_bytes")),
            limit=min(stats.get("hierarchical_memory_limit", _MACHINE), _MACHINE),
            max_usage=_number(self._text("memory", "memory.max_usage_in_bytes")),
            failcnt=_number(self._text("memory", "memory.failcnt")),
            stats=stats,
        )

    def _memory_v2(self) -> MemoryUsage:
        limit = self._text("", "memory.max").strip()
        return MemoryUsage(
            usage=_number(self._text("", "memory.current")),
            limit=min(int(limit), _MACHINE) if limit.isdecimal() else _MACHINE,
            stats=_pairs(self._text("", "memory.stat")),
        )

    def _blocks_v1(self, what: str) -> list[BlockIo]:
        # An I/O scheduler with weights counts by itself; without one only the throttling layer does.
        for name in (f"blkio.{what}_recursive", f"blkio.throttle.{what}_recursive"):
            if found := list(_blocks_v1(self._text("blkio", name))):
                return found
        return []

    def _needed(self, controller: str, name: str) -> str:
        place = self._places.get("" if self._groups.v2 else controller)
        if place is None:
            raise FileNotFoundError(f"no control group of {controller or 'cgroup v2'} for process {self._pid}")
        return (place / name).read_text()

    def _text(self, controller: str, name: str) -> str:
        """ "" for what this kernel or this hierarchy does not have."""
        with suppress(OSError):
            return self._needed(controller, name)
        return ""


def own_group(folder: Path | None, container_id: str) -> Path | None:
    """The container's own of a cgroup of its first process: systemd as an init moves into one below.

    None for one that is not the container's: a process that has just ended lies in the root.
    """
    places = (folder, *folder.parents) if folder is not None else ()
    return next((place for place in places if container_id in place.name), None)


def read_cpu(meters: Mapping[str, Meter]) -> dict[str, CpuUsage]:
    """`Meter.total_cpu` of many; what has ended is left out."""
    found = {}
    for name, meter in meters.items():
        with suppress(OSError):
            found[name] = meter.total_cpu()
    return found


def _offered() -> int:
    # /proc/stat counts in ticks of 10 ms, too coarse for two readings that are close together.
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) * _online()


def _online() -> int:
    return os.sysconf("SC_NPROCESSORS_ONLN")


def _number(text: str) -> int:
    """0 for "max" and for nothing."""
    text = text.strip()
    return int(text) if text.isdecimal() else 0


def _pairs(text: str) -> dict[str, int]:
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if value.isdecimal():
            found[name] = int(value)
    return found


def _blocks_v1(text: str) -> Iterable[BlockIo]:
    """Lines `8:0 Read 4096`; the last, without a device, is the sum of all."""
    for line in text.splitlines():
        match line.split():
            case [device, operation, value] if ":" in device:
                major, minor = map(int, device.split(":"))
                yield BlockIo(major, minor, operation, int(value))


def _blocks_v2(text: str) -> list[BlockIo]:
    """Lines `8:0 rbytes=4096 wbytes=0 rios=1 ...`."""
    found = []
    for line in text.splitlines():
        device, *pairs = line.split()
        if ":" not in device:
            continue
        major, minor = map(int, device.split(":"))
        numbers = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        for operation, name in (("read", "rbytes"), ("write", "wbytes")):
            found.append(BlockIo(major, minor, operation, int(numbers.get(name, 0))))
    return found


def _links(text: str) -> dict[str, LinkUsage]:
    found = {}
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        n = [int(part) for part in rest.split()]
        if name.strip() not in _NOT_OURS:
            found[name.strip()] = LinkUsage(n[0], n[1], n[2], n[3], n[8], n[9], n[10], n[11])
    return found

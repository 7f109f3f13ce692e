"""The API's shape of a reading.

Source: Docker Engine API v1.51, `ContainerStatsResponse`, and a dockerd 26.1 on cgroup v1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from plugin_sdk.runtime import BlockIo, ContainerUsage, CpuUsage, LinkUsage, MemoryUsage
from plugin_sdk.times import format_ns
from plugins.stats.sampler import Reading

NEVER = "0001-01-01T00:00:00Z"
_BLOCK_LISTS = (
    "io_queue_recursive",
    "io_service_time_recursive",
    "io_wait_time_recursive",
    "io_merged_recursive",
    "io_time_recursive",
    "sectors_recursive",
)


def shown(reading: Reading) -> dict[str, Any]:
    """The JSON object that clients read; zeros for a container that does not run."""
    usage, before = reading.usage, reading.before
    document: dict[str, Any] = {
        "read": format_ns(usage.cpu.read_ns) if usage else NEVER,
        "preread": format_ns(before.read_ns) if before else NEVER,
        "pids_stats": _pids(usage) if usage else {},
        "blkio_stats": _blocks(usage),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(usage.cpu if usage else None),
        "precpu_stats": _cpu(before),
        "memory_stats": _memory(usage.memory) if usage else {},
        "name": f"/{reading.record.Name}",
        "id": reading.record.Id,
    }
    if usage and usage.links:
        document["networks"] = {name: _link(link) for name, link in usage.links.items()}
    return document


def _pids(usage: ContainerUsage) -> dict[str, int]:
    return {"current": usage.pids} | ({"limit": usage.pids_limit} if usage.pids_limit else {})


def _cpu(cpu: CpuUsage | None) -> dict[str, Any]:
    used: dict[str, Any] = {"total_usage": cpu.total if cpu else 0}
    if cpu and cpu.per_cpu:
        used["percpu_usage"] = [*cpu.per_cpu]
    used |= {"usage_in_kernelmode": cpu.kernel if cpu else 0, "usage_in_usermode": cpu.user if cpu else 0}
    machine = {"system_cpu_usage": cpu.system, "online_cpus": cpu.online} if cpu else {}
    throttling = {
        "periods": cpu.periods if cpu else 0,
        "throttled_periods": cpu.throttled_periods if cpu else 0,
        "throttled_time": cpu.throttled if cpu else 0,
    }
    return {"cpu_usage": used, **machine, "throttling_data": throttling}


def _memory(memory: MemoryUsage) -> dict[str, Any]:
    more = {"max_usage": memory.max_usage, "failcnt": memory.failcnt}
    return {
        "usage": memory.usage,
        **{name: value for name, value in more.items() if value},
        "stats": dict(memory.stats),
        "limit": memory.limit,
    }


def _blocks(usage: ContainerUsage | None) -> dict[str, Any]:
    lists: dict[str, Any] = {
        "io_service_bytes_recursive": _entries(usage.block_bytes if usage else None),
        "io_serviced_recursive": _entries(usage.block_operations if usage else None),
    }
    rest: list[Any] | None = [] if usage and not usage.v2 else None
    return lists | dict.fromkeys(_BLOCK_LISTS, rest)


def _entries(blocks: Sequence[BlockIo] | None) -> list[dict[str, Any]] | None:
    if blocks is None:
        return None
    return [{"major": b.major, "minor": b.minor, "op": b.operation, "value": b.value} for b in blocks]


def _link(link: LinkUsage) -> dict[str, int]:
    return {name: getattr(link, name) for name in link.__slots__}

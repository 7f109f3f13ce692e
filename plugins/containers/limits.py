"""New resource limits of a container that exists."""

from __future__ import annotations

from plugin_sdk import Conflict, InvalidParameter
from plugin_sdk.containers import HostConfig, Resources

LEAST_MEMORY = 6 << 20
"""Bytes; with less, no process gets as far as its own code."""


def changed_limits(host: HostConfig, resources: Resources, failed: str) -> HostConfig:
    """The host configuration with those limits that are given; zero and None mean: as before.

    Args:
        failed: begins the messages about limits that do not go with each other.

    Raises:
        InvalidParameter: a limit that cannot be.
        Conflict: it does not go with the present ones.
    """
    given = {
        field: value
        for field in Resources.model_fields
        if (value := getattr(resources, field)) not in (0, None, "", [])
    }
    memory, swap = given.get("Memory", 0), given.get("MemorySwap", 0)
    if memory and memory < LEAST_MEMORY:
        raise InvalidParameter("Minimum memory limit allowed is 6MB")
    if memory > 0 and swap > 0 and swap < memory:
        raise InvalidParameter("Minimum memoryswap limit should be larger than memory limit, see usage")
    if memory and not swap and 0 < host.MemorySwap < memory:
        raise Conflict(
            f"{failed}Memory limit should be smaller than already set memoryswap limit,"
            " update the memoryswap at the same time"
        )
    if given.get("NanoCpus") and (host.CpuPeriod or host.CpuQuota):
        raise Conflict(f"{failed}Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set")
    if host.NanoCpus and (given.get("CpuPeriod") or given.get("CpuQuota")):
        raise Conflict(f"{failed}Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set")
    return host.model_copy(update=given)

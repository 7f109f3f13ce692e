"""New resource limits of a container that exists."""

from __future__ import annotations

from typing import Any

from plugin_sdk import Conflict, InvalidParameter
from plugin_sdk.containers import HostConfig, Resources

_TOGETHER = ({"Memory", "MemorySwap"}, {"CpuPeriod", "CpuQuota"})
"""Limits that cgroup v2 keeps in one file, or as the difference of the two."""
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
    given = _given(resources)
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
    for field, words in (("CpuPeriod", "CPU Period"), ("CpuQuota", "CPU Quota")):
        if host.NanoCpus and given.get(field):
            raise Conflict(f"{failed}Conflicting options: {words} cannot be updated as NanoCPUs has already been set")
    return host.model_copy(update=given)


def to_apply(host: HostConfig, resources: Resources) -> Resources:
    """Of the new configuration `host` what has to be told the kernel: what was given, and what goes with it.

    The rest stays untouched: a limit that was fine when it was set may no longer be (memory below a reservation).
    """
    fields = set(_given(resources))
    for together in _TOGETHER:
        if fields & together:
            fields |= together
    return Resources.model_construct(**{field: getattr(host, field) for field in fields})


def _given(resources: Resources) -> dict[str, Any]:
    return {
        field: value
        for field in Resources.model_fields
        if (value := getattr(resources, field)) not in (0, None, "", [])
    }

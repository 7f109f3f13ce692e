"""Limits of a running container that are taken away altogether, which crun's `update` (1.8) cannot write."""

from __future__ import annotations

from typing import Any

from plugins.runtime_oci.cgroups import Cgroups

Lifted = list[tuple[str, str, str]]
"""(controller, file, text) to write."""


def take_lifted(limits: dict[str, Any], *, v2: bool) -> Lifted:
    """Take out of the OCI spec's `linux.resources` what says -1 and is no number to the kernel."""
    lifted: Lifted = []
    if limits.get("pids", {}).get("limit", 0) < 0:
        del limits["pids"]
        lifted.append(("pids", "pids.max", "max"))
    cpu = limits.get("cpu", {})
    if cpu.get("quota", 0) < 0:
        del cpu["quota"]
        lifted.append(("cpu", "cpu.max", "max") if v2 else ("cpu", "cpu.cfs_quota_us", "-1"))
    return lifted


def lift(groups: Cgroups, pid: int, lifted: Lifted) -> None:
    """Write them into the control groups of a process. Blocking, but kernel memory only. Raises OSError."""
    for controller, file, text in lifted:
        group = groups.in_controller(pid, controller)
        if group is not None:
            (group / file).write_text(text)

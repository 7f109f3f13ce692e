"""Namespaces of a container: its own, the host's, or another container's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from plugin_sdk import Conflict, InvalidParameter
from plugin_sdk.containers import ContainerRecord

FindContainer = Callable[[str], ContainerRecord]
"""A container by name or ID; raises NotFound."""

OTHER = "container:"


def check_mode(value: str, allowed: tuple[str, ...], what: str) -> None:
    """Raises InvalidParameter for a mode that is neither allowed nor `container:REF` (if "container:" is allowed)."""
    if value in allowed and value != OTHER:
        return
    if OTHER in allowed and value.startswith(OTHER) and len(value) > len(OTHER):
        return
    raise InvalidParameter(f"invalid {what} mode: {value}")


def namespaces(
    container: ContainerRecord, netns: Path | None, find: FindContainer, userns: Path | None = None
) -> list[dict[str, Any]]:
    """The spec's `linux.namespaces`.

    Raises:
        NotFound, Conflict: another container to join does not exist, does not run, or does not share.
    """
    host = container.HostConfig
    found: list[dict[str, Any]] = [{"type": "mount"}]
    if container.Ids is not None:
        # The owner of the network namespace, so that root in the container may do there what it may.
        found.append({"type": "user", "path": str(userns)} if userns is not None else {"type": "user"})
    if netns is not None:
        found.append({"type": "network", "path": str(netns)})
    if host.UTSMode != "host":
        found.append({"type": "uts"})
    if host.PidMode != "host":
        found.append(_own_or_joined("pid", host.PidMode, "PID", find))
    if host.IpcMode != "host":
        found.append(_own_or_joined("ipc", host.IpcMode, "IPC", find))
    if host.CgroupnsMode == "private":
        found.append({"type": "cgroup"})
    return found


def _own_or_joined(kind: str, mode: str, what: str, find: FindContainer) -> dict[str, Any]:
    if not mode.startswith(OTHER):
        return {"type": kind}
    donor = running_donor(mode, what, find)
    return {"type": kind, "path": f"/proc/{donor.State.Pid}/ns/{kind}"}


def running_donor(mode: str, what: str, find: FindContainer) -> ContainerRecord:
    """The container that `container:REF` means. Raises NotFound, or Conflict unless it runs and shares."""
    ref = mode.removeprefix(OTHER)
    donor = find(ref)
    if not donor.State.running or not donor.State.Pid:
        raise Conflict(f"cannot join {what} of a non running container: {donor.Id}")
    if what == "IPC" and donor.HostConfig.IpcMode not in ("shareable", "host"):
        raise Conflict(
            f"can't join IPC of container {donor.Id}: non-shareable IPC"
            " (hint: use IpcMode:shareable for the donor container)"
        )
    return donor

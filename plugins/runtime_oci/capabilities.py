"""Linux capabilities: names, Docker's default set, and what CapAdd, CapDrop and Privileged make of it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from plugin_sdk import InvalidParameter

NAMES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
    *("LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER"),
    *("SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"),
    *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP"),
    *("MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF"),
    "CHECKPOINT_RESTORE",
)
"""In the order of their numbers (linux/capability.h)."""

DEFAULT = (
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID"),
    *("CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL"),
    "CAP_AUDIT_WRITE",
)
"""Docker's fourteen."""

_KNOWN = frozenset(f"CAP_{name}" for name in NAMES)


@cache
def available() -> tuple[str, ...]:
    """Those that the daemon itself may hand on: what its bounding set holds."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            bits = int(line.split()[1], 16)
            return tuple(f"CAP_{name}" for number, name in enumerate(NAMES) if bits >> number & 1)
    return tuple(f"CAP_{name}" for name in NAMES)


def normalise(names: Iterable[str], field: str) -> list[str]:
    """`net_admin` as `CAP_NET_ADMIN`; ALL stays. Raises InvalidParameter in dockerd's words."""
    found = []
    for name in names:
        upper = name.strip().upper()
        if upper != "ALL":
            upper = upper if upper.startswith("CAP_") else f"CAP_{upper}"
            if upper not in _KNOWN:
                raise InvalidParameter(f'invalid {field}: unknown capability: "{upper}"')
        found.append(upper)
    return found


def effective(add: Iterable[str], drop: Iterable[str], *, privileged: bool) -> tuple[str, ...]:
    """The set of a container, in a stable order.

    With ALL added, the drops are taken from all; with ALL dropped, only what is added stays. What the daemon lacks
    itself is left out of "all", but kept when it was asked for by name, so that the runtime says what is wrong.
    """
    if privileged:
        return available()
    added, dropped = normalise(add, "CapAdd"), normalise(drop, "CapDrop")
    if "ALL" in added:
        return tuple(name for name in available() if name not in dropped)
    if "ALL" in dropped:
        return tuple(dict.fromkeys(added))
    return tuple(dict.fromkeys([*(name for name in DEFAULT if name not in dropped), *added]))

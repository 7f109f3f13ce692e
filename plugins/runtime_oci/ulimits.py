"""Resource limits by Docker's names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from plugin_sdk import InvalidParameter
from plugin_sdk.containers import Ulimit

NAMES = frozenset(
    (
        *("core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss"),
        *("rtprio", "rttime", "sigpending", "stack"),
    )
)
"""What setrlimit(2) knows."""

INFINITY = (1 << 64) - 1


def parse_ulimit(text: str) -> dict[str, Any]:
    """`nofile=1024:2048` as the fields of a Ulimit. Raises ValueError."""
    name, _, value = text.partition("=")
    soft, _, hard = value.partition(":")
    try:
        return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}
    except ValueError:
        raise ValueError(f"invalid ulimit argument: {text}: want NAME=SOFT[:HARD]") from None


def check_ulimits(limits: Iterable[Ulimit]) -> None:
    """Raises InvalidParameter for an unknown name, or a soft limit above the hard one."""
    for limit in limits:
        if limit.Name not in NAMES:
            raise InvalidParameter(f"invalid ulimit type: {limit.Name}")
        if limit.Hard != -1 and (limit.Soft == -1 or limit.Soft > limit.Hard):
            raise InvalidParameter(
                f"ulimit soft limit must be less than or equal to hard limit: {limit.Name}: {limit.Soft} > {limit.Hard}"
            )


def rlimits(asked: Iterable[Ulimit], defaults: Mapping[str, Ulimit]) -> list[dict[str, Any]]:
    """The OCI spec's `process.rlimits`: what was asked, then the daemon's defaults for the rest."""
    merged = dict(defaults) | {limit.Name: limit for limit in asked}
    return [
        {
            "type": f"RLIMIT_{limit.Name.upper()}",
            "soft": limit.Soft if limit.Soft >= 0 else INFINITY,
            "hard": limit.Hard if limit.Hard >= 0 else INFINITY,
        }
        for limit in merged.values()
    ]

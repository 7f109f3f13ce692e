"""What a health check runs, how often, and what its results mean.

Source: the descriptions of `HealthConfig`, `Health` and `HealthcheckResult` in the Docker Engine API v1.51; dockerd 26.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plugin_sdk.containers import ContainerConfig, Health, HealthResult

STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"
KEPT = 5
"""Results that are kept."""
OUTPUT = 4096
"""Bytes of a probe's output that are kept."""

_SECOND = 10**9


@dataclass(frozen=True, slots=True)
class Probe:
    """A container's health check; times in nanoseconds."""

    argv: Sequence[str]
    interval: int
    timeout: int
    start_period: int
    start_interval: int
    retries: int

    def pause(self, health: Health, ran: int) -> int:
        """Nanoseconds until the next probe of a container that has run for `ran`."""
        starting = health.Status == STARTING and ran < self.start_period
        return self.start_interval if starting else self.interval

    def after(self, health: Health, result: HealthResult, ran: int) -> Health:
        """The health after a probe that began when the container had run for `ran` nanoseconds."""
        log = [*health.Log, result][-KEPT:]
        if result.ExitCode == 0:
            return Health(Status=HEALTHY, Log=log)
        if health.Status == STARTING and ran < self.start_period:
            return health.model_copy(update={"Log": log})
        streak = health.FailingStreak + 1
        status = UNHEALTHY if streak >= self.retries else health.Status
        return Health(Status=status, FailingStreak=streak, Log=log)


def of(config: ContainerConfig) -> Probe | None:
    """The probe that a container's configuration asks for, or None: none, `NONE`, or a kind that nobody knows."""
    check = config.Healthcheck
    if check is None or not check.Test:
        return None
    match check.Test:
        case ["CMD", *argv] if argv:
            command = argv
        case ["CMD-SHELL", text, *_]:
            command = [*(config.Shell or ["/bin/sh", "-c"]), text]
        case _:
            return None
    return Probe(
        argv=command,
        interval=check.Interval or 30 * _SECOND,
        timeout=check.Timeout or 30 * _SECOND,
        start_period=check.StartPeriod,
        start_interval=check.StartInterval or 5 * _SECOND,
        retries=check.Retries or 3,
    )


def shown(output: bytes) -> str:
    """A probe's output as it is kept."""
    text = output[:OUTPUT].decode(errors="replace")
    return text + "..." if len(output) > OUTPUT else text

"""Restart policies: does a container start again after its end, and when."""

from __future__ import annotations

from dataclasses import dataclass

from plugin_sdk import EngineError, InvalidParameter, PluginError, Unavailable
from plugin_sdk.containers import ContainerRecord, RestartRule

FIRST_DELAY = 0.1
LONGEST_DELAY = 60.0
CALM_AFTER = 10.0
"""Seconds of running after which the delay begins anew."""

POLICIES = ("no", "always", "on-failure", "unless-stopped")


@dataclass(slots=True)
class Backoff:
    """Seconds between an end and the next start: they double with every end that comes early."""

    delay: float = 0.0

    def next(self, ran: float) -> float:
        """Delay after a run of `ran` seconds."""
        if ran >= CALM_AFTER:
            self.delay = 0.0
        self.delay = min(self.delay * 2, LONGEST_DELAY) if self.delay else FIRST_DELAY
        return self.delay


def check(rule: RestartRule) -> None:
    """Raises InvalidParameter for what is no policy."""
    problem = ""
    if rule.Name and rule.Name not in POLICIES:
        problem = f"unknown policy '{rule.Name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
    elif rule.MaximumRetryCount and rule.Name != "on-failure":
        problem = "maximum retry count can only be used with 'on-failure'"
        if rule.MaximumRetryCount < 0:
            problem += " and cannot be negative"
    elif rule.MaximumRetryCount < 0:
        problem = "maximum retry count cannot be negative"
    if problem:
        raise InvalidParameter(f"invalid restart policy: {problem}")


def wanted_after_exit(record: ContainerRecord, code: int) -> bool:
    """Whether a container that has just ended with `code` starts again."""
    rule = record.HostConfig.RestartPolicy
    if record.State.StoppedByUser:
        return False
    if rule.Name == "on-failure":
        return code != 0 and (rule.MaximumRetryCount == 0 or record.RestartCount < rule.MaximumRetryCount)
    return rule.Name in ("always", "unless-stopped")


def wanted_after_failed_start(record: ContainerRecord, error: EngineError) -> bool:
    """Whether a container that could not be started by its policy is tried again.

    `on-failure` speaks of the container's own failures: it is tried again when something that it needs is missing, as a
    volume's plugin that is not there yet after a boot of the machine, and not when the container itself cannot be run.
    """
    rule = record.HostConfig.RestartPolicy.Name
    if rule == "on-failure":
        return isinstance(error, Unavailable | PluginError)
    return rule in ("always", "unless-stopped")


def wanted_at_boot(record: ContainerRecord) -> bool:
    """Whether a container that had ended before the daemon started is started with it."""
    rule = record.HostConfig.RestartPolicy
    if not record.State.StartedAt:
        return False
    return rule.Name == "always" or (rule.Name == "unless-stopped" and not record.State.StoppedByUser)

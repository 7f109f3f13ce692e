"""One plugin that was found: its state, its failures, what is told of it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic

from pydantic import BaseModel

from kernel import graph
from kernel.context import Context
from kernel.contracts.plugin import Plugin, PluginMeta, PluginState, PluginStatus
from kernel.discovery import Found

TRIP_FAILURES = 10
TRIP_SECONDS = 60.0
"""A plugin that fails so often within so long is switched off, unless it is essential or others need it."""

log = logging.getLogger("engine.plugins")


class PluginSwitch(BaseModel):
    """Remembered across restarts: whether the operator wants a plugin to run."""

    name: str
    enabled: bool


@dataclass(slots=True)
class Entry:
    """One plugin that was found, whatever became of it."""

    found: Found
    state: PluginState = PluginState.PENDING
    reason: str = ""
    instance: Plugin | None = None
    context: Context | None = None
    misconfigured: bool = False
    restored: bool = False
    failures: int = 0
    last_error: str = ""
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=TRIP_FAILURES))

    @property
    def name(self) -> str:
        return self.found.name

    @property
    def meta(self) -> PluginMeta:
        assert self.found.plugin is not None
        return self.found.plugin.meta

    @property
    def enabled(self) -> bool:
        return self.state is PluginState.ENABLED

    @property
    def dependable(self) -> bool:
        """Nothing may go on without it."""
        return self.found.plugin is not None and self.meta.essential

    def fail(self, reason: str) -> None:
        """It does not run, and this is why."""
        log.error("plugin %r does not run: %s", self.name, reason)
        self.state, self.reason = PluginState.FAILED, reason

    def note(self, call: str, error: BaseException) -> bool:
        """Count a failure. True when there were too many within too short a time."""
        self.failures += 1
        self.last_error = f"{call}: {error!r}"
        log.error(
            "plugin %r failed in %s: %r",
            self.name,
            call,
            error,
            exc_info=error if self.failures <= TRIP_FAILURES else None,
        )
        self.recent.append(monotonic())
        return len(self.recent) == TRIP_FAILURES and self.recent[-1] - self.recent[0] < TRIP_SECONDS

    def status(self, drivers: Sequence[str]) -> PluginStatus:
        """For people."""
        meta = self.found.plugin.meta if self.found.plugin else PluginMeta(self.name)
        return PluginStatus(
            name=self.name,
            state=self.state,
            description=meta.description,
            reason=self.reason,
            distribution=self.found.distribution,
            version=self.found.version,
            failures=self.failures,
            restored=self.restored,
            essential=meta.essential,
            provides=[graph.contract_name(contract) for contract in meta.provides],
            requires=[graph.contract_name(contract) for contract in meta.requires],
            drivers=drivers,
            last_error=self.last_error,
        )

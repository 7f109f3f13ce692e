"""Events: what happened, told after the fact."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Event:
    """One event in the shape of the API's `/events`.

    Attributes:
        type: "container", "image", "volume", "network", "plugin", "daemon", ...
        action: "create", "start", "die", ... (`exec_start: sh` carries its command, as Docker's do).
        actor: ID of the object (its name, for volumes).
        attributes: labels and facts, for example `name`, `image`, `exitCode`.
        scope: "local" or "swarm".
        time_ns: nanoseconds since the epoch; strictly increasing within one engine.
    """

    type: str
    action: str
    actor: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    scope: str = "local"
    time_ns: int = field(default_factory=time.time_ns)


class EventBus(Protocol):
    """In-process bus. Publishing never waits; a subscriber that falls behind is told so and cut off."""

    def publish(self, event: Event) -> None:
        """Tell all subscribers, and the plugins that implement `engine_event`."""

    def recent(self) -> list[Event]:
        """The newest events of this run of the daemon, oldest first."""

    def subscribe(self, *, since_ns: int | None = None, until_ns: int = 0) -> AsyncIterator[Event]:
        """Events from now on, after those kept that are not older than `since_ns`; up to `until_ns` (0: no bound).

        What is kept outlives the daemon, in a journal of bounded size. The iterator ends at `until_ns` and when the engine
        stops. Raises Unavailable to a subscriber whose queue ran full, OSError when the journal cannot be read.
        """

"""The bus: in memory, never waiting for a listener."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from kernel.contracts.events import Event
from kernel.errors import Unavailable

KEPT = 4096
"""Events that late subscribers can still have."""
BEHIND = 4096
"""Events that a subscriber may lag behind before it is cut off."""


class Subscription(AsyncIterator[Event]):
    """One listener's place on the bus; dropping it is enough to leave."""

    def __init__(self, past: list[Event], *, ended: bool) -> None:
        self._waiting = deque(past)
        self._room = BEHIND + len(past)
        self._ended = ended
        self._late = False
        self._wake = asyncio.Event()

    def offer(self, event: Event) -> None:
        """Queue an event; a full queue ends the subscription."""
        if len(self._waiting) >= self._room:
            self._late = self._ended = True
        if not self._ended:
            self._waiting.append(event)
        self._wake.set()

    def end(self) -> None:
        """No more will come."""
        self._ended = True
        self._wake.set()

    async def aclose(self) -> None:
        """Leave."""
        self._waiting.clear()
        self.end()

    async def __anext__(self) -> Event:
        while not self._waiting:
            if self._late:
                raise Unavailable(f"too slow: more than {BEHIND} events behind")
            if self._ended:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        return self._waiting.popleft()


class Bus:
    """Fulfils `contracts.events.EventBus`. Belongs to the event loop's thread."""

    def __init__(self) -> None:
        self._recent: deque[Event] = deque(maxlen=KEPT)
        self._subscriptions: weakref.WeakSet[Subscription] = weakref.WeakSet()
        self._last_ns = 0
        self._closed = False
        self.listener: Callable[[Event], None] | None = None
        """Told of every event; the kernel hands them to the `engine_event` hook from here."""

    def publish(self, event: Event) -> None:
        """See `EventBus.publish`."""
        if event.time_ns <= self._last_ns:
            event = replace(event, time_ns=self._last_ns + 1)
        self._last_ns = event.time_ns
        self._recent.append(event)
        for subscription in list(self._subscriptions):
            subscription.offer(event)
        if self.listener is not None:
            self.listener(event)

    def recent(self) -> list[Event]:
        """See `EventBus.recent`."""
        return list(self._recent)

    def subscribe(self, *, since_ns: int | None = None) -> Subscription:
        """See `EventBus.subscribe`. Events count from this call on, not from the first step of the iterator."""
        past = [event for event in self._recent if since_ns is not None and event.time_ns >= since_ns]
        subscription = Subscription(past, ended=self._closed)
        self._subscriptions.add(subscription)
        return subscription

    def close(self) -> None:
        """End all subscriptions."""
        self._closed = True
        for subscription in list(self._subscriptions):
            subscription.end()

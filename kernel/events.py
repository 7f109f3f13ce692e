"""The bus: never waiting for a listener, nor for the journal that keeps the past."""

from __future__ import annotations

import asyncio
import itertools
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace

from kernel.contracts.events import Event
from kernel.errors import Unavailable
from kernel.journal import Journal

KEPT = 4096
"""Events of this run of the daemon that stay in memory; older ones come from the journal."""
BEHIND = 4096
"""Events that a subscriber may lag behind before it is cut off."""
_PAGE = 512
"""Events that are read from the journal at a time."""


class Subscription(AsyncIterator[Event]):
    """One listener's place on the bus; dropping it is enough to leave."""

    def __init__(self, older: Iterator[Event], past: list[Event], until_ns: int, *, ended: bool) -> None:
        self._older: Iterator[Event] | None = older
        self._page: deque[Event] = deque()
        self._waiting = deque(past)
        self._until_ns = until_ns
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
        self._older = None
        self._page.clear()
        self._waiting.clear()
        self.end()

    async def __anext__(self) -> Event:
        event = await self._next()
        if self._until_ns and event.time_ns > self._until_ns:
            await self.aclose()
            raise StopAsyncIteration
        return event

    async def _next(self) -> Event:
        while self._older is not None and not self._page:
            page = await asyncio.to_thread(_page, self._older)
            self._page.extend(page)
            if len(page) < _PAGE:
                self._older = None
        if self._page:
            return self._page.popleft()
        while not self._waiting:
            if self._late:
                raise Unavailable(f"too slow: more than {BEHIND} events behind")
            if self._ended:
                raise StopAsyncIteration
            self._wake.clear()
            try:
                async with asyncio.timeout(self._left()):
                    await self._wake.wait()
            except TimeoutError:
                raise StopAsyncIteration from None
        return self._waiting.popleft()

    def _left(self) -> float | None:
        return (self._until_ns - time.time_ns()) / 10**9 if self._until_ns else None


def _page(events: Iterator[Event]) -> list[Event]:
    return list(itertools.islice(events, _PAGE))


class Bus:
    """Fulfils `contracts.events.EventBus`. Belongs to the event loop's thread."""

    def __init__(self, journal: Journal | None = None) -> None:
        self._journal = journal
        self._recent: deque[Event] = deque(maxlen=KEPT)
        self._subscriptions: weakref.WeakSet[Subscription] = weakref.WeakSet()
        self._last_ns = journal.last_ns if journal is not None else 0
        self._closed = False
        self.listener: Callable[[Event], None] | None = None
        """Told of every event; the kernel hands them to the `engine_event` hook from here."""

    def publish(self, event: Event) -> None:
        """See `EventBus.publish`."""
        if event.time_ns <= self._last_ns:
            event = replace(event, time_ns=self._last_ns + 1)
        self._last_ns = event.time_ns
        self._recent.append(event)
        if self._journal is not None:
            self._journal.append(event)
        for subscription in list(self._subscriptions):
            subscription.offer(event)
        if self.listener is not None:
            self.listener(event)

    def recent(self) -> list[Event]:
        """See `EventBus.recent`."""
        return list(self._recent)

    def subscribe(self, *, since_ns: int | None = None, until_ns: int = 0) -> Subscription:
        """See `EventBus.subscribe`. Events count from this call on, not from the first step of the iterator."""
        past: list[Event] = []
        older: Iterator[Event] = iter(())
        if since_ns is not None:
            past = [event for event in self._recent if event.time_ns >= since_ns]
            oldest = self._recent[0].time_ns if self._recent else self._last_ns + 1
            if self._journal is not None and since_ns < oldest:
                older = self._journal.read(since_ns, oldest)
        subscription = Subscription(older, past, until_ns, ended=self._closed)
        self._subscriptions.add(subscription)
        return subscription

    def close(self) -> None:
        """End all subscriptions. The journal goes on until `shut`: what happens while the engine stops is kept too."""
        self._closed = True
        for subscription in list(self._subscriptions):
            subscription.end()

    def shut(self) -> None:
        """Close the journal. Blocking."""
        if self._journal is not None:
            self._journal.close()

"""The bus."""

import asyncio

import pytest

from kernel.events import BEHIND, Bus
from plugin_sdk import Event, Unavailable


def event(action: str, time_ns: int = 0) -> Event:
    return Event("container", action, "id", time_ns=time_ns)


async def test_times_strictly_increase_and_since_replays() -> None:
    bus = Bus()
    for action in "abc":
        bus.publish(event(action, 100))
    assert [item.time_ns for item in bus.recent()] == [100, 101, 102]
    events = bus.subscribe(since_ns=101)
    bus.publish(event("d"))
    assert [(await anext(events)).action for _ in range(3)] == ["b", "c", "d"]


async def test_the_end_of_the_bus_ends_the_subscriptions() -> None:
    bus = Bus()
    events = bus.subscribe()
    waiting = asyncio.create_task(anext(events))
    await asyncio.sleep(0)
    bus.close()
    with pytest.raises(StopAsyncIteration):
        await waiting
    assert [item async for item in bus.subscribe()] == []


async def test_a_slow_subscriber_is_cut_off_and_holds_nobody_up() -> None:
    bus = Bus()
    slow = bus.subscribe()
    for number in range(BEHIND + 1):
        bus.publish(event(str(number)))
    received = 0
    with pytest.raises(Unavailable, match="too slow"):
        async for _ in slow:
            received += 1
    assert received == BEHIND


def test_a_dropped_subscription_leaves_nothing() -> None:
    bus = Bus()
    subscription = bus.subscribe()
    del subscription
    bus.publish(event("a"))
    assert not bus._subscriptions

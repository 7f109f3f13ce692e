"""Which events pass, how they look, and when a stream of them ends."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from kernel.events import Bus
from plugin_sdk import Event, InvalidParameter
from plugins.system.events import check_span, shown, stream, wanted

START = Event("container", "start", "c1" * 32, {"name": "web", "image": "nginx:1", "app": "shop"})
EXEC = Event("container", "exec_start: sh -c true", "c1" * 32, {"name": "web", "image": "nginx:1"})
TAG = Event("image", "tag", "sha256:abc", {"name": "nginx:1"})
CONNECT = Event("network", "connect", "n1", {"name": "front", "container": "c1" * 32})


@pytest.mark.parametrize(
    ("event", "filters", "passes"),
    [
        (START, {}, True),
        (START, {"type": ["container"]}, True),
        (START, {"type": ["image", "container"]}, True),
        (START, {"type": ["image"]}, False),
        (START, {"event": ["start"]}, True),
        (START, {"event": ["stop"]}, False),
        (EXEC, {"event": ["exec_start"]}, True),
        (EXEC, {"event": ["exec_start: sh -c true"]}, True),
        (START, {"container": ["web"]}, True),
        (START, {"container": ["c1c1"]}, True),
        (START, {"container": ["db"]}, False),
        (TAG, {"container": ["web"]}, False),
        (START, {"image": ["nginx"]}, True),
        (START, {"image": ["nginx:1"]}, True),
        (START, {"image": ["nginx:2"]}, False),
        (TAG, {"image": ["nginx"]}, True),
        (TAG, {"image": ["sha256:abc"]}, True),
        (START, {"label": ["app"]}, True),
        (START, {"label": ["app=shop"]}, True),
        (START, {"label": ["app=blog"]}, False),
        (START, {"label": ["app", "tier"]}, False),
        (CONNECT, {"network": ["front"]}, True),
        (CONNECT, {"network": ["back"]}, False),
        (START, {"scope": ["local"]}, True),
        (START, {"scope": ["swarm"]}, False),
        (START, {"type": ["container"], "event": ["stop"]}, False),
    ],
)
def test_filters(event: Event, filters: dict[str, list[str]], passes: bool) -> None:
    assert wanted(event, filters) is passes


def test_container_events_carry_the_old_fields_too() -> None:
    message = shown(START)
    assert (message["status"], message["id"], message["from"]) == ("start", "c1" * 32, "nginx:1")
    assert message["Actor"] == {"ID": "c1" * 32, "Attributes": {"name": "web", "image": "nginx:1", "app": "shop"}}
    assert message["time"] == message["timeNano"] // 10**9
    assert "from" not in shown(TAG)
    assert "status" not in shown(CONNECT)


async def collect(bus: Bus, since_ns: int, until_ns: int) -> list[Any]:
    return [json.loads(line) async for line in stream(bus, {}, since_ns, until_ns, lambda _: None)]


async def test_past_events_come_in_order_and_the_stream_ends() -> None:
    bus = Bus()
    for number in range(5):
        bus.publish(Event("container", "start", str(number)))
    got = await asyncio.wait_for(collect(bus, 1, time.time_ns()), 5)
    assert [event["id"] for event in got] == ["0", "1", "2", "3", "4"]


async def test_until_without_since_shows_what_is_kept() -> None:
    bus = Bus()
    bus.publish(Event("container", "start", "x"))
    assert len(await asyncio.wait_for(collect(bus, 0, time.time_ns() + 10**8), 5)) == 1


async def test_new_events_come_until_the_end() -> None:
    bus = Bus()
    bus.publish(Event("container", "start", "old"))
    listeners = []
    lines = stream(bus, {}, 0, 0, listeners.append)
    first = asyncio.create_task(anext(lines))
    await asyncio.sleep(0.05)
    bus.publish(Event("container", "start", "new"))
    assert json.loads(await asyncio.wait_for(first, 5))["id"] == "new"
    await lines.aclose()
    assert listeners == [1, -1]


async def test_the_stream_ends_with_the_engine() -> None:
    bus = Bus()
    task = asyncio.create_task(collect(bus, 0, 0))
    await asyncio.sleep(0.05)
    bus.close()
    assert await asyncio.wait_for(task, 5) == []


def test_an_end_before_the_beginning_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="cannot be after"):
        check_span(2 * 10**9, 10**9)

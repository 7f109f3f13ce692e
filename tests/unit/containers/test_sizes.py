"""How much containers have written: who measures, who waits, what is believed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from plugin_sdk import EngineError
from plugins.containers import sizes
from plugins.containers.sizes import Sizes


class SlowStorage:
    """A layer whose measurement ends when the test says so."""

    def __init__(self) -> None:
        self.asked = 0
        self.size = 7
        self.go = asyncio.Event()

    async def usage(self, name: str) -> int:
        self.asked += 1
        await self.go.wait()
        if self.size < 0:
            raise EngineError("no such layer")
        return self.size


@pytest.fixture
async def storage(world: Any, monkeypatch: pytest.MonkeyPatch) -> SlowStorage:
    slow = SlowStorage()
    monkeypatch.setattr(world.service, "storage_of", lambda record: slow)
    return slow


async def test_who_asks_at_once_shares_one_measurement(world: Any, storage: SlowStorage) -> None:
    record = await world.make("one")
    measured = Sizes(world.service)
    asking = [asyncio.ensure_future(measured.of(record)) for _ in range(20)]
    await asyncio.sleep(0)
    storage.go.set()
    assert await asyncio.gather(*asking) == [(7, 107)] * 20
    assert storage.asked == 1


async def test_a_dear_measurement_is_believed_and_a_cheap_one_repeated(
    world: Any, storage: SlowStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = await world.make("one")
    measured = Sizes(world.service)
    storage.go.set()
    monkeypatch.setattr(sizes, "BELIEVED", 10**9)
    await measured.of(record)
    storage.size = 8
    assert await measured.of(record) == (7, 107)
    monkeypatch.setattr(sizes, "BELIEVED", 0.0)
    again = Sizes(world.service)
    await again.of(record)
    storage.size = 9
    assert await again.of(record) == (9, 109)


async def test_nobody_waits_for_ever_when_an_old_number_is_known(
    world: Any, storage: SlowStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "PATIENCE", 0.01)
    monkeypatch.setattr(sizes, "BELIEVED", 0.0)
    record = await world.make("one")
    measured = Sizes(world.service)
    storage.go.set()
    await measured.of(record)
    storage.go.clear()
    storage.size = 1000
    assert await measured.of(record) == (7, 107)
    storage.go.set()
    await asyncio.sleep(0.05)
    assert await measured.of(record) == (1000, 1100)


async def test_what_cannot_be_measured_is_nothing(world: Any, storage: SlowStorage) -> None:
    record = await world.make("one")
    storage.size = -1
    storage.go.set()
    assert await Sizes(world.service).of(record) == (0, 0)


async def test_sizes_of_containers_that_are_gone_are_forgotten(world: Any, storage: SlowStorage) -> None:
    storage.go.set()
    measured = Sizes(world.service)
    record = await world.make("one")
    for number in range(200):
        await measured.of(record.model_copy(update={"Id": f"{number:064x}"}))
    assert len(measured._known) < 100

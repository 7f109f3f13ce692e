"""Kits from a thread of their own: drivers are called on the engine's loop, and nothing else is."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from plugin_sdk import NotFound
from plugin_sdk.testing import elsewhere
from plugin_sdk.testing.kit import Bench, Kit, Outcome
from plugin_sdk.testing.subjects import in_use


class Sink:
    async def write(self, data: str) -> str:
        return f"{data} {threading.current_thread() is threading.main_thread()}"

    async def close(self) -> None:
        return


class Driver:
    name = "here"

    def plain(self, refuse: bool = False) -> bool:
        if refuse:
            raise NotFound("plainly")
        return threading.current_thread() is threading.main_thread()

    async def slow(self) -> bool:
        await asyncio.sleep(0.01)
        return threading.current_thread() is threading.main_thread()

    async def refuse(self) -> None:
        raise NotFound("no")

    async def open(self) -> Sink:
        return Sink()

    def read(self) -> AsyncIterator[int]:
        async def numbers() -> AsyncIterator[int]:
            for number in range(3):
                await asyncio.sleep(0)
                yield number

        return numbers()


class Plain(Bench[Any]):
    """A bench over anything."""


def kit_of(*functions: Any) -> Kit:
    kit = Kit("Plain", object, Plain)
    for function in functions:
        kit.check("it holds", says="Plain: it holds.", deadline=20)(function)
    return kit


async def test_drivers_are_called_at_home_and_checks_may_block() -> None:
    async def calls(bench: Plain) -> None:
        driver = bench.driver
        assert threading.current_thread() is not threading.main_thread()
        assert (driver.name, driver.plain(), await driver.slow()) == ("here", True, True)
        assert [number async for number in driver.read()] == [0, 1, 2]
        sink = await driver.open()
        assert await sink.write("x") == "x True"
        await bench.refused("it", driver.refuse(), NotFound)
        with pytest.raises(NotFound, match="plainly"):
            driver.plain(refuse=True)
        time.sleep(0.5)  # noqa: ASYNC251 - what a check may do, and the engine may not

    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    found = [result async for result in elsewhere.run(kit_of(calls), in_use(Driver(), "it"))]
    ticking.cancel()
    assert [(each.outcome, each.detail) for each in found] == [(Outcome.HOLDS, "")]
    assert ticks > 20


async def test_whoever_stops_listening_stops_the_run_and_has_it_cleaned_up() -> None:
    async def holds(bench: Plain) -> None:
        return

    async def hangs(bench: Plain) -> None:
        bench.later("it", gone)
        await asyncio.sleep(60)

    async def gone() -> None:
        removed.append(True)

    removed: list[bool] = []
    async with aclosing(elsewhere.run(kit_of(holds, hangs), in_use(Driver(), "it"))) as results:
        assert (await anext(results)).outcome is Outcome.HOLDS
        await asyncio.sleep(0.2)
    assert removed == [True]

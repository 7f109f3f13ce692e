"""Readings and the earlier ones they are compared with: how much is asked of runtimes, and what becomes of one that fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from plugin_sdk import EngineError
from plugin_sdk.containers import ContainerRecord, ContainerState, ContainerStatus
from plugin_sdk.runtime import ContainerUsage, CpuUsage, MemoryUsage
from plugin_sdk.testing.records import container_record
from plugin_sdk.times import format_ns
from plugins.stats.sampler import Sampler
from plugins.stats.wire import shown

SECOND = 10**9


def running(runtime: str = "good", *, seconds: float = 100) -> ContainerRecord:
    started = format_ns(time.time_ns() - int(seconds * SECOND))
    state = ContainerState(Status=ContainerStatus.RUNNING, Pid=1, StartedAt=started)
    return container_record(["sleep"]).model_copy(update={"State": state, "Runtime": runtime})


class StubRuntime:
    """Containers that use half a processor; counts what it is asked."""

    def __init__(self, *, failing: bool = False) -> None:
        self.failing = failing
        self.ago_ns = 0
        self.asked: list[str] = []

    def _cpu(self) -> CpuUsage:
        now = time.time_ns() - self.ago_ns
        return CpuUsage(now, total=now // 2, system=2 * now, online=2)

    async def usage(self, container_id: str) -> ContainerUsage:
        self.asked.append("usage")
        if self.failing:
            raise EngineError("out of order")
        return ContainerUsage(self._cpu(), MemoryUsage(1, 2), 1, 0, [], [], {}, False)

    async def cpu_usage(self, container_ids: Sequence[str]) -> Mapping[str, CpuUsage]:
        self.asked.append("cpu_usage")
        if self.failing:
            raise EngineError("out of order")
        return {container_id: self._cpu() for container_id in container_ids}


class World:
    def __init__(self, *records: ContainerRecord) -> None:
        self.records = records
        self.runtimes = {"good": StubRuntime(), "bad": StubRuntime(failing=True)}
        containers: Any = self
        runtime_of: Any = lambda record: self.runtimes[record.Runtime]  # noqa: E731
        self.sampler = Sampler(containers, runtime_of, logging.getLogger("test"))

    def list(self) -> Sequence[ContainerRecord]:
        return self.records

    def get(self, ref: str) -> ContainerRecord:
        return next(record for record in self.records if record.Id == ref)


def percent(document: dict[str, Any]) -> float:
    now, before = document["cpu_stats"], document["precpu_stats"]
    used = now["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
    return float(100 * used / (now["system_cpu_usage"] - before["system_cpu_usage"]) * now["online_cpus"])


async def test_all_containers_of_a_runtime_are_sampled_with_one_question() -> None:
    world = World(*(running() for _ in range(500)))
    await world.sampler.sample()
    assert world.runtimes["good"].asked == ["cpu_usage"]


async def test_one_answer_takes_one_reading_and_has_an_earlier_one() -> None:
    record = running()
    world = World(record)
    world.runtimes["good"].ago_ns = 3 * SECOND
    await world.sampler.sample()
    world.runtimes["good"].ago_ns = 0
    document = shown(await world.sampler.read(record.Id))
    assert world.runtimes["good"].asked == ["cpu_usage", "usage"]
    assert percent(document) == pytest.approx(50, rel=0.01)
    apart = document["cpu_stats"]["system_cpu_usage"] - document["precpu_stats"]["system_cpu_usage"]
    assert apart == pytest.approx(2 * 3 * SECOND, rel=0.1)


async def test_a_reading_of_just_now_is_not_compared_with() -> None:
    record = running(seconds=2)
    world = World(record)
    for _ in range(5):
        document = shown(await world.sampler.read(record.Id))
    # Nothing is old enough but the start.
    assert document["preread"] == record.State.StartedAt


async def test_a_runtime_that_fails_hides_no_other() -> None:
    bad, good = running("bad"), running()
    world = World(bad, good)
    await world.sampler.sample()
    assert world.runtimes["good"].asked == ["cpu_usage"]
    assert [reading.record.Id for reading in await world.sampler.read_all()] == [good.Id]
    with pytest.raises(EngineError, match="out of order"):
        await world.sampler.read(bad.Id)

"""Readings of what containers use, each with an earlier one to compare with.

A percentage of processor time takes two readings with some time between. So that nobody who asks has to wait for the second,
processor time alone is read of all running containers now and then, at the cost of one small file each.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace

from plugin_sdk import Conflict, EngineError, NotFound
from plugin_sdk.containers import ContainerRecord, Containers
from plugin_sdk.runtime import ContainerUsage, CpuUsage, Runtime
from plugin_sdk.times import parse_ns

EVERY = 5.0
"""Seconds between two readings of all containers while nobody asks."""
STREAM_EVERY = 1.0
"""Seconds between two readings for a client that follows."""
APART_NS = 200_000_000
"""Nanoseconds that two readings must lie apart to be compared: the kernel deals out limited processor time by 100 ms."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a container uses, and its processor time before.

    Attributes:
        usage: None for a container that does not run.
        before: an earlier reading of this run.
    """

    record: ContainerRecord
    usage: ContainerUsage | None = None
    before: CpuUsage | None = None


class Sampler:
    """See the module."""

    def __init__(
        self,
        containers: Containers,
        runtime_of: Callable[[ContainerRecord], Runtime],
        log: logging.Logger | logging.LoggerAdapter[logging.Logger],
    ) -> None:
        self._containers = containers
        self._runtime_of = runtime_of
        self._log = log
        self._known: dict[str, list[CpuUsage]] = {}
        """The two latest readings of each running container, the older first."""

    async def run(self) -> None:
        """Read all running containers now and then, for ever."""
        while True:
            await self.sample()
            await asyncio.sleep(EVERY)

    async def sample(self) -> None:
        """Read all running containers once."""
        running = [record for record in self._containers.list() if record.State.running]
        alive = {record.Id for record in running}
        for container_id in [name for name in self._known if name not in alive]:
            del self._known[container_id]
        by_runtime: dict[str, list[ContainerRecord]] = {}
        for record in running:
            by_runtime.setdefault(record.Runtime, []).append(record)
        for records in by_runtime.values():
            try:
                found = await self._runtime_of(records[0]).cpu_usage([record.Id for record in records])
            except EngineError as error:
                self._log.warning("processor time of runtime %s was not read: %s", records[0].Runtime, error)
                continue
            for container_id, reading in found.items():
                self._keep(container_id, reading)

    def _keep(self, container_id: str, reading: CpuUsage) -> None:
        known = self._known.setdefault(container_id, [])
        if known and reading.read_ns - known[-1].read_ns < APART_NS:
            return
        self._known[container_id] = [*known[-1:], reading]

    async def read(self, ref: str) -> Reading:
        """What a container uses now. Never waits for a second reading. Raises NotFound."""
        record = self._containers.get(ref)
        if not record.State.running:
            return Reading(record)
        try:
            usage = await self._runtime_of(record).usage(record.Id)
        except Conflict:
            return Reading(self._containers.get(record.Id))
        before = self._before(record, usage.cpu)
        self._keep(record.Id, usage.cpu)
        if record.HostConfig.NetworkMode == "host":
            usage = replace(usage, links={})  # they are the host's
        return Reading(record, usage, before)

    def _before(self, record: ContainerRecord, now: CpuUsage) -> CpuUsage:
        started = parse_ns(record.State.StartedAt)
        for earlier in reversed(self._known.get(record.Id, ())):
            # A reading of an earlier run says nothing about this one.
            if started <= earlier.read_ns <= now.read_ns - APART_NS and earlier.total <= now.total:
                return earlier
        ran = max(0, now.read_ns - started)
        return CpuUsage(started, 0, max(0, now.system - ran * now.online), now.online)

    async def follow(self, ref: str) -> AsyncIterator[Reading]:
        """A reading each second until the container is removed. Raises NotFound at the first."""
        yield await self.read(ref)
        container_id = self._containers.get(ref).Id
        due = time.monotonic()
        while True:
            due = max(due + STREAM_EVERY, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
            try:
                reading = await self.read(container_id)
            except NotFound:
                return
            yield reading

    async def read_all(self) -> Sequence[Reading]:
        """Of all running containers, newest first."""
        running = [record.Id for record in self._containers.list() if record.State.running]
        found = await asyncio.gather(*map(self.read, running), return_exceptions=True)
        readings = []
        for container_id, one in zip(running, found, strict=True):
            if isinstance(one, EngineError):
                # One runtime that does not answer says nothing about the others' containers.
                if not isinstance(one, NotFound):
                    self._log.warning("container %s is left out of stats: %s", container_id[:12], one)
            elif isinstance(one, BaseException):
                raise one
            elif one.usage is not None:
                readings.append(one)
        return readings

    async def follow_all(self) -> AsyncIterator[Sequence[Reading]]:
        """Of all running containers, each second."""
        while True:
            yield await self.read_all()
            await asyncio.sleep(STREAM_EVERY)

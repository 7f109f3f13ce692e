"""Probes running containers, each in its own rhythm."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any

from plugin_sdk import Conflict, DeadlineExceeded, EngineError, NotFound
from plugin_sdk.containers import ContainerRecord, Containers, ContainerStatus, ExecSpec, Health, HealthResult
from plugin_sdk.times import format_duration, format_ns, parse_ns
from plugins.health import probe
from plugins.health.probe import STARTING, UNHEALTHY, Probe

NOT_ENDED = -1

Spawn = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]


class Monitors:
    """One task for each container that is probed."""

    def __init__(self, containers: Containers, spawn: Spawn, log: logging.Logger) -> None:
        self._containers = containers
        self._spawn = spawn
        self._log = log
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def prepare(self, record: ContainerRecord) -> None:
        """A start is on its way: what earlier runs told is no longer true, but stays in the log."""
        if probe.of(record.Config) is not None:
            await self._containers.set_health(record.Id, Health(Status=STARTING, Log=_health(record).Log))
        elif record.State.Health is not None:
            await self._containers.set_health(record.Id, None)

    def begin(self, record: ContainerRecord, *, adopted: bool = False) -> None:
        """Probe it from now on. With `adopted` the first probe comes at a random moment of its interval: not all at once."""
        wanted = probe.of(record.Config)
        if wanted is None:
            return
        self._cancel(record.Id)
        work = self._watch(record.Id, parse_ns(record.State.StartedAt), wanted, random.random() if adopted else 1.0)
        self._tasks[record.Id] = self._spawn(work, f"health {record.Id[:12]}")

    async def end(self, record: ContainerRecord) -> None:
        """It does not run any more."""
        self._cancel(record.Id)
        try:
            health = self._containers.get(record.Id).State.Health
            if health is not None and health["Status"] != UNHEALTHY:
                stopped = Health.model_validate(health).model_copy(update={"Status": UNHEALTHY})
                await self._containers.set_health(record.Id, stopped)
        except NotFound:
            return  # it is being removed

    def close(self) -> None:
        """Probe no more."""
        for container_id in list(self._tasks):
            self._cancel(container_id)

    def _cancel(self, container_id: str) -> None:
        task = self._tasks.pop(container_id, None)
        if task is not None:
            task.cancel()

    async def _watch(self, container_id: str, started: int, wanted: Probe, share: float) -> None:
        while True:
            record = self._containers.get(container_id)
            await asyncio.sleep(wanted.pause(_health(record), time.time_ns() - started) / 10**9 * share)
            share = 1.0
            try:
                record = self._containers.get(container_id)
                if record.State.Status is ContainerStatus.PAUSED:
                    continue
                if record.State.Status is not ContainerStatus.RUNNING:
                    return
                began = time.time_ns() - started
                result = await self._probe(container_id, wanted)
                health = _health(self._containers.get(container_id))
                await self._containers.set_health(container_id, wanted.after(health, result, began))
            except NotFound:
                return
            except Conflict:
                continue  # paused or ended since the look at it: that says nothing about its health
            except EngineError as error:
                self._log.warning("health check of container %s: %s", container_id[:12], error)

    async def _probe(self, container_id: str, wanted: Probe) -> HealthResult:
        began = time.time_ns()
        try:
            code, output = await self._containers.exec(
                container_id, ExecSpec(wanted.argv), timeout=wanted.timeout / 10**9
            )
            text = probe.shown(output)
        except DeadlineExceeded:
            code, text = NOT_ENDED, f"Health check exceeded timeout ({format_duration(wanted.timeout)})"
        except (NotFound, Conflict):
            raise
        except EngineError as error:
            code, text = NOT_ENDED, str(error)
        return HealthResult(Start=format_ns(began), End=format_ns(time.time_ns()), ExitCode=code, Output=text)


def _health(record: ContainerRecord) -> Health:
    stored = record.State.Health
    return Health.model_validate(stored) if stored is not None else Health(Status=STARTING)

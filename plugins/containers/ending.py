"""The end of a run, and the end of a container."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from plugin_sdk import Conflict, EngineError, NotFound
from plugin_sdk.aio import blocking
from plugin_sdk.containers import ContainerRecord, ContainerStatus
from plugin_sdk.network import Networks
from plugin_sdk.runtime import Exit, OnOom
from plugin_sdk.times import format_ns, parse_ns

from . import control, restart, running
from .store import with_state

if TYPE_CHECKING:
    from .service import ContainerService

OnExit = Callable[[str, Exit], Awaitable[None]]

_RETRY_DELAYS = (1.0, 5.0, 15.0, 60.0)
_BUILT_IN_NETWORKS = ("bridge", "host", "none")


def exit_handler(service: ContainerService) -> OnExit:
    """What the runtime calls at the end of a container."""

    async def on_exit(container_id: str, end: Exit) -> None:
        live = service.live(container_id)
        async with live.lock:
            record = service.records.stored(container_id)
            if record is not None and record.State.running:
                await ended(service, record, end)

    return on_exit


def oom_handler(service: ContainerService) -> OnOom:
    """What the runtime calls when the kernel has killed a process of a container that goes on."""

    async def on_oom(container_id: str) -> None:
        told = False

        def flag(present: ContainerRecord) -> ContainerRecord:
            nonlocal told
            told = present.State.running and not present.State.OOMKilled
            return with_state(present, OOMKilled=True) if told else present

        try:
            record = await service.update(container_id, flag)
        except NotFound:
            return  # removed meanwhile
        if told:
            service.emit(record, "oom")

    return on_oom


async def ended(service: ContainerService, record: ContainerRecord, end: Exit) -> None:
    """A run is over; the container's lock is held. Stores it, tells all who wait, then gives back what the run took."""
    live = service.live(record.Id)
    live.attachable = False
    started = parse_ns(record.State.StartedAt) if record.State.StartedAt else end.finished_ns
    # The end's time is that of a file, which the kernel's clock steps by milliseconds behind the start's.
    finished = max(end.finished_ns, started)
    ran = finished - started
    removing = record.HostConfig.AutoRemove and not live.keep
    again = not removing and not live.keep and restart.wanted_after_exit(record, end.code)

    told_oom = False

    def settle(present: ContainerRecord) -> ContainerRecord:
        nonlocal told_oom
        told_oom = present.State.OOMKilled
        status = ContainerStatus.EXITED
        if removing:
            status = ContainerStatus.REMOVING
        elif again:
            status = ContainerStatus.RESTARTING
            present = present.model_copy(update={"RestartCount": present.RestartCount + 1})
        return with_state(
            present,
            Status=status,
            Pid=0,
            ExitCode=end.code,
            OOMKilled=end.oom or told_oom,
            FinishedAt=format_ns(finished),
            Starting=False,
            RemoveVolumes=removing,
        )

    record = await service.update(record.Id, settle)
    if end.oom and not told_oom:
        service.emit(record, "oom")
    service.emit(record, "die", exitCode=str(end.code), execDuration=str(ran // 10**9))
    live.tell_code(end.code, "not-running", "next-exit")
    live.tell_end()
    if removing:
        await vanish(service, record, end)
        return
    await release_run(service, record, end)
    if again:
        running.schedule(service, record.Id, live.backoff.next(ran / 10**9))


async def release_run(service: ContainerService, record: ContainerRecord, end: Exit | None) -> bool:
    """Give back what a run took; whether all of it could be. Its folder under the exec root goes last."""
    service.live(record.Id).attachable = False
    await service.execs.ended(record.Id)
    whole = True
    try:
        await service.runtime_of(record).delete(record.Id)
    except EngineError as error:
        whole = False
        service.ctx.log.warning("container %s: the runtime did not let go: %s", record.Id[:12], error)
    if await service.ctx.hooks.each("engine_container_release", container=record, exit=end):
        whole = False
    if not service.live(record.Id).users:
        try:
            await service.storage_of(record).unmount(record.Id)
        except EngineError as error:
            whole = False
            service.ctx.log.warning("container %s: the root file system stays mounted: %s", record.Id[:12], error)
    if whole:
        await drop_folder(service, record.Id)
    return whole


async def drop_folder(service: ContainerService, container_id: str) -> None:
    """Remove a container's folder under the exec root."""
    bundle = service.bundle(container_id)
    if bundle.exists():
        await blocking(shutil.rmtree, bundle, ignore_errors=True)


async def remove(service: ContainerService, record: ContainerRecord, *, force: bool, volumes: bool) -> None:
    """See `Containers.remove`."""
    live = service.live(record.Id)
    if not force:
        _refuse_active(record)
        holders = [
            holder
            for _, found in service.ctx.hooks.sync("engine_holders", kind="container", key=record.Id)
            for holder in found
        ]
        if holders:
            raise Conflict(f'cannot remove container "/{record.Name}": it is in use by {holders[0]}')
    elif record.State.running or record.State.Starting or record.State.Status is ContainerStatus.RESTARTING:
        await control.end_for_removal(service, record)
    async with live.lock:
        present = service.records.stored(record.Id)
        if present is None or present.State.Status is ContainerStatus.REMOVING:
            if force:
                return
            raise NotFound(f"No such container: {record.Id}")
        if not force:
            _refuse_active(present)
        elif present.State.running and not service.records.quarantined(present.Id):
            raise Conflict(f"container {record.Id} was started again while it was being removed; try once more")
        await hide(service, present, volumes=volumes)


def _refuse_active(record: ContainerRecord) -> None:
    problem = {
        ContainerStatus.RUNNING: "container is running: stop the container before removing or force remove",
        ContainerStatus.RESTARTING: "container is restarting: stop the container before removing or force remove",
        ContainerStatus.PAUSED: "container is paused and must be unpaused first",
    }.get(record.State.Status)
    if problem:
        raise Conflict(f'cannot remove container "/{record.Name}": {problem}')


async def hide(service: ContainerService, record: ContainerRecord, *, volumes: bool) -> None:
    """Begin the removal of a container that does not run; its lock is held. Name and ID are free when this returns."""
    service.live(record.Id).cancel_timer()
    record = await service.update(
        record.Id,
        lambda present: with_state(present, Status=ContainerStatus.REMOVING, Starting=False, RemoveVolumes=volumes),
    )
    await vanish(service, record, None)


async def vanish(service: ContainerService, record: ContainerRecord, end: Exit | None) -> None:
    """The record says `removing`: tell all who wait, and give everything back behind the answer.

    Where somebody could notice at once (a network or volumes of the user's that could not be removed yet), the answer
    waits for that instead.
    """
    live = service.live(record.Id)
    noticed = _noticed(service, record)
    service.emit(record, "destroy")
    work = service.settle(record.Id, destroy(service, record, end))
    if noticed:
        await asyncio.wait([work], timeout=10.0)
    live.refuse(NotFound(f"No such container: {record.Id}"))
    live.tell_code(record.State.ExitCode, "not-running", "next-exit", "removed")
    live.tell_end()


def _noticed(service: ContainerService, record: ContainerRecord) -> bool:
    if any(mount.Type == "volume" for mount in record.Mounts):
        return True
    networks = service.ctx.find(Networks)
    if networks is None:
        return False
    for endpoint in networks.endpoints(record.Id):
        try:
            if networks.get(endpoint.NetworkID).Name not in _BUILT_IN_NETWORKS:
                return True
        except NotFound:
            continue
    return False


async def destroy(service: ContainerService, record: ContainerRecord, end: Exit | None) -> None:
    """Give back all that a hidden container has, and forget it; tried again until it succeeds."""
    began = time.monotonic()
    attempt = 0
    while True:
        problem = await _destroy_once(service, record, end)
        if not problem:
            break
        delay = _RETRY_DELAYS[min(attempt, len(_RETRY_DELAYS) - 1)]
        attempt += 1
        service.stuck[record.Id] = problem
        service.ctx.log.warning(
            "container %s cannot be removed yet (%s), next try in %g s", record.Id[:12], problem, delay
        )
        await asyncio.sleep(delay)
    service.stuck.pop(record.Id, None)
    service.ctx.log.debug("container %s is gone after %.0f ms", record.Id[:12], (time.monotonic() - began) * 1000)


async def _destroy_once(service: ContainerService, record: ContainerRecord, end: Exit | None) -> str:
    try:
        if service.bundle(record.Id).exists() and not await release_run(service, record, end):
            return "its last run could not be given back"
        failures = await service.ctx.hooks.each(
            "engine_container_remove", container=record, volumes=record.State.RemoveVolumes
        )
        if failures:
            return "; ".join(str(error) for _, error in failures)
        await service.storage_of(record).remove(record.Id)
        await service.records.delete(record.Id)
    except (EngineError, OSError) as error:
        return str(error)
    return ""

"""What is done to a container that exists: stop, kill, restart, freeze, rename, new limits."""

from __future__ import annotations

import asyncio
import signal as posix
from collections.abc import Sequence
from typing import TYPE_CHECKING

from plugin_sdk import Conflict, DeadlineExceeded, InvalidParameter, NotModified
from plugin_sdk.containers import ContainerRecord, ContainerStatus, Resources, RestartRule

from . import create, running
from . import restart as policies
from .limits import changed_limits, to_apply
from .signals import ENDING, parse_signal
from .store import name_conflict, with_state

if TYPE_CHECKING:
    from .service import ContainerService

STOP_TIMEOUT = 10
KILL_DEADLINE = 10.0
"""Seconds in which a killed container has to end; one that hangs in the kernel does not."""


def _not_running(record: ContainerRecord) -> Conflict:
    return Conflict(f"container {record.Id} is not running")


async def stop(service: ContainerService, record: ContainerRecord, timeout: int | None, signal: str | None) -> None:
    """See `Containers.stop`."""
    if record.State.Status is ContainerStatus.RESTARTING and await _end_restarting(service, record):
        service.emit(record, "stop")
        return
    record = service.get(record.Id)
    if not record.State.running:
        raise NotModified(f"container {record.Id} is not running")
    number = parse_signal(signal or record.Config.StopSignal or "TERM")
    if timeout is None:
        timeout = record.Config.StopTimeout if record.Config.StopTimeout is not None else STOP_TIMEOUT
    end = service.live(record.Id).next_end()
    await _mark_stopped(service, record)
    if await _signal(service, record, number):
        ended = await _within(end, None if timeout < 0 else float(timeout))
    else:
        ended = await _within(end, KILL_DEADLINE)  # it has just ended by itself
    if not ended:
        await _signal(service, record, posix.SIGKILL)
        await _must_end(record, end)
    service.emit(record, "stop")


async def _end_restarting(service: ContainerService, record: ContainerRecord) -> bool:
    """Keep a container from being started again; whether it was still waiting for that."""
    live = service.live(record.Id)
    async with live.lock:
        if service.get(record.Id).State.Status is not ContainerStatus.RESTARTING:
            return False
        live.cancel_timer()
        changed = await service.update(
            record.Id,
            lambda present: with_state(present, Status=ContainerStatus.EXITED, StoppedByUser=True),
        )
        live.tell_code(changed.State.ExitCode, "not-running", "next-exit")
        return True


async def _mark_stopped(service: ContainerService, record: ContainerRecord) -> None:
    if not record.State.StoppedByUser:
        await service.update(record.Id, lambda present: with_state(present, StoppedByUser=True))


async def _signal(service: ContainerService, record: ContainerRecord, number: int) -> bool:
    """Send a signal, thawing a frozen container that it is meant to end; False: it has ended already."""
    runtime = service.runtime_of(record)
    try:
        await runtime.kill(record.Id, number)
    except Conflict:
        return False
    service.emit(record, "kill", signal=str(int(number)))
    if record.State.Status is ContainerStatus.PAUSED and _ends(record, number):
        await _thaw(service, record)
    return True


async def _thaw(service: ContainerService, record: ContainerRecord) -> None:
    async with service.live(record.Id).lock:
        if service.get(record.Id).State.Status is not ContainerStatus.PAUSED:
            return
        await service.runtime_of(record).resume(record.Id)
        record = await service.update(record.Id, lambda present: with_state(present, Status=ContainerStatus.RUNNING))
        service.emit(record, "unpause")


async def _within(end: asyncio.Future[None], seconds: float | None) -> bool:
    done, _ = await asyncio.wait([end], timeout=seconds)
    return bool(done)


async def _must_end(record: ContainerRecord, end: asyncio.Future[None]) -> None:
    if not await _within(end, KILL_DEADLINE):
        raise DeadlineExceeded(
            f"container {record.Id} did not end within {KILL_DEADLINE:g} s of SIGKILL: a process of it"
            f" (PID {record.State.Pid} on the host) hangs in the kernel, often on a dead file system or device"
        )


def _ends(record: ContainerRecord, number: int) -> bool:
    return number in ENDING or number == parse_signal(record.Config.StopSignal or "TERM")


async def kill(service: ContainerService, ref: str, signal: str) -> None:
    """See `Containers.kill`. SIGKILL returns after the end."""
    record = await service.ready(ref)
    try:
        number = parse_signal(signal or "KILL") or int(posix.SIGKILL)
    except InvalidParameter as error:
        raise InvalidParameter(f"cannot kill container: {ref}: {error}") from None
    if record.State.Status is ContainerStatus.RESTARTING and await _end_restarting(service, record):
        return
    record = service.get(record.Id)
    gone = Conflict(f"cannot kill container: {ref}: {_not_running(record)}")
    if not record.State.running:
        raise gone
    end = service.live(record.Id).next_end()
    if _ends(record, number):
        await _mark_stopped(service, record)
    if not await _signal(service, record, number):
        raise gone
    if number == posix.SIGKILL:
        await _must_end(record, end)


async def end_for_removal(service: ContainerService, record: ContainerRecord) -> None:
    """Kill, so that nothing starts it again. A start that hangs at a plugin is given up."""
    live = service.live(record.Id)
    live.give_up()
    if record.State.Status is ContainerStatus.RESTARTING and await _end_restarting(service, record):
        return
    async with live.lock:
        # A start that is under way is over now, one way or the other.
        record = service.records.stored(record.Id) or record
    if not record.State.running:
        return
    end = live.next_end()
    await _mark_stopped(service, record)
    if await _signal(service, record, posix.SIGKILL):
        await _must_end(record, end)
    elif service.records.stored(record.Id) is not None:
        await _within(end, KILL_DEADLINE)


async def restart(service: ContainerService, record: ContainerRecord, timeout: int | None, signal: str | None) -> None:
    """Stop, if it runs, and start; `--rm` and the restart policy do not see the end between."""
    live = service.live(record.Id)
    live.keep = True
    try:
        await stop(service, record, timeout, signal)
    except NotModified:
        pass
    finally:
        live.keep = False
    await running.start(service, record.Id)
    service.emit(service.get(record.Id), "restart")


async def pause(service: ContainerService, record: ContainerRecord) -> None:
    """Freeze."""
    async with service.live(record.Id).lock:
        record = service.get(record.Id)
        match record.State.Status:
            case ContainerStatus.RUNNING:
                pass
            case ContainerStatus.PAUSED:
                raise Conflict(f"Container {record.Id} is already paused")
            case ContainerStatus.RESTARTING:
                raise Conflict(f"Container {record.Id} is restarting, wait until the container is running")
            case _:
                raise _not_running(record)
        await service.runtime_of(record).pause(record.Id)
        record = await service.update(record.Id, lambda present: with_state(present, Status=ContainerStatus.PAUSED))
        service.emit(record, "pause")


async def resume(service: ContainerService, record: ContainerRecord) -> None:
    """Thaw."""
    if record.State.Status is not ContainerStatus.PAUSED:
        raise Conflict(f"Container {record.Id} is not paused")
    await _thaw(service, record)


async def rename(service: ContainerService, record: ContainerRecord, name: str) -> None:
    """Give another name; networks and clients hear of it by the event."""
    if not name:
        raise InvalidParameter("Neither old nor new names may be empty")
    failed = "Error when allocating new name: "
    plain = name.removeprefix("/")
    async with service.live(record.Id).lock:
        record = service.get(record.Id)
        if record.Name == plain:
            raise InvalidParameter("Renaming a container with the same name as its current name")
        try:
            create.check_name(name if name.startswith("/") else f"/{name}")
        except InvalidParameter as error:
            raise InvalidParameter(f"{failed}{error}") from None
        old = record.Name
        drafted = {draft.name: draft.id for draft in service.drafts.values()}
        try:
            if plain in drafted:
                raise Conflict(plain)
            record = await service.update(record.Id, lambda present: present.model_copy(update={"Name": plain}))
        except Conflict:
            holder = service.records.name_taken(plain) or drafted.get(plain, "")
            raise Conflict(f"{failed}{name_conflict(plain, holder)}") from None
        service.emit(record, "rename", oldName=f"/{old}")


async def change_limits(
    service: ContainerService, record: ContainerRecord, resources: Resources, rule: RestartRule
) -> Sequence[str]:
    """See `ContainerService.change_limits`."""
    policies.check(rule)
    async with service.live(record.Id).lock:
        record = service.get(record.Id)
        failed = f"Cannot update container {record.Id}: "
        if record.State.Status is ContainerStatus.DEAD:
            raise Conflict(f"{failed}container is dead: {record.State.Error}")
        if record.HostConfig.AutoRemove and rule.Name not in ("", "no"):
            raise Conflict(f"{failed}Restart policy cannot be updated because AutoRemove is enabled for the container")
        host = changed_limits(record.HostConfig, resources, failed)
        if record.State.running:
            await service.runtime_of(record).update(record.Id, to_apply(host, resources))
        if rule.Name:
            host = host.model_copy(update={"RestartPolicy": rule})
        record = await service.update(record.Id, lambda present: present.model_copy(update={"HostConfig": host}))
        service.emit(record, "update")
    return []

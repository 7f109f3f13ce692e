"""A start, from the intent to the running command; and what undoes one that failed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from plugin_sdk import Conflict, EngineError, NotFound, NotModified, Unavailable
from plugin_sdk.containers import ContainerRecord, ContainerStatus, Preparation
from plugin_sdk.network import Networks
from plugin_sdk.runtime import Launch, OciSpec, Running
from plugin_sdk.times import format_ns
from plugin_sdk.volumes import VolumeDriver, Volumes

from . import ending, restart
from .store import with_state

if TYPE_CHECKING:
    from .live import Live
    from .service import ContainerService

T = TypeVar("T")

_CODES = (
    (127, ("executable file not found", "no such file or directory")),
    (126, ("permission denied", "is a directory", "exec format error")),
)
UNKNOWN_FAILURE = 128
UNDO_PATIENCE = 5.0
"""Seconds for which the answer to a failed start waits until all of it is given back."""
_FILES = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")


async def start(service: ContainerService, container_id: str) -> None:
    """Start at a client's request. Raises NotModified when it runs."""
    live = service.live(container_id)
    async with live.lock:
        record = service.get(container_id)
        match record.State.Status:
            case ContainerStatus.PAUSED:
                raise Conflict("cannot start a paused container, try unpause instead")
            case ContainerStatus.RUNNING | ContainerStatus.RESTARTING:
                raise NotModified(f"container {record.Id} is already running")
            case ContainerStatus.DEAD:
                raise Conflict(f"container is dead and cannot be started: {record.State.Error}; remove it")
        live.backoff.delay = 0.0
        if record.RestartCount:
            # What a policy has done is counted from the last start by a person.
            record = await service.update(record.Id, lambda present: present.model_copy(update={"RestartCount": 0}))
        try:
            await run(service, record)
        except EngineError as error:
            await _failed_at_request(service, container_id, error)
            raise


async def run(service: ContainerService, record: ContainerRecord) -> None:
    """Start a container that does not run; its lock is held.

    Raises:
        EngineError: the start failed; everything it took is given back, and the record says `Starting` no more.
    """
    live = service.live(record.Id)
    live.cancel_timer()
    await service.settled(record.Id)
    if service.bundle(record.Id).exists():
        # The end of the last run could not be completed.
        await ending.release_run(service, record, None)
    if record.HostConfig.PortBindings or record.HostConfig.PublishAllPorts:
        # A port may still be in the hands of a container whose removal is not yet over.
        await service.settled()
    try:
        running, began = await _unless_given_up(live, record, _launch(service, record))
        record = await service.update(
            record.Id,
            lambda present: with_state(
                present,
                Status=ContainerStatus.RUNNING,
                Pid=running.pid,
                ExitCode=0,
                Error="",
                OOMKilled=False,
                StartedAt=format_ns(began),
                Starting=False,
                StoppedByUser=False,
            ),
        )
    except BaseException as failure:
        await _undo(service, record, failure)
        raise
    service.emit(record, "start")
    service.ctx.spawn(service.ctx.hooks.notify("engine_container_started", container=record), name="started")


async def _unless_given_up(live: Live, record: ContainerRecord, launch: Coroutine[Any, Any, T]) -> T:
    """The launch's result. Raises Conflict when `Live.give_up` was called meanwhile."""
    task = live.launching = asyncio.create_task(launch, name=f"launch {record.Id[:12]}")
    try:
        return await task
    except asyncio.CancelledError:
        if live.launching is task:
            raise
        raise Conflict(f"the start of container {record.Name} was given up: it is being removed") from None
    finally:
        live.launching = None


async def _launch(service: ContainerService, record: ContainerRecord) -> tuple[Running, int]:
    ctx, live = service.ctx, service.live(record.Id)
    runtime = service.runtime_of(record)
    runtime.expect()
    # The folder stands for the run until the intent is durable, which need not be waited for here.
    bundle = service.bundle(record.Id)
    bundle.mkdir(mode=0o700)
    intent = asyncio.ensure_future(service.update(record.Id, lambda present: with_state(present, Starting=True)))
    try:
        rootfs = await service.mount(record)
        preparation = Preparation(bundle, rootfs)
        await ctx.hooks.all("engine_container_prepare", container=record, preparation=preparation)
        _check_isolated(service, record, preparation)
        live.files = {m.destination: m.source for m in preparation.mounts if m.destination in _FILES}
        spec: OciSpec = await runtime.spec(record, preparation)
        ctx.hooks.sync("engine_oci_spec", container=record, spec=spec)
    finally:
        await intent
    launch = Launch(
        id=record.Id,
        bundle=bundle,
        spec=spec,
        tty=record.Config.Tty,
        stdin=record.Config.OpenStdin,
        stdin_once=record.Config.StdinOnce,
        log=preparation.log,
        console=_console(record),
    )
    async with service.slots:
        running = await runtime.create(launch, _on_exit(service), ending.oom_handler(service))
        await live.connect(lambda: runtime.attach(record.Id))
        began = time.time_ns()
        await runtime.start(record.Id)
    return running, began


def _check_isolated(service: ContainerService, record: ContainerRecord, preparation: Preparation) -> None:
    """What nobody has prepared must not silently become the host's. Raises Unavailable, naming what is missing."""
    mode = record.HostConfig.NetworkMode
    if preparation.netns is None and mode != "host" and service.ctx.find(Networks) is None:
        raise Unavailable(
            f"--network {mode or 'default'}: no enabled plugin provides Networks, and the container would have the host's;"
            " enable one, or choose --network host"
        )
    if (record.HostConfig.Binds or record.HostConfig.Mounts) and service.ctx.find(Volumes) is None:
        raise Unavailable(
            "no enabled plugin provides Volumes, and the container's mounts would be left out; enable one"
        )


def _console(record: ContainerRecord) -> tuple[int, int]:
    height, width = (*record.HostConfig.ConsoleSize, 0, 0)[:2]
    return height, width


def _on_exit(service: ContainerService) -> ending.OnExit:
    return ending.exit_handler(service)


async def _undo(service: ContainerService, record: ContainerRecord, failure: BaseException) -> None:
    reason = failure if isinstance(failure, EngineError) else EngineError("the start was cut off")
    service.live(record.Id).refuse(reason)
    code = exit_code(str(reason))
    work = service.settle(record.Id, _give_back(service, record, str(reason), code))
    # Behind the answer if a plugin takes its time. A client that goes away cancels its request, not this.
    await asyncio.wait([work], timeout=UNDO_PATIENCE)


async def _give_back(service: ContainerService, record: ContainerRecord, reason: str, code: int) -> None:
    await service.update(record.Id, lambda present: with_state(present, Error=reason, ExitCode=code, Pid=0))
    await ending.release_run(service, record, None)
    await service.update(record.Id, lambda present: with_state(present, Starting=False))


def exit_code(reason: str) -> int:
    """Exit code that stands for a failed start: 127 not found, 126 not executable, else 128."""
    for code, phrases in _CODES:
        if "exec: " in reason and any(phrase in reason for phrase in phrases):
            return code
    return UNKNOWN_FAILURE


async def _failed_at_request(service: ContainerService, container_id: str, error: EngineError) -> None:
    service.ctx.log.info("container %s did not start: %s", container_id[:12], error)
    record = service.records.stored(container_id)
    if record is None:
        return
    if record.State.Status is ContainerStatus.RESTARTING:
        record = await service.update(container_id, lambda present: with_state(present, Status=ContainerStatus.EXITED))
    service.live(container_id).tell_code(record.State.ExitCode, "not-running")
    if record.HostConfig.AutoRemove:
        await ending.hide(service, record, volumes=True)


def schedule(service: ContainerService, container_id: str, delay: float) -> None:
    """Start again by policy after `delay` seconds."""
    live = service.live(container_id)
    live.cancel_timer()
    live.timer = service.ctx.spawn(_again(service, container_id, delay), name=f"restart {container_id[:12]}")


async def _again(service: ContainerService, container_id: str, delay: float) -> None:
    await asyncio.sleep(delay)
    live = service.live(container_id)
    missing = await _missing_driver(service, container_id)
    async with live.lock:
        try:
            record = service.get(container_id)
        except NotFound:
            return
        if record.State.Status is not ContainerStatus.RESTARTING or record.State.StoppedByUser:
            return
        live.timer = None
        try:
            if missing is not None:
                await service.update(container_id, lambda present: with_state(present, Error=str(missing)))
                raise missing
            await run(service, record)
        except EngineError as error:
            service.ctx.log.warning("container %s could not be started again: %s", container_id[:12], error)
            if not restart.wanted_after_failed_start(record, error):
                await service.update(container_id, lambda present: with_state(present, Status=ContainerStatus.EXITED))
                return
            schedule(service, container_id, live.backoff.next(0.0))


async def _missing_driver(service: ContainerService, container_id: str) -> EngineError | None:
    """Why a volume's driver cannot be had now. Waits for a plugin that is being started, so that the start itself, which
    holds the container's lock, does not; whoever stops the container ends the wait."""
    record = service.records.stored(container_id)
    wanted = {mount.Driver for mount in record.Mounts if mount.Type == "volume" and mount.Driver} if record else set()
    for name in sorted(wanted):
        try:
            await service.ctx.drivers.find(VolumeDriver, name)
        except NotFound as error:
            return Unavailable(f"the driver of a volume is missing: {error}")
        except EngineError as error:
            return error
    return None

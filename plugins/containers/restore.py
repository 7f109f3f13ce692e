"""After a start of the daemon: records and reality agree again."""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from typing import TYPE_CHECKING

from plugin_sdk.aio import blocking
from plugin_sdk.containers import ContainerConfig, ContainerRecord, ContainerStatus, HostConfig
from plugin_sdk.runtime import Exit, Running
from plugin_sdk.storage import Storage

from . import create, ending, restart, running
from .store import with_state

if TYPE_CHECKING:
    from .service import ContainerService

PARALLEL = 16
UNSEEN_END = 255
"""Exit code of a container that was running when the machine went down."""
INTERRUPTED = "the engine was stopped in the middle of the start"

_ID = re.compile(r"[0-9a-f]{64}\Z")


def announce(service: ContainerService) -> None:
    """Before the API answers: who acts on one of these containers waits until it was looked after."""
    for record in service.records.all():
        service.live(record.Id).restored = asyncio.Event()


async def restore(service: ContainerService) -> None:
    """Look after every container, then remove what no record knows."""
    slots = asyncio.Semaphore(PARALLEL)

    async def one(record: ContainerRecord) -> None:
        live = service.live(record.Id)
        async with slots:
            try:
                async with live.lock:
                    await _restore_one(service, record)
            except Exception as error:
                service.ctx.log.exception("container %s could not be restored", record.Id[:12])
                service.records.quarantine(record, f"could not be restored: {error}")
            finally:
                if live.restored is not None:
                    live.restored.set()
                    live.restored = None

    await asyncio.gather(*(one(record) for record in service.records.all()))
    service.restored.set()
    await _orphans(service)


async def _restore_one(service: ContainerService, record: ContainerRecord) -> None:
    state = record.State
    if state.Status is ContainerStatus.REMOVING:
        service.settle(record.Id, ending.destroy(service, record, None))
    elif state.running:
        await _adopt(service, record)
    elif state.Starting:
        await _cut_off(service, record)
    else:
        if service.bundle(record.Id).exists():
            await ending.release_run(service, record, None)
        await _ended_before(service, record)


async def _adopt(service: ContainerService, record: ContainerRecord) -> None:
    found = await service.runtime_of(record).adopt(
        record.Id, service.bundle(record.Id), ending.exit_handler(service), ending.oom_handler(service)
    )
    if isinstance(found, Running):
        live = service.live(record.Id)
        live.attachable = True
        bundle = service.bundle(record.Id)
        live.files = {
            f"/etc/{name}": str(path)
            for name in ("hosts", "hostname", "resolv.conf")
            if (path := bundle / name).exists()
        }
        if found.pid != record.State.Pid:
            await service.update(record.Id, lambda present: with_state(present, Pid=found.pid))
        return
    await ending.ended(service, record, found or Exit(UNSEEN_END, oom=False, finished_ns=time.time_ns()))


async def _cut_off(service: ContainerService, record: ContainerRecord) -> None:
    """The intent to start is there, its result is not: undo, and start again where a policy asks for it."""
    await ending.release_run(service, record, None)
    policy = record.HostConfig.RestartPolicy.Name in ("always", "unless-stopped", "on-failure")
    status = record.State.Status
    if policy:
        status = ContainerStatus.RESTARTING
    elif status is ContainerStatus.RESTARTING:
        status = ContainerStatus.EXITED
    record = await service.update(
        record.Id,
        lambda present: with_state(
            present, Starting=False, Status=status, Error=INTERRUPTED, ExitCode=running.UNKNOWN_FAILURE
        ),
    )
    if policy:
        running.schedule(service, record.Id, restart.FIRST_DELAY)
    elif record.HostConfig.AutoRemove:
        await ending.hide(service, record, volumes=True)


async def _ended_before(service: ContainerService, record: ContainerRecord) -> None:
    if record.State.Status is ContainerStatus.RESTARTING:
        running.schedule(service, record.Id, restart.FIRST_DELAY)
    elif restart.wanted_at_boot(record):
        await service.update(
            record.Id,
            lambda present: with_state(present, Status=ContainerStatus.RESTARTING, StoppedByUser=False),
        )
        running.schedule(service, record.Id, 0.0)
    elif record.HostConfig.AutoRemove and record.State.StartedAt:
        await ending.hide(service, record, volumes=True)


async def _orphans(service: ContainerService) -> None:
    """Writable layers of creations that were cut off, and folders of runs that nobody remembers."""
    driver = service.ctx.require(Storage)
    for name in driver.driver().writable():
        if _ID.match(name) and service.records.stored(name) is None and name not in service.drafts:
            service.ctx.log.info("removing what is left of the creation of container %s", name[:12])
            await create.undo(service, _stand_in(name, driver.default))
    for folder in service.ctx.run.iterdir():
        if _ID.match(folder.name) and service.records.stored(folder.name) is None:
            await blocking(shutil.rmtree, folder, ignore_errors=True)


def _stand_in(container_id: str, driver: str) -> ContainerRecord:
    """What is known of a container whose record was never written."""
    return ContainerRecord(
        Id=container_id,
        Name="",
        Created="",
        ImageID="",
        ImageRef="",
        Driver=driver,
        Runtime="",
        Config=ContainerConfig(),
        HostConfig=HostConfig(),
    )

"""The service `Containers`, and what the plugin's modules share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plugin_sdk import Event, Holder, PluginContext, Unavailable
from plugin_sdk.containers import (
    ContainerCreate,
    ContainerDraft,
    ContainerRecord,
    ContainerStatus,
    ExecSpec,
    Health,
    Resources,
    RestartRule,
    WaitCondition,
)
from plugin_sdk.network import Networks
from plugin_sdk.runtime import ProcessIO, Runtime
from plugin_sdk.storage import Storage, StorageDriver

from . import control, create, ending, restore, running
from .live import AttachPoint, Live
from .sizes import Sizes
from .store import Change, Records, with_state

if TYPE_CHECKING:
    from .execs import Execs

PARALLEL_STARTS = 16
"""Starts that use the runtime at the same time; more only make each other slow."""
RESTORE_DEADLINE = 60.0
READ_PATIENCE = 1.0
"""Seconds that a read waits, after a start of the daemon, rather than tell what was true before it."""
SETTLE_DEADLINE = 10.0


class ContainerService:
    """Fulfils `plugin_sdk.containers.Containers`.

    Attributes:
        ctx: the plugin's context.
        records: what is stored.
        execs: further processes in containers.
        drafts: containers that are being created, by ID.
        slots: bounds the starts that are in the runtime's hands.
        sizes: how much they have written.
        stuck: containers whose removal failed, and why; it is tried again.
        restored: every container of before the daemon's start was looked after.
    """

    execs: Execs

    def __init__(self, ctx: PluginContext) -> None:
        self.ctx = ctx
        self.records = Records(ctx.state)
        self.drafts: dict[str, ContainerDraft] = {}
        self.slots = asyncio.Semaphore(PARALLEL_STARTS)
        self.sizes = Sizes(self)
        self.stuck: dict[str, str] = {}
        self.restored = asyncio.Event()
        self._settling: dict[str, asyncio.Task[None]] = {}

    def get(self, ref: str) -> ContainerRecord:
        """See `Containers.get`."""
        return self.records.get(ref)

    def list(self) -> Sequence[ContainerRecord]:
        """See `Containers.list`."""
        return self.records.shown()

    def live(self, container_id: str) -> Live:
        """What memory alone knows of it."""
        return self.records.live(container_id)

    async def ready(self, ref: str) -> ContainerRecord:
        """Like `get`, for those who act: after a start of the daemon, waits until the container was looked after."""
        record = self.get(ref)
        restored = self.live(record.Id).restored
        if restored is None:
            return record
        try:
            async with asyncio.timeout(RESTORE_DEADLINE):
                await restored.wait()
        except TimeoutError:
            raise Unavailable(f"container {record.Id} is still being restored; try again") from None
        return self.get(record.Id)

    async def fresh(self) -> None:
        """For readers: after a start of the daemon, wait a moment until all containers were looked after."""
        if not self.restored.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(READ_PATIENCE):
                    await self.restored.wait()

    def live_files(self, record: ContainerRecord) -> dict[str, str]:
        """Host paths of `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a running container."""
        return self.live(record.Id).files if record.State.running else {}

    def runtime_of(self, record: ContainerRecord) -> Runtime:
        """Its runtime. Raises NotFound when no plugin offers it any more."""
        return self.ctx.drivers.get(Runtime, record.Runtime)

    def storage_of(self, record: ContainerRecord) -> StorageDriver:
        """The storage driver that holds its writable layer, under the container's ID."""
        return self.ctx.require(Storage).driver(record.Driver)

    async def mount(self, record: ContainerRecord) -> Path:
        """Mount its root file system, as its user namespace sees it."""
        storage = self.storage_of(record)
        return await (storage.mount(record.Id, ids=record.Ids) if record.Ids else storage.mount(record.Id))

    def bundle(self, container_id: str) -> Path:
        """Its folder under the exec root: there from the beginning of a start until all of the run is given back."""
        return self.ctx.run / container_id

    @asynccontextmanager
    async def mounted(self, record: ContainerRecord) -> AsyncIterator[Path]:
        """Its root file system on the host; a stopped container's is mounted for as long as the block runs."""
        live = self.live(record.Id)
        storage = self.storage_of(record)
        live.users += 1
        try:
            yield await self.mount(record)
        finally:
            live.users -= 1
            if not live.users and not self.bundle(record.Id).exists():
                await storage.unmount(record.Id)

    def attach_point(self, container_id: str) -> AttachPoint:
        """Where clients wait for the container's streams."""
        return AttachPoint(self, container_id)

    def emit(self, record: ContainerRecord, action: str, **attributes: str) -> None:
        """Publish an event with Docker's attributes and these."""
        self.ctx.events.publish(
            Event(
                "container",
                action,
                record.Id,
                {**record.Config.Labels, "image": record.Config.Image, "name": record.Name, **attributes},
            )
        )

    async def update(self, record_id: str, change: Change) -> ContainerRecord:
        """The one way to write a record: `change` gets the present version; gives the next one, durable.

        Raises NotFound when it is gone.
        """
        return await self.records.update(record_id, change)

    def settle(self, container_id: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Give something back behind the client's answer, one after the other; `settled` waits for it."""
        before = self._settling.get(container_id)

        async def in_turn() -> None:
            try:
                if before is not None:
                    await asyncio.wait([before])
                await work
            finally:
                work.close()

        task = self.ctx.spawn(in_turn(), name=f"settle {container_id[:12]}")
        self._settling[container_id] = task

        def done(_: object) -> None:
            if self._settling.get(container_id) is task:
                del self._settling[container_id]

        task.add_done_callback(done)
        return task

    async def settled(self, container_id: str = "") -> None:
        """See `Containers.settled`."""
        if container_id:
            tasks = [task for task in [self._settling.get(container_id)] if task]
        else:
            tasks = [*self._settling.values()]
        tasks = [task for task in tasks if task is not asyncio.current_task()]
        if tasks:
            await asyncio.wait(tasks, timeout=SETTLE_DEADLINE)

    def holders(self, kind: str, key: str) -> Sequence[Holder]:
        """See `engine_holders`."""
        match kind:
            case "image":
                used = [record for record in self.list() if record.ImageID == key]
                drafts = [draft for draft in self.drafts.values() if draft.image.Id == key]
                return [_holder(record) for record in used] + [Holder("container", d.id, d.name) for d in drafts]
            case "volume":
                return [_holder(r) for r in self.list() if any(m.Type == "volume" and m.Name == key for m in r.Mounts)]
            case "network" if (networks := self.ctx.find(Networks)) is not None:
                running_ = [record for record in self.list() if record.State.running]
                return [_holder(r) for r in running_ if any(e.NetworkID == key for e in networks.endpoints(r.Id))]
        return []

    def info(self) -> dict[str, Any]:
        """See `engine_info`."""
        states = [record.State.Status for record in self.list()]
        running_, paused = (
            sum(state in wanted for state in states)
            for wanted in ((ContainerStatus.RUNNING, ContainerStatus.RESTARTING), (ContainerStatus.PAUSED,))
        )
        found: dict[str, Any] = {
            "Containers": len(states),
            "ContainersRunning": running_,
            "ContainersPaused": paused,
            "ContainersStopped": len(states) - running_ - paused,
        }
        if self.stuck:
            found["Warnings"] = [f"container {key[:12]} cannot be removed: {why}" for key, why in self.stuck.items()]
        return found

    def announce(self) -> None:
        """Those who act on a container wait until `restore` has looked after it."""
        restore.announce(self)

    async def restore(self) -> None:
        """After a start of the daemon: find the running containers again, settle the ended ones."""
        await restore.restore(self)

    async def create(
        self, request: ContainerCreate, *, name: str = "", api_version: tuple[int, int] = (1, 51)
    ) -> tuple[ContainerRecord, Sequence[str]]:
        """See `Containers.create`."""
        return await create.create(self, request, name, api_version)

    async def start(self, ref: str) -> None:
        """See `Containers.start`."""
        await running.start(self, (await self.ready(ref)).Id)

    async def stop(self, ref: str, *, timeout: int | None = None, signal: str | None = None) -> None:
        """See `Containers.stop`."""
        await control.stop(self, await self.ready(ref), timeout, signal)

    async def restart(self, ref: str, *, timeout: int | None = None, signal: str | None = None) -> None:
        """Stop, if it runs, and start."""
        await control.restart(self, await self.ready(ref), timeout, signal)

    async def kill(self, ref: str, signal: str = "KILL") -> None:
        """See `Containers.kill`."""
        await control.kill(self, ref, signal)

    async def pause(self, ref: str) -> None:
        """Freeze. Raises Conflict when it does not run or is frozen."""
        await control.pause(self, await self.ready(ref))

    async def resume(self, ref: str) -> None:
        """Thaw. Raises Conflict when it is not frozen."""
        await control.resume(self, await self.ready(ref))

    async def rename(self, ref: str, name: str) -> None:
        """Raises Conflict when the name is taken."""
        await control.rename(self, await self.ready(ref), name)

    async def change_limits(self, ref: str, resources: Resources, rule: RestartRule) -> Sequence[str]:
        """Change limits, running or not, and the restart policy; zero values change nothing. Gives warnings."""
        return await control.change_limits(self, await self.ready(ref), resources, rule)

    async def wait(self, ref: str, condition: WaitCondition = "not-running") -> int:
        """See `Containers.wait`."""
        return await self.waiter(ref, condition)

    def waiter(self, ref: str, condition: WaitCondition = "not-running") -> asyncio.Future[int]:
        """What `wait` waits for; no end of the container after this call is missed. Raises NotFound."""
        record = self.get(ref)
        if condition == "not-running" and not _active(record):
            future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            future.set_result(record.State.ExitCode)
            return future
        return self.live(record.Id).next_code(condition)

    async def remove(self, ref: str, *, force: bool = False, volumes: bool = False) -> None:
        """See `Containers.remove`."""
        await ending.remove(self, await self.ready(ref), force=force, volumes=volumes)

    async def attach(self, ref: str) -> ProcessIO:
        """See `Containers.attach`."""
        return await self.attach_point((await self.ready(ref)).Id).attach()

    async def exec(self, ref: str, spec: ExecSpec, *, timeout: float | None = None) -> tuple[int, bytes]:
        """See `Containers.exec`."""
        return await self.execs.run(await self.ready(ref), spec, timeout)

    async def set_health(self, ref: str, health: Health | None) -> None:
        """See `Containers.set_health`."""
        record = self.get(ref)
        before = (record.State.Health or {}).get("Status", "")
        stored = health.model_dump() if health is not None else None
        record = await self.update(record.Id, lambda present: with_state(present, Health=stored))
        if health is not None and health.Status not in (before, "starting") and record.State.running:
            self.emit(record, f"health_status: {health.Status}")

    async def close(self) -> None:
        """Let go of the containers, which go on running; clients that wait are told."""
        for record in self.records.all():
            live = self.live(record.Id)
            live.cancel_timer()
            live.refuse(Unavailable("the engine is stopping"))


def _active(record: ContainerRecord) -> bool:
    return record.State.running or record.State.Starting or record.State.Status is ContainerStatus.RESTARTING


def _holder(record: ContainerRecord) -> Holder:
    return Holder("container", record.Id, record.Name, "running" if record.State.running else "stopped")

"""What is known of a container in memory alone: who waits for it, who works on it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from plugin_sdk.containers import WaitCondition
from plugin_sdk.runtime import ProcessIO

from .restart import Backoff

if TYPE_CHECKING:
    from .service import ContainerService


@dataclass(slots=True, eq=False)
class Live:
    """One container's memory.

    Attributes:
        lock: one operation at a time (start, exit, pause, rename, removal); not held while an exit is awaited.
        writing: held while one version of the record is replaced by the next.
        ended: set at each end of a run, after its exit code is stored.
        attachable: the runtime has created it, and its end was not seen.
        pending: clients that attached before the start.
        launching: a start on its way to the running command, if there is one.
        keep: the next end is part of `restart`: no restart policy, no removal.
        users: blocks that use the mounted root file system of a stopped container.
        files: `/etc/hosts` and the like on the host, by their path inside.
    """

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    restored: asyncio.Event | None = None
    waiters: list[tuple[WaitCondition, asyncio.Future[int]]] = field(default_factory=list)
    ended: list[asyncio.Future[None]] = field(default_factory=list)
    pending: list[asyncio.Future[ProcessIO]] = field(default_factory=list)
    attachable: bool = False
    launching: asyncio.Task[Any] | None = None
    keep: bool = False
    users: int = 0
    backoff: Backoff = field(default_factory=Backoff)
    timer: asyncio.Task[None] | None = None
    files: dict[str, str] = field(default_factory=dict)

    def give_up(self) -> None:
        """Nobody wants the start that is on its way: whatever it waits for is not waited for any more."""
        launching, self.launching = self.launching, None
        if launching is not None:
            launching.cancel()

    def next_end(self) -> asyncio.Future[None]:
        """Done at the next end of a run."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended = [waiting for waiting in self.ended if not waiting.done()] + [future]
        return future

    def next_code(self, condition: WaitCondition) -> asyncio.Future[int]:
        """Done with the exit code once the condition holds."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.waiters = [waiter for waiter in self.waiters if not waiter[1].done()] + [(condition, future)]
        return future

    def tell_end(self) -> None:
        """Wake those who wait for the end of the run."""
        ended, self.ended = self.ended, []
        for future in ended:
            if not future.done():
                future.set_result(None)

    def tell_code(self, code: int, *conditions: WaitCondition) -> None:
        """Wake those who wait for one of the conditions."""
        told = [future for condition, future in self.waiters if condition in conditions]
        self.waiters = [waiter for waiter in self.waiters if waiter[0] not in conditions]
        for future in told:
            if not future.done():
                future.set_result(code)

    def cancel_timer(self) -> bool:
        """Forget a restart that is due; whether there was one. Harmless from within the restart itself."""
        timer, self.timer = self.timer, None
        if timer is None or timer.done() or timer is asyncio.current_task():
            return False
        timer.cancel()
        return True

    async def connect(self, attach: Callable[[], Awaitable[ProcessIO]]) -> None:
        """The container is created: give each client that waits its streams."""
        self.attachable = True
        while self.pending:
            waiting, self.pending = self.pending, []
            await asyncio.gather(*(_hand_over(future, attach) for future in waiting if not future.done()))

    def refuse(self, error: Exception) -> None:
        """There will be no streams for those who wait."""
        self.attachable = False
        waiting, self.pending = self.pending, []
        for future in waiting:
            if not future.done():
                future.set_exception(error)


async def _hand_over(future: asyncio.Future[ProcessIO], attach: Callable[[], Awaitable[ProcessIO]]) -> None:
    try:
        streams = await attach()
    except Exception as error:  # noqa: BLE001 - one client's streams do not decide the start; it is told
        if not future.done():
            future.set_exception(error)
        return
    if future.done():
        await streams.close()
    else:
        future.set_result(streams)


class AttachPoint:
    """Where clients wait for one container's streams."""

    def __init__(self, service: ContainerService, container_id: str) -> None:
        self._service, self._id = service, container_id

    async def attach(self) -> ProcessIO:
        """Streams of the running container at once; of a created or stopped one when it starts next, connected before
        its command runs. Cancel to give up.

        Raises:
            NotFound: it is removed.
            EngineError: the runtime's reason, or the reason why the start failed.
        """
        record = await self._service.ready(self._id)
        live = self._service.live(record.Id)
        if live.attachable or record.State.running:
            return await self._service.runtime_of(record).attach(record.Id)
        future: asyncio.Future[ProcessIO] = asyncio.get_running_loop().create_future()
        live.pending = [waiting for waiting in live.pending if not waiting.done()] + [future]
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                await future.result().close()
            raise

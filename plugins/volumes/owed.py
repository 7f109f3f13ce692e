"""Unmounts that drivers still owe: each is stored until its driver has answered, and asked for again until it does.

So the end of a container never hangs on a plugin that is dead, and no mount is forgotten.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from plugin_sdk import Collection, EngineError, NotFound, PluginContext, PluginError, Unavailable, Wire
from plugin_sdk.volumes import VolumeDriver

PATIENCE = 10.0
"""Seconds that the end of a container waits for its volumes to be unmounted."""
RESTORE_PATIENCE = 1.0
"""The same while the daemon starts: others wait behind this container."""
DELAYS = (1.0, 2.0, 5.0, 15.0, 30.0, 60.0)
GIVE_UP = 120.0
"""Seconds after which nobody is expected any more to bring back the driver."""

BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
"""This boot of the machine: mounts of another one are gone, and nobody has to undo them."""


class OwedUnmount(Wire):
    """One mount to be undone.

    Attributes:
        Id: unique; of the request and the volume.
        Request: what the driver counts by.
        Boot: of the machine, when it was mounted.
    """

    Id: str
    Volume: str
    Driver: str
    Request: str
    Boot: str = ""


def owed(volume: str, driver: str, request: str, boot: str) -> OwedUnmount:
    """The unmount of one volume of a request."""
    return OwedUnmount(Id=f"{request}/{volume}", Volume=volume, Driver=driver, Request=request, Boot=boot)


class OwedUnmounts:
    """All of them."""

    def __init__(self, ctx: PluginContext) -> None:
        self._ctx = ctx
        self._stored = ctx.state.collection(
            "owed", OwedUnmount, key=lambda one: one.Id, index={"volume": lambda one: one.Volume}
        )
        self._working: dict[str, asyncio.Task[None]] = {}
        self._calling: dict[str, asyncio.Task[EngineError | None]] = {}
        self._slow: set[str] = set()
        self.patience = RESTORE_PATIENCE

    async def take(self, unmounts: Sequence[OwedUnmount], instead: tuple[Collection[Any], str]) -> None:
        """Store them, and begin. Returns when the drivers have answered, or have taken long.

        A driver that has let somebody wait for too long is not waited for again until it answers.

        Args:
            instead: document (collection and ID) that told of them until now; it goes in the same step.
        """
        fresh = [one for one in unmounts if one.Boot == BOOT]
        await self._ctx.state.commit([*((self._stored, one) for one in fresh), instead])
        tasks = [self._begin(one) for one in fresh]
        awaited = [task for one, task in zip(fresh, tasks, strict=True) if one.Driver not in self._slow]
        if awaited:
            _, late = await asyncio.wait(awaited, timeout=self.patience)
            self._slow |= {one.Driver for one, task in zip(fresh, tasks, strict=True) if task in late}

    def resume(self) -> None:
        """After a start of the daemon. Waits for nobody."""
        for one in self._stored.values():
            self._begin(one)

    async def quiet(self, volume: str, patience: float) -> None:
        """Before a mount or the removal of a volume: what is owed for it is asked for now; waits `patience` seconds at most."""
        attempts = [self._attempt(one) for one in self._stored.by("volume", volume) if one.Boot == BOOT]
        if attempts:
            await asyncio.wait(attempts, timeout=patience)

    async def forget(self, volume: str) -> None:
        """The volume is gone."""
        for one in self._stored.by("volume", volume):
            for tasks in (self._working, self._calling):
                if (task := tasks.get(one.Id)) is not None:
                    task.cancel()
            await self._stored.delete(one.Id)

    def _begin(self, one: OwedUnmount) -> asyncio.Task[None]:
        task = self._working.get(one.Id)
        if task is None:
            task = self._ctx.spawn(self._until_answered(one), name=f"unmount {one.Volume}")
            self._working[one.Id] = task
            task.add_done_callback(lambda _: self._working.pop(one.Id, None))
        return task

    async def _until_answered(self, one: OwedUnmount) -> None:
        began = time.monotonic()
        for delay in _endless(DELAYS):
            if self._stored.get(one.Id) is None:
                return
            if one.Boot != BOOT:
                break
            failure = await asyncio.shield(self._attempt(one))
            if failure is None:
                return
            if isinstance(failure, NotFound) and time.monotonic() - began > GIVE_UP:
                self._ctx.log.warning("volume %s stays mounted, its driver is gone: %s", one.Volume, failure)
                break
            await asyncio.sleep(delay)
        await self._stored.delete(one.Id)

    def _attempt(self, one: OwedUnmount) -> asyncio.Task[EngineError | None]:
        """One call, which all who want it share; its result is why it has to be repeated, or None."""
        task = self._calling.get(one.Id)
        if task is None:
            task = self._ctx.spawn(self._try(one), name=f"unmount {one.Volume} now")
            self._calling[one.Id] = task
            task.add_done_callback(lambda _: self._calling.pop(one.Id, None))
        return task

    async def _try(self, one: OwedUnmount) -> EngineError | None:
        try:
            driver = await self._ctx.drivers.find(VolumeDriver, one.Driver)
        except EngineError as error:
            self._ctx.log.warning("volume %s is not unmounted yet: %s", one.Volume, error)
            return error
        try:
            await driver.unmount(one.Volume, one.Request)
        except (Unavailable, PluginError) as error:
            self._ctx.log.warning("volume %s is not unmounted yet: %s", one.Volume, error)
            return error
        except EngineError as error:
            # Its answer: to ask again would not change it, and others would wait for that for ever.
            self._ctx.log.warning("volume %s: its driver did not unmount it: %s", one.Volume, error)
        self._slow.discard(one.Driver)
        await self._stored.delete(one.Id)
        return None


def _endless(delays: Sequence[float]) -> Iterable[float]:
    yield from delays
    while True:
        yield delays[-1]

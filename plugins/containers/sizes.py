"""How much containers have written, measured behind the answers and remembered for a while.

Measuring walks over all files of a writable layer: milliseconds for most, minutes for some. So one layer is measured by one
task, whoever asks; a measurement that was cheap is soon done again, one that was dear is believed for longer; and who asks
while a known layer is measured anew gets the old number rather than wait for ever. No lock is held.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from plugin_sdk import EngineError, NotFound
from plugin_sdk.containers import ContainerRecord
from plugin_sdk.images import ImageStore

if TYPE_CHECKING:
    from .service import ContainerService

BELIEVED = 20.0
"""For how many times of what it took a measurement is believed."""
PATIENCE = 2.0
"""Seconds that a caller waits for a new number when there is an old one."""
PARALLEL = 4


@dataclass(frozen=True, slots=True)
class _Measured:
    written: int
    until: float


class Sizes:
    """The sizes of all containers."""

    def __init__(self, service: ContainerService) -> None:
        self._service = service
        self._known: dict[str, _Measured] = {}
        self._measuring: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(PARALLEL)

    async def of(self, record: ContainerRecord) -> tuple[int, int]:
        """Bytes in the writable layer, and of the whole root file system; 0 for what cannot be told."""
        known = self._known.get(record.Id)
        if known is None or time.monotonic() >= known.until:
            task = self._measuring.get(record.Id) or self._begin(record)
            await asyncio.wait([task], timeout=PATIENCE if known else None)
            known = self._known.get(record.Id)
        if known is None:
            return 0, 0
        try:
            image = self._service.ctx.require(ImageStore).get(record.ImageID).Size
        except NotFound:
            image = 0
        return known.written, image + known.written

    def _begin(self, record: ContainerRecord) -> asyncio.Task[None]:
        task = self._service.ctx.spawn(self._measure(record), name=f"size of {record.Id[:12]}")
        self._measuring[record.Id] = task
        task.add_done_callback(lambda _: self._measuring.pop(record.Id, None))
        return task

    async def _measure(self, record: ContainerRecord) -> None:
        async with self._slots:
            began = time.monotonic()
            try:
                written = await self._service.storage_of(record).usage(record.Id)
            except EngineError as error:
                self._service.ctx.log.debug("size of container %s: %s", record.Id[:12], error)
                return
        now = time.monotonic()
        self._known[record.Id] = _Measured(written, now + BELIEVED * (now - began))
        stored = self._service.records.all()
        if len(self._known) > 2 * len(stored) + 64:
            present = {other.Id for other in stored}
            self._known = {key: value for key, value in self._known.items() if key in present}

"""Containers whose volumes' drivers are not there when their restart policy starts them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from plugin_sdk import DeadlineExceeded, EngineError, InvalidParameter, NotFound, PluginError, Unavailable
from plugin_sdk.containers import ContainerRecord, ContainerStatus, MountPoint
from plugin_sdk.volumes import VolumeDriver
from plugins.containers import restart


class Missing:
    """Answers for a volume driver; everything else is the stub's."""

    def __init__(self, others: Any) -> None:
        self.others = others
        self.asked = 0
        self.error: Exception | None = NotFound("no VolumeDriver is named 'flocker'")
        self.let = asyncio.Event()
        self.let.set()

    def get(self, contract: Any, name: str) -> Any:
        return self.others.get(contract, name)

    async def find(self, contract: Any, name: str) -> Any:
        if contract is not VolumeDriver:
            return await self.others.find(contract, name)
        self.asked += 1
        await self.let.wait()
        if self.error is not None:
            raise self.error
        return object()


async def waiting(world: Any, policy: str) -> tuple[ContainerRecord, Missing]:
    """A container that ended, of which the policy wants that it starts again."""
    record = await world.make("web", HostConfig={"RestartPolicy": {"Name": policy}})
    mount = MountPoint(Type="volume", Name="data", Destination="/d", Driver="flocker")
    await world.service.update(record.Id, lambda present: present.model_copy(update={"Mounts": [mount]}))
    await world.service.start("web")
    world.ctx.drivers = drivers = Missing(world.ctx.drivers)
    return record, drivers


@pytest.mark.parametrize("policy", ["always", "unless-stopped", "on-failure"])
async def test_it_is_tried_until_the_driver_is_there(world: Any, policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restart, "FIRST_DELAY", 0.01)
    record, drivers = await waiting(world, policy)
    await world.ctx.runtime.finish(record.Id, 1)
    await world.until(lambda: drivers.asked >= 3)
    state = world.service.get("web").State
    assert state.Status is ContainerStatus.RESTARTING
    assert state.Error == "the driver of a volume is missing: no VolumeDriver is named 'flocker'"
    drivers.error = None
    await world.until(lambda: world.service.get("web").State.Status is ContainerStatus.RUNNING)
    assert world.service.get("web").State.Error == ""


async def test_stop_does_not_wait_for_a_driver_that_is_being_started(world: Any) -> None:
    record, drivers = await waiting(world, "always")
    drivers.let.clear()
    await world.ctx.runtime.finish(record.Id, 1)
    await world.until(lambda: drivers.asked == 1)
    async with asyncio.timeout(1):
        await world.service.stop("web")
    drivers.let.set()
    await asyncio.sleep(0.05)
    assert world.service.get("web").State.Status is ContainerStatus.EXITED


@pytest.mark.parametrize(
    ("policy", "error", "again"),
    [
        ("always", InvalidParameter("x"), True),
        ("unless-stopped", EngineError("x"), True),
        ("on-failure", Unavailable("x"), True),
        ("on-failure", DeadlineExceeded("x"), True),
        ("on-failure", PluginError("p", "c", "x"), True),
        ("on-failure", EngineError("exec: no such file"), False),
        ("no", Unavailable("x"), False),
        ("", Unavailable("x"), False),
    ],
)
async def test_which_failed_starts_are_tried_again(world: Any, policy: str, error: EngineError, again: bool) -> None:
    record = await world.make("web", HostConfig={"RestartPolicy": {"Name": policy}})
    assert restart.wanted_after_failed_start(record, error) is again

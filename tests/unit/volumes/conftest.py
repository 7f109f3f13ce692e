"""A plugin at the other end of a socket, and what the volumes plugin sees of the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from kernel import guard
from kernel.context import Context, Services
from kernel.dispatch import Dispatcher
from kernel.drivers import DriverRegistry
from kernel.events import Bus
from kernel.hookspecs import MODULES
from kernel.manager import HookManager
from kernel.state import Store
from kernel.state.store import PluginStore
from plugin_sdk import DriverSpec, NotSupported, PluginError
from plugin_sdk.containers import ContainerConfig, ContainerRecord, HostConfig, MountPoint, Preparation
from plugin_sdk.volumes import VolumeDriver
from plugins.volumes.local import LocalDriver
from plugins.volumes.mounts import ContainerMounts
from plugins.volumes.owed import OwedUnmounts
from plugins.volumes.plugin import VolumesPlugin
from plugins.volumes.remote import INTERFACE, VolumeInterface
from plugins.volumes.service import VolumeService
from plugins.volumes.survey import Survey


class FakePeer:
    """Fulfils `PluginPeer`: answers by method, each a reply or an exception, or a function of the arguments that gives one."""

    interfaces = (INTERFACE,)

    def __init__(self, name: str = "me/vol:latest", **answers: Any) -> None:
        self.name = name
        self.answers: dict[str, Any] = answers
        self.calls: list[tuple[str, Any, float]] = []

    async def call(self, method: str, arguments: Mapping[str, Any] | None, reply: type[Any], *, deadline: float) -> Any:
        self.calls.append((method, arguments, deadline))
        short = method.removeprefix("VolumeDriver.")
        if short not in self.answers:
            raise NotSupported(f"plugin {self.name!r}: {method}: not implemented by the plugin")
        answer = self.answers[short]
        if callable(answer):
            answer = answer(arguments)
        if asyncio.iscoroutine(answer):
            answer = await answer
        if isinstance(answer, Exception):
            raise answer
        return reply.model_validate(answer)

    async def host_path(self, path: str) -> str:
        if ".." in path:
            raise PluginError(self.name, "a path", f"answered {path!r}, which leads out")
        return path if Path(path).exists() else f"/host{path}"

    def of(self, method: str) -> list[Any]:
        """Arguments of the calls of one method."""
        return [arguments for name, arguments, _ in self.calls if name == f"VolumeDriver.{method}"]


class World:
    """The volumes plugin's parts over a real store and a real driver registry; can be killed and started again."""

    def __init__(self, root: Path, peer: FakePeer) -> None:
        self.root, self.peer = root, peer
        (root / "mnt").mkdir()
        self._start()

    def _start(self) -> None:
        manager = HookManager()
        for module in MODULES:
            manager.add_specifications(module)
        threads = guard.Threads()
        hooks = Dispatcher(manager, threads, lambda *_: None)
        self.drivers = DriverRegistry(hooks, threads, lambda *_: None)
        self.store = Store(self.root / "state.db")
        self.events = Bus()
        self.ctx = Context(
            VolumesPlugin.meta,
            None,
            data_root=self.root / "data",
            exec_root=self.root / "run",
            state=PluginStore(self.store, "volumes"),
            events=self.events,
            drivers=self.drivers,
            hooks=hooks,
            services=Services(),
        )
        self.local = LocalDriver(self.ctx.root)
        self.owed = OwedUnmounts(self.ctx)
        self.owed.patience = 0.1
        self.volumes = VolumeService(self.ctx, self.local, self.owed)
        self.survey = Survey(self.ctx, self.volumes, self.local)
        self.mounts = ContainerMounts(self.ctx, self.volumes, self.local, self.owed)
        self.mounts.resume()
        self.drivers.add("volumes", [DriverSpec(VolumeDriver, "local", self.local)])

    async def connect(self) -> None:
        """The peer's driver is there."""
        self.drivers.add(self.peer.name, await VolumeInterface().connect(self.peer))

    async def killed_and_started(self) -> None:
        """As after kill -9: what was in memory is gone."""
        await self.close()
        self._start()

    async def close(self) -> None:
        await self.ctx.close(1)
        self.mounts.close()
        self.local.close()
        self.store.close()

    async def prepare(self, container: ContainerRecord) -> Preparation:
        preparation = Preparation(self.root / "bundle", self.root / "rootfs")
        await self.mounts.prepare(container, preparation)
        return preparation

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what happens in the background."""
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
                await asyncio.sleep(0.005)


def container(*volumes: str, driver: str = "me/vol:latest") -> ContainerRecord:
    """A container with these volumes."""
    return ContainerRecord(
        Id="c" * 64,
        Name="web",
        Created="",
        ImageID="",
        ImageRef="",
        Driver="",
        Runtime="",
        Config=ContainerConfig(),
        HostConfig=HostConfig(),
        Mounts=[MountPoint(Type="volume", Name=name, Destination=f"/{name}", Driver=driver) for name in volumes],
    )


@pytest.fixture
async def peer(tmp_path: Path) -> FakePeer:
    """A plugin that does as it should: all its volumes are mounted at one place."""
    known: set[str] = set()

    def create(arguments: dict[str, Any]) -> dict[str, Any]:
        known.add(arguments["Name"])
        return {}

    def remove(arguments: dict[str, Any]) -> dict[str, Any]:
        known.discard(arguments["Name"])
        return {}

    return FakePeer(
        Capabilities={},
        Create=create,
        Remove=remove,
        Get=lambda arguments: {"Volume": {"Name": arguments["Name"]} if arguments["Name"] in known else None},
        List=lambda _: {"Volumes": [{"Name": name} for name in sorted(known)]},
        Path={},
        Mount={"Mountpoint": str(tmp_path / "mnt")},
        Unmount={},
    )


@pytest.fixture
async def world(tmp_path: Path, peer: FakePeer) -> AsyncIterator[World]:
    made = World(tmp_path, peer)
    await made.connect()
    yield made
    await made.close()

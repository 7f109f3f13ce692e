"""A containers service with a real store and event bus; the other plugins' services are small stand-ins."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kernel.events import Bus
from kernel.state import Store
from plugin_sdk import Conflict, NotFound
from plugin_sdk.containers import ContainerConfig, ContainerCreate, ContainerRecord
from plugin_sdk.images import Image, ImageStore
from plugin_sdk.network import Networks
from plugin_sdk.runtime import Exit, Launch, Running, Runtime, Runtimes
from plugin_sdk.storage import Storage
from plugins.containers.service import ContainerService


class StubImages:
    def __init__(self) -> None:
        self.images = {
            "busybox": Image(
                Id="sha256:aa", Raw="", ChainID="sha256:cc", Size=100, Architecture="amd64", Config=ContainerConfig()
            )
        }

    def get(self, ref: str) -> Image:
        for name, image in self.images.items():
            if ref in (name, f"{name}:latest", image.Id):
                return image
        raise NotFound(f"No such image: {ref}")


class StubStorage:
    default = "stub"

    def __init__(self, root: Path) -> None:
        self.root = root
        self.layers: dict[str, str] = {}
        self.mounts: list[str] = []

    def driver(self, name: str = "") -> StubStorage:
        return self

    async def create(
        self, name: str, parent: str, *, options: dict[str, str] | None = None, bare: bool = False
    ) -> None:
        self.layers[name] = parent

    def writable(self) -> dict[str, str]:
        return dict(self.layers)

    async def mount(self, name: str) -> Path:
        if name not in self.mounts:
            self.mounts.append(name)
        return self.root / name

    async def unmount(self, name: str) -> None:
        if name in self.mounts:
            self.mounts.remove(name)

    async def remove(self, name: str) -> None:
        await self.unmount(name)
        self.layers.pop(name, None)

    async def usage(self, name: str) -> int:
        return 7

    def metadata(self, name: str) -> dict[str, str]:
        return {"UpperDir": f"/x/{name}"}


class StubRuntime:
    """Processes that end when the test says so."""

    def __init__(self) -> None:
        self.on_exit: dict[str, Callable[[str, Exit], Awaitable[None]]] = {}
        self.calls: list[tuple[str, ...]] = []
        self.fail: dict[str, Exception] = {}
        self.adoptable: dict[str, Running | Exit] = {}
        self.stubborn = False
        self.on_start: Callable[[str], None] = lambda _: None

    def expect(self) -> None: ...

    def _note(self, call: str, *facts: str) -> None:
        self.calls.append((call, *facts))
        if call in self.fail:
            raise self.fail[call]

    async def spec(self, container: ContainerRecord, preparation: Any) -> dict[str, Any]:
        self._note("spec")
        return {}

    async def create(self, launch: Launch, on_exit: Any, on_oom: Any = None) -> Running:
        self._note("create")
        assert launch.bundle.is_dir()
        self.on_exit[launch.id] = on_exit
        return Running(4711)

    async def start(self, container_id: str) -> None:
        self._note("start")
        self.on_start(container_id)

    async def adopt(self, container_id: str, bundle: Path, on_exit: Any, on_oom: Any = None) -> Running | Exit | None:
        self._note("adopt")
        found = self.adoptable.get(container_id)
        if isinstance(found, Running):
            self.on_exit[container_id] = on_exit
        return found

    async def attach(self, container_id: str) -> Any:
        self._note("attach")
        return f"streams of {container_id}"

    async def kill(self, container_id: str, signal: int, *, all: bool = False) -> None:
        self._note("kill", str(int(signal)))
        if container_id not in self.on_exit:
            raise Conflict("no process")
        if not (self.stubborn and signal != 9):
            asyncio.get_running_loop().create_task(self.finish(container_id, 128 + signal))

    async def finish(self, container_id: str, code: int, *, oom: bool = False) -> None:
        on_exit = self.on_exit.pop(container_id, None)
        if on_exit is not None:
            await on_exit(container_id, Exit(code, oom, time.time_ns()))

    async def pause(self, container_id: str) -> None:
        self._note("pause")

    async def resume(self, container_id: str) -> None:
        self._note("resume")

    async def update(self, container_id: str, resources: Any) -> None:
        self._note("update", str(resources.Memory))

    async def delete(self, container_id: str) -> None:
        self._note("delete")
        self.on_exit.pop(container_id, None)


class StubRuntimes:
    default = "stub"


class StubHooks:
    """Records the calls; `fail` names hooks that raise."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fail: dict[str, Exception] = {}

    def sync(self, hook: str, /, **arguments: Any) -> list[tuple[str, Any]]:
        self.calls.append(hook)
        return []

    async def all(self, hook: str, /, **arguments: Any) -> list[tuple[str, Any]]:
        self.calls.append(hook)
        if hook in self.fail:
            raise self.fail[hook]
        return []

    async def each(self, hook: str, /, **arguments: Any) -> list[tuple[str, BaseException]]:
        self.calls.append(hook)
        return [("stub", self.fail[hook])] if hook in self.fail else []

    async def notify(self, hook: str, /, **arguments: Any) -> None:
        self.calls.append(hook)


class StubDrivers:
    def __init__(self, runtime: StubRuntime) -> None:
        self.runtime = runtime

    def get(self, contract: Any, name: str) -> Any:
        if contract is Runtime and name == "stub":
            return self.runtime
        raise NotFound(f"no {contract.__name__} is named {name!r}")

    async def find(self, contract: Any, name: str) -> Any:
        return self.get(contract, name)


class StubExecs:
    async def ended(self, container_id: str) -> None:
        return

    def list_for(self, container_id: str) -> list[str]:
        return []


class StubNetworks:
    """Nobody is plugged in."""

    def endpoints(self, container_id: str) -> tuple[Any, ...]:
        return ()

    def sandbox(self, container_id: str) -> None:
        return None

    def list(self) -> tuple[Any, ...]:
        return ()

    def get(self, ref: str) -> Any:
        raise NotFound(f"network {ref} not found")


class StubContext:
    """What the plugin sees of the engine."""

    def __init__(self, root: Path) -> None:
        self.log = logging.getLogger("test.containers")
        self.run = root / "run"
        self.run.mkdir(exist_ok=True)
        self.state = Store(root / "state.db")
        self.events = Bus()
        self.hooks = StubHooks()
        self.runtime = StubRuntime()
        self.storage = StubStorage(root)
        self.images = StubImages()
        self.drivers = StubDrivers(self.runtime)
        self.tasks: set[asyncio.Task[Any]] = set()

    def require(self, contract: Any) -> Any:
        return {ImageStore: self.images, Storage: self.storage, Runtimes: StubRuntimes()}[contract]

    def find(self, contract: Any) -> Any:
        return StubNetworks() if contract is Networks else None

    def spawn(self, work: Any, *, name: str) -> asyncio.Task[Any]:
        task = asyncio.create_task(work, name=name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task


class World:
    """One engine's worth of containers, which can be killed and started again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ctx = StubContext(root)
        self.service = self._make()

    def _make(self) -> ContainerService:
        service = ContainerService(self.ctx)  # type: ignore[arg-type]
        service.execs = StubExecs()  # type: ignore[assignment]
        return service

    async def killed_and_started(self) -> None:
        """As after kill -9: what was in memory is gone, the files and the processes are not."""
        for task in list(self.ctx.tasks):
            task.cancel()
        await asyncio.gather(*self.ctx.tasks, return_exceptions=True)
        before = self.ctx
        before.state.close()
        self.ctx = StubContext(self.root)
        self.ctx.storage.layers = before.storage.layers
        self.service = self._make()
        self.service.announce()

    async def make(self, name: str = "", **fields: Any) -> ContainerRecord:
        """Create a container."""
        fields = {"Image": "busybox", "Cmd": ["sh"], **fields}
        return (await self.service.create(ContainerCreate.model_validate(fields), name=name))[0]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what happens in the background."""
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
                await asyncio.sleep(0.005)

    def events(self) -> list[str]:
        """Actions so far."""
        return [event.action for event in self.ctx.events.recent()]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    for task in list(made.ctx.tasks):
        task.cancel()
    await asyncio.gather(*made.ctx.tasks, return_exceptions=True)
    made.ctx.state.close()

"""Drivers behind their guard."""

import asyncio
from collections.abc import Sequence

import pytest

from kernel import guard
from kernel.dispatch import Dispatcher
from kernel.drivers import DriverRegistry
from kernel.hookspecs import MODULES
from kernel.manager import HookManager
from plugin_sdk import Conflict, DriverSpec, EngineError, NotFound, Plugin, PluginError, hookimpl
from plugin_sdk.volumes import DriverVolume, VolumeDriver


class Memory:
    """A volume driver that keeps names."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.answer: object = "/mnt"
        self.extra = 5

    async def create(self, name: str, options: object) -> None:
        self.names.add(name)

    async def remove(self, name: str) -> None:
        self.names.discard(name)

    async def mount(self, name: str, request: str) -> object:
        return self.answer

    async def unmount(self, name: str, request: str) -> None: ...

    async def path(self, name: str) -> str:
        await asyncio.sleep(60)
        return ""

    async def get(self, name: str) -> DriverVolume:
        raise NotFound(f"no volume {name}")

    def list(self) -> Sequence[DriverVolume]:
        return [DriverVolume(name) for name in self.names]

    def scope(self) -> str:
        return "local"


@pytest.fixture
def manager() -> HookManager:
    manager = HookManager()
    for module in MODULES:
        manager.add_specifications(module)
    return manager


@pytest.fixture
def registry(manager: HookManager) -> DriverRegistry:
    threads = guard.Threads()
    return DriverRegistry(Dispatcher(manager, threads, lambda *a: None), threads, lambda *a: None)


async def test_a_driver_works_through_its_guard(registry: DriverRegistry) -> None:
    registry.add("p", [DriverSpec(VolumeDriver, "memory", Memory())])
    driver = registry.get(VolumeDriver, "memory")
    await driver.create("a", {})
    assert [volume.name for volume in await driver.list()] == ["a"], "a plain function where a coroutine is due"
    assert driver.extra == 5
    assert registry.owner(VolumeDriver, "memory") == "p"
    assert registry.names("p") == ["VolumeDriver memory"]
    with pytest.raises(NotFound, match="no volume b"):
        await driver.get("b")


async def test_rubbish_is_refused_by_the_contract(registry: DriverRegistry) -> None:
    memory = Memory()
    registry.add("p", [DriverSpec(VolumeDriver, "memory", memory)])
    for rubbish in (None, 7, b"/mnt", ["/mnt"]):
        memory.answer = rubbish
        with pytest.raises(PluginError, match=r"plugin 'p' failed in VolumeDriver.mount: TypeError: answered .* str"):
            await registry.get(VolumeDriver, "memory").mount("a", "r")


async def test_rubbish_inside_a_list_is_found(registry: DriverRegistry) -> None:
    memory = Memory()
    memory.list = lambda: ["a", "b"]  # type: ignore[method-assign]
    registry.add("p", [DriverSpec(VolumeDriver, "memory", memory)])
    with pytest.raises(PluginError, match="VolumeDriver.list"):
        await registry.get(VolumeDriver, "memory").list()


async def test_a_call_that_hangs_ends_at_the_deadline(registry: DriverRegistry) -> None:
    registry.add("p", [DriverSpec(VolumeDriver, "memory", Memory(), deadline=0.05)])
    with pytest.raises(PluginError, match=r"VolumeDriver.path: no answer within 0.05 s"):
        await registry.get(VolumeDriver, "memory").path("a")


async def test_the_shorter_deadline_of_contract_and_driver_holds(registry: DriverRegistry) -> None:
    class Slow(Memory):
        async def mount(self, name: str, request: str) -> str:
            await asyncio.sleep(60)
            return ""

    registry.add("p", [DriverSpec(VolumeDriver, "slow", Slow(), deadline=0.05)])
    with pytest.raises(PluginError, match=r"VolumeDriver.mount: no answer within 0.05 s"):
        await registry.get(VolumeDriver, "slow").mount("a", "r")


def test_two_drivers_of_one_name_are_refused_with_both_plugins(registry: DriverRegistry) -> None:
    registry.add("one", [DriverSpec(VolumeDriver, "memory", Memory())])
    with pytest.raises(Conflict, match=r"'two'.*'memory' is already provided by plugin 'one'"):
        registry.add("two", [DriverSpec(VolumeDriver, "memory", Memory())])


def test_an_incomplete_driver_is_refused(registry: DriverRegistry) -> None:
    with pytest.raises(EngineError, match=r"lacks create, remove, mount.* of VolumeDriver"):
        registry.add("p", [DriverSpec(VolumeDriver, "memory", object())])
    with pytest.raises(NotFound, match="there are: none"):
        registry.get(VolumeDriver, "memory")


async def test_engine_driver_missing_is_asked_before_giving_up(manager: HookManager, registry: DriverRegistry) -> None:
    asked = []

    class Finder(Plugin):
        @hookimpl
        async def engine_driver_missing(self, contract: type, name: str) -> DriverSpec | None:
            asked.append(name)
            return DriverSpec(contract, name, Memory()) if name == "late" else None

    manager.register(Finder(), "finder")
    assert (await registry.find(VolumeDriver, "late")).scope() == "local"
    await registry.find(VolumeDriver, "late")
    assert asked == ["late"], "the answer is kept"
    with pytest.raises(NotFound, match="there are: late"):
        await registry.find(VolumeDriver, "never")
    registry.remove("finder")
    with pytest.raises(NotFound):
        registry.get(VolumeDriver, "late")

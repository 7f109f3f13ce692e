"""Hooks: registration, modes, order, deadlines, isolation."""

import asyncio
import contextlib
import time

import pytest

from kernel import guard
from kernel.dispatch import Dispatcher
from kernel.hookspecs import MODULES
from kernel.manager import HookManager
from plugin_sdk import Conflict, EngineError, Plugin, PluginError, PluginMeta, hookimpl


class Bench:
    """A manager and dispatcher of their own, and the failures that were told."""

    def __init__(self) -> None:
        self.manager = HookManager()
        for module in MODULES:
            self.manager.add_specifications(module)
        self.failures: list[tuple[str, str]] = []
        self.hooks = Dispatcher(
            self.manager, guard.Threads(), lambda plugin, call, error: self.failures.append((plugin, call))
        )

    def add(self, name: str, **hooks: object) -> None:
        kind = type(
            name, (Plugin,), {"meta": PluginMeta(name), **{key: hookimpl(value) for key, value in hooks.items()}}
        )
        self.manager.register(kind(), name, len(self.manager.all_implementations()))


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_all_runs_in_order_and_collects_what_is_not_none(bench: Bench) -> None:
    called = []

    def make(name: str, answer: object, order: int) -> object:
        async def hook(self: object, container: object, preparation: object) -> object:
            called.append(name)
            return answer

        return hookimpl(order=order)(hook)

    for name, answer, order in (("late", 1, 80), ("early", None, 10), ("middle", 2, 50)):
        kind = type(name, (Plugin,), {"engine_container_prepare": make(name, answer, order)})
        bench.manager.register(kind(), name)
    results = await bench.hooks.all("engine_container_prepare", container=None, preparation=None)
    assert called == ["early", "middle", "late"]
    assert results == [("middle", 2), ("late", 1)]


async def test_first_skips_those_that_decline(bench: Bench) -> None:
    async def declines(self: object, network: object, name: str) -> None:
        await asyncio.sleep(0)

    async def answers(self: object, network: object, name: str) -> list[str]:
        return ["10.0.0.1"]

    bench.add("a", engine_resolve_name=declines)
    bench.add("b", engine_resolve_name=answers)
    assert await bench.hooks.first("engine_resolve_name", network=None, name="x") == ("b", ["10.0.0.1"])


async def test_a_refusal_keeps_its_words_and_a_failure_names_its_plugin(bench: Bench) -> None:
    async def refuses(self: object, draft: object) -> None:
        raise Conflict("not this one")

    bench.add("polite", engine_container_validate=refuses)
    with pytest.raises(Conflict, match="not this one"):
        await bench.hooks.all("engine_container_validate", draft=None)
    assert bench.failures == []

    async def breaks(self: object, draft: object) -> None:
        raise KeyError("oops")

    bench.manager.unregister("polite")
    bench.add("broken", engine_container_validate=breaks)
    with pytest.raises(PluginError, match=r"plugin 'broken' failed in engine_container_validate: KeyError: 'oops'"):
        await bench.hooks.all("engine_container_validate", draft=None)
    assert bench.failures == [("broken", "engine_container_validate")]


async def test_notify_isolates_failures(bench: Bench) -> None:
    heard = []

    async def breaks(self: object, container: object) -> None:
        raise RuntimeError("no")

    async def hears(self: object, container: object) -> None:
        heard.append(container)

    bench.add("a", engine_container_started=breaks)
    bench.add("b", engine_container_started=hears)
    await bench.hooks.notify("engine_container_started", container=7)
    assert heard == [7]
    assert bench.failures == [("a", "engine_container_started")]


async def test_each_releases_all_in_reverse_and_returns_the_failures(bench: Bench) -> None:
    called = []

    async def first(self: object, container: object, exit: object) -> None:
        called.append("first")

    async def second(self: object, container: object, exit: object) -> None:
        called.append("second")
        raise OSError("busy")

    bench.add("first", engine_container_release=first)
    bench.add("second", engine_container_release=second)
    failures = await bench.hooks.each("engine_container_release", container=None, exit=None)
    assert called == ["second", "first"]
    assert [plugin for plugin, _ in failures] == ["second"]


async def test_a_hook_that_hangs_is_cut_off_at_its_deadline(bench: Bench) -> None:
    async def hangs(self: object, network: object, name: str) -> None:
        await asyncio.Event().wait()

    bench.add("hanging", engine_resolve_name=hangs)
    began = time.monotonic()
    with pytest.raises(PluginError, match="no answer within 2 s"):
        await bench.hooks.first("engine_resolve_name", network=None, name="x")
    assert 1.5 < time.monotonic() - began < 10


async def test_a_plain_function_runs_in_a_thread_and_does_not_stall_the_loop(bench: Bench) -> None:
    def blocks(self: object, container: object) -> None:
        time.sleep(0.3)

    bench.add("blocking", engine_container_started=blocks)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    await bench.hooks.notify("engine_container_started", container=None)
    ticking.cancel()
    assert ticks > 10


async def test_cancelling_the_caller_cancels_the_hook(bench: Bench) -> None:
    ended = asyncio.Event()

    async def waits(self: object, draft: object) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    bench.add("waiting", engine_container_validate=waits)
    task = asyncio.create_task(bench.hooks.all("engine_container_validate", draft=None))
    await asyncio.sleep(0.01)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert ended.is_set()
    assert bench.failures == []


def test_sync_leaves_out_who_fails(bench: Bench) -> None:
    def breaks(self: object) -> dict[str, object]:
        raise ValueError("no")

    def answers(self: object) -> dict[str, object]:
        return {"Containers": 3}

    bench.add("a", engine_info=breaks)
    bench.add("b", engine_info=answers)
    assert bench.hooks.sync("engine_info") == [("b", {"Containers": 3})]


def test_counts_and_seconds_are_kept(bench: Bench) -> None:
    bench.add("a", engine_info=lambda self: {})
    bench.hooks.sync("engine_info")
    bench.hooks.sync("engine_info")
    (entry,) = bench.manager.table("engine_info")
    assert (entry.stats.calls, entry.stats.failures) == (2, 0)
    assert entry.stats.seconds > 0


async def test_the_wrong_mode_is_refused(bench: Bench) -> None:
    with pytest.raises(EngineError, match="specified as 'sync', and was called as 'all'"):
        await bench.hooks.all("engine_info")
    with pytest.raises(EngineError, match="did you mean engine_info"):
        bench.hooks.sync("engine_infos")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"engine_containr_started": hookimpl(lambda self, container: None)}, "did you mean engine_container_started"),
        ({"engine_info": lambda self: {}}, "put @hookimpl above it"),
        ({"engine_info": hookimpl(lambda self, extra: {})}, "extra"),
    ],
)
def test_what_is_wrong_with_a_hook_is_said_at_registration(bench: Bench, attributes: dict, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        bench.manager.register(type("P", (Plugin,), attributes)(), "p")
    assert bench.manager.all_implementations() == []


def test_properties_of_a_plugin_are_not_evaluated(bench: Bench) -> None:
    class Trapped(Plugin):
        @property
        def engine_like(self) -> None:
            raise AssertionError("evaluated")

        @property
        def other(self) -> None:
            raise AssertionError("evaluated")

    with pytest.raises(EngineError, match="no such hook"):
        bench.manager.register(Trapped(), "trapped")

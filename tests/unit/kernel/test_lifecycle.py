"""A whole kernel, with plugins made for the test."""

import asyncio
from pathlib import Path
from typing import Any, Protocol

import pytest
from pydantic import BaseModel

from kernel.boot import Kernel
from kernel.config import Config, KernelSettings
from kernel.discovery import Found
from kernel.entry import TRIP_FAILURES
from plugin_sdk import (
    Conflict,
    EngineError,
    Event,
    Holder,
    InvalidParameter,
    NotFound,
    Plugin,
    PluginAdmin,
    PluginMeta,
    PluginState,
    SkipPlugin,
    hookimpl,
    setting,
)


class Clock(Protocol):
    def now(self) -> int: ...


class Provider(Plugin):
    meta = PluginMeta("provider", provides=(Clock,))
    log: list[str] = []

    async def start(self, ctx: Any) -> None:
        self.log.append("start provider")
        ctx.provide(Clock, self)

    async def restore(self) -> None:
        self.log.append("restore provider")

    async def stop(self) -> None:
        self.log.append("stop provider")

    def now(self) -> int:
        return 5


class User(Plugin):
    meta = PluginMeta("user", requires=(Clock,))

    async def start(self, ctx: Any) -> None:
        assert ctx.require(Clock).now() == 5
        Provider.log.append("start user")

    async def restore(self) -> None:
        Provider.log.append("restore user")

    async def stop(self) -> None:
        Provider.log.append("stop user")


def make(tmp_path: Path, *plugins: type[Plugin], values: dict | None = None) -> Kernel:
    settings = KernelSettings(data_root=tmp_path / "data", exec_root=tmp_path / "run")
    found = [Found(plugin.meta.name, "test", "1", plugin) for plugin in plugins]
    return Kernel(Config(settings, values or {}), found)


def state(kernel: Kernel, name: str) -> PluginState:
    return next(status.state for status in kernel.plugins.statuses() if status.name == name)


async def test_starts_in_order_restores_and_stops_in_reverse(tmp_path: Path) -> None:
    Provider.log.clear()
    kernel = make(tmp_path, User, Provider)
    await kernel.start()
    await kernel.stop()
    assert Provider.log == [
        "start provider", "start user", "restore provider", "restore user", "stop user", "stop provider",
    ]  # fmt: skip


async def test_disable_is_refused_while_needed_and_remembered_when_done(tmp_path: Path) -> None:
    kernel = make(tmp_path, User, Provider)
    await kernel.start()
    with pytest.raises(Conflict, match="'provider' is needed by user"):
        await kernel.plugins.disable("provider")
    events = kernel.events.subscribe()
    await kernel.plugins.disable("user")
    await kernel.plugins.disable("provider")
    assert (await anext(events)).action == "disable"
    with pytest.raises(Conflict, match="already disabled"):
        await kernel.plugins.disable("user")
    with pytest.raises(NotFound):
        await kernel.plugins.disable("nobody")
    with pytest.raises(EngineError, match="'user' requires Clock"):
        await kernel.plugins.enable("user")
    await kernel.stop()

    again = make(tmp_path, User, Provider)
    await again.start()
    assert state(again, "provider") is PluginState.DISABLED
    await again.plugins.enable("provider")
    await again.plugins.enable("user")
    assert state(again, "user") is PluginState.ENABLED
    await again.stop()


async def test_holders_keep_a_plugin_until_forced(tmp_path: Path) -> None:
    class Keeper(Plugin):
        meta = PluginMeta("keeper")

        async def start(self, ctx: Any) -> None: ...
        async def restore(self) -> None: ...
        async def stop(self) -> None: ...

        @hookimpl
        def engine_holders(self, kind: str, key: str) -> list[Holder]:
            return [Holder("container", "abc", "web", "running")] if (kind, key) == ("plugin", "provider") else []

    kernel = make(tmp_path, Provider, Keeper)
    await kernel.start()
    with pytest.raises(Conflict, match=r"in use by container web \(running\)"):
        await kernel.plugins.disable("provider")
    await kernel.plugins.disable("provider", force=True)
    await kernel.stop()


async def test_a_plugin_that_fails_skips_or_hangs_leaves_the_others_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kernel.lifecycle.START_SECONDS", 0.2)

    def variant(name: str, body: Any, **meta: Any) -> type[Plugin]:
        return type(name, (Plugin,), {"meta": PluginMeta(name, **meta), "start": body})

    async def raises(self: Any, ctx: Any) -> None:
        raise RuntimeError("bang")

    async def skips(self: Any, ctx: Any) -> None:
        raise SkipPlugin("no such kernel module")

    async def hangs(self: Any, ctx: Any) -> None:
        await asyncio.sleep(60)

    async def owes(self: Any, ctx: Any) -> None: ...

    kernel = make(
        tmp_path,
        variant("raising", raises),
        variant("skipping", skips),
        variant("hanging", hangs),
        variant("owing", owes, provides=(PluginAdmin,)),
        variant("needing", owes, requires=(BaseModel,)),
        variant("misspelt", owes),
        type(
            "Wrong", (Plugin,), {"meta": PluginMeta("wrong"), "start": owes, "engine_redy": hookimpl(lambda self: None)}
        ),
        Provider,
    )
    await kernel.start()
    status = {item.name: item for item in kernel.plugins.statuses()}
    assert status["provider"].state is PluginState.ENABLED
    assert "bang" in status["raising"].reason
    assert (status["skipping"].state, status["skipping"].reason) == (PluginState.SKIPPED, "no such kernel module")
    assert "its start did not finish within 0.2 s" in status["hanging"].reason
    assert "did not provide PluginAdmin" in status["owing"].reason
    assert "requires BaseModel" in status["needing"].reason
    assert "did you mean engine_ready" in status["wrong"].reason
    await kernel.stop()


async def test_an_essential_plugin_that_fails_stops_the_engine(tmp_path: Path) -> None:
    class Vital(Plugin):
        meta = PluginMeta("vital", essential=True)

        async def start(self, ctx: Any) -> None:
            raise EngineError("port in use")

        async def stop(self) -> None: ...

    kernel = make(tmp_path, Vital)
    with pytest.raises(EngineError, match="essential plugin 'vital' does not run: port in use"):
        await kernel.start()
    await kernel.stop()


async def test_settings_that_cannot_be_stop_the_engine_if_somebody_said_them(tmp_path: Path) -> None:
    class Picky(Plugin):
        meta = PluginMeta("picky")

        async def start(self, ctx: Any) -> None:
            raise InvalidParameter("--level: want a number")

        async def stop(self) -> None: ...

    kernel = make(tmp_path / "said", Picky, values={"picky": {"level": "high"}})
    with pytest.raises(InvalidParameter, match="settings of plugin 'picky' cannot be: --level: want a number"):
        await kernel.start()
    await kernel.stop()
    kernel = make(tmp_path / "not", Picky)
    await kernel.start()
    assert state(kernel, "picky") is PluginState.FAILED
    await kernel.stop()


async def test_a_plugin_that_keeps_failing_is_switched_off_and_says_why(tmp_path: Path) -> None:
    class Flaky(Plugin):
        meta = PluginMeta("flaky")

        async def start(self, ctx: Any) -> None: ...
        async def restore(self) -> None: ...
        async def stop(self) -> None: ...

        @hookimpl
        async def engine_event(self, event: Event) -> None:
            raise RuntimeError("again")

    kernel = make(tmp_path, Flaky, Provider)
    await kernel.start()
    for _ in range(TRIP_FAILURES):
        kernel.events.publish(Event("test", "ping", "x"))
    for _ in range(100):
        if state(kernel, "flaky") is PluginState.FAILED:
            break
        await asyncio.sleep(0.01)
    status = {item.name: item for item in kernel.plugins.statuses()}["flaky"]
    assert status.state is PluginState.FAILED
    assert "switched off after 10 failures" in status.reason
    assert "RuntimeError('again')" in status.reason
    assert state(kernel, "provider") is PluginState.ENABLED
    await kernel.plugins.enable("flaky")
    assert state(kernel, "flaky") is PluginState.ENABLED
    await kernel.stop()


async def test_ready_is_told_after_the_restore(tmp_path: Path) -> None:
    order = []

    class Listener(Plugin):
        meta = PluginMeta("listener")

        async def start(self, ctx: Any) -> None: ...

        async def restore(self) -> None:
            order.append("restore")

        async def stop(self) -> None: ...

        @hookimpl
        async def engine_ready(self, addresses: list[str]) -> None:
            order.append("ready")

    kernel = make(tmp_path, Listener)
    await kernel.start()
    assert order == ["restore", "ready"]
    await kernel.stop()


async def test_reload_hands_over_what_can_be_reloaded(tmp_path: Path) -> None:
    class Settings(BaseModel):
        fixed: int = setting(1, "fixed", flag="--fixed")
        loose: int = setting(1, "loose", flag="--loose", reloadable=True)

    taken = []

    class Tunable(Plugin):
        meta = PluginMeta("tunable", settings=Settings)

        async def start(self, ctx: Any) -> None: ...
        async def restore(self) -> None: ...
        async def stop(self) -> None: ...

        async def reload(self, settings: Settings) -> None:
            taken.append((settings.fixed, settings.loose))

    kernel = make(tmp_path, Tunable)
    await kernel.start()
    await kernel.reload(Config(kernel.config.kernel, {"tunable": {"fixed": 9, "loose": "7"}}))
    assert taken == [(1, 7)]
    await kernel.stop()

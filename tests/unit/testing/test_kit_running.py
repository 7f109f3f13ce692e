"""How kits are run: clean-up, deadlines, what does not apply, the guard before drivers, authz and metrics over a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import OldStylePlugin, Raw, Refusal

from kernel.managed.peer import Address, Peer, Places
from plugin_sdk import DriverSpec, InvalidParameter
from plugin_sdk.testing import subjects
from plugin_sdk.testing.kit import Bench, Broken, Kit, Outcome, Result
from plugin_sdk.testing.kits import INTERFACES, KITS, authz, metrics
from plugin_sdk.volumes import VolumeDriver


class Plain(Bench[Any]):
    """A bench over anything."""


def kit_of(*functions: Any, deadline: float = 5.0) -> Kit:
    kit = Kit("Plain", object, Plain)
    for function in functions:
        kit.check("it holds", says="Plain: it holds.", deadline=deadline)(function)
    return kit


async def run(kit: Kit, driver: Any = None) -> list[Result]:
    return [each async for each in kit.run(subjects.in_use(driver, "thing"))]


async def test_what_a_check_made_is_removed_in_reverse_also_after_a_failure() -> None:
    removed: list[str] = []

    async def makes_and_fails(bench: Plain) -> None:
        for name in ("one", "two"):
            bench.later(name, lambda name=name: gone(name))
        bench.folder.joinpath("file").touch()
        folders.append(bench.folder)
        raise Broken("a", "b")

    async def gone(name: str) -> None:
        removed.append(name)
        if name == "two":
            raise RuntimeError("stuck")

    folders: list[Path] = []
    (result,) = await run(kit_of(makes_and_fails))
    assert (result.outcome, result.detail) == (Outcome.BROKEN, "expected a; got b")
    assert removed == ["two", "one"]
    assert not folders[0].exists()


async def test_what_cannot_be_removed_breaks_the_check() -> None:
    async def makes(bench: Plain) -> None:
        bench.later("the thing", stuck)

    async def stuck() -> None:
        raise RuntimeError("stuck")

    (result,) = await run(kit_of(makes))
    assert result.outcome is Outcome.BROKEN
    assert "the thing: stuck" in result.detail


async def test_a_check_that_hangs_is_broken_and_the_next_one_runs() -> None:
    async def hangs(bench: Plain) -> None:
        await asyncio.sleep(60)

    async def holds(bench: Plain) -> None:
        return

    first, second = await run(kit_of(hangs, holds, deadline=0.1))
    assert (first.outcome, first.detail) == (Outcome.BROKEN, "expected an end within 0.1 s; got none")
    assert second.outcome is Outcome.HOLDS


async def test_a_cancelled_run_cleans_up() -> None:
    removed = asyncio.Event()

    async def hangs(bench: Plain) -> None:
        bench.later("it", gone)
        begun.set()
        await asyncio.sleep(60)

    async def gone() -> None:
        removed.set()

    begun = asyncio.Event()
    task = asyncio.create_task(run(kit_of(hangs)))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert removed.is_set()


async def test_an_engines_driver_is_not_restarted() -> None:
    async def restarts(bench: Plain) -> None:
        await bench.restart()

    (result,) = await run(kit_of(restarts))
    assert (result.outcome, result.detail) == (Outcome.DOES_NOT_APPLY, "this driver cannot be started anew from here")


class Hanging:
    """A volume driver of plain functions, which answers rubbish."""

    def __getattr__(self, name: str) -> Any:
        if name not in ("create", "remove", "mount", "unmount", "path", "get", "list", "scope"):
            raise AttributeError(name)
        return lambda *arguments: 42


async def test_drivers_are_tried_behind_the_engines_guard() -> None:
    kit = KITS[VolumeDriver]
    results = {each.check: each async for each in kit.run(subjects.made_by(Hanging, kit))}
    assert {each.outcome for each in results.values()} == {Outcome.BROKEN}
    assert "VolumeDriver.list: TypeError: answered 42" in results["at-the-same-time"].detail or "42" in str(results)


class OfProtocol(VolumeDriver):
    """What a class that names its protocol as base looks like: its constructor takes anything, and wants nothing."""


def test_a_factory_gets_a_folder_when_it_wants_one() -> None:
    def wants(folder: Path) -> None: ...
    def can_take(folder: Path = Path()) -> None: ...
    def has_other(ranges: tuple[str, ...] = ()) -> None: ...

    taking = [subjects.made_by(each).restartable for each in (wants, can_take, has_other, OfProtocol, Hanging)]
    assert taking == [True, True, False, False, False]


def test_the_contract_is_found_by_what_an_object_has() -> None:
    assert [kit.name for kit in subjects.kits_of(Hanging())] == ["VolumeDriver"]
    assert [kit.name for kit in subjects.kits_of(DriverSpec(VolumeDriver, "x", object()))] == ["VolumeDriver"]
    with pytest.raises(InvalidParameter, match="object fulfils no driver contract; of .* it lacks "):
        subjects.kits_of(object())


@pytest.mark.parametrize("text", ["nothing", "no.such.module:x", "os:no_such_name", "os:name"])
def test_a_factory_that_cannot_be_had_is_named(text: str) -> None:
    with pytest.raises(InvalidParameter, match=text):
        subjects.load(text)


def test_every_check_says_where_its_claim_stands() -> None:
    for kit in [*KITS.values(), *INTERFACES.values()]:
        assert kit.checks
        assert len({check.name for check in kit.checks}) == len(kit.checks)
        for check in kit.checks:
            assert ":" in check.says, f"{kit.name}: {check.name}: {check.says!r} names no sentence of the contract"


@asynccontextmanager
async def peer(
    folder: Path, capability: str, legacy: str, answers: dict[str, Any]
) -> AsyncIterator[tuple[Peer, dict[str, Any]]]:
    with OldStylePlugin(folder, "p", [legacy], answers) as plugin:
        made = Peer("p", [f"docker.{capability}/1.0"], Address(plugin.socket), Places((folder, "/shared")))
        yield made, plugin.answers
        await made.close()


async def outcomes(kit: Kit, driver: Any) -> dict[str, Outcome]:
    return {each.check: each.outcome async for each in kit.run(subjects.in_use(driver, "p", remote=True))}


def refuse(_: Any) -> Any:
    raise Refusal("no")


async def test_authz(tmp_path: Path) -> None:
    allow = {"Allow": True}
    answers: dict[str, Any] = {"AuthZPlugin.AuthZReq": lambda _: allow, "AuthZPlugin.AuthZRes": lambda _: allow}
    async with peer(tmp_path, "authz", "authz", answers) as (driver, answers):
        assert subjects.kits_of(driver) == [authz.KIT]
        assert set((await outcomes(authz.KIT, driver)).values()) == {Outcome.HOLDS}
        for wrong in (lambda _: {"Allow": False}, lambda _: {}, lambda _: Raw(b"rubbish"), refuse):
            answers["AuthZPlugin.AuthZReq"] = wrong
            found = await outcomes(authz.KIT, driver)
            assert {name for name, outcome in found.items() if outcome is Outcome.BROKEN} == set(found) - {"response"}
        flips: list[bool] = []

        def moody(_: Any) -> Any:
            flips.append(True)
            return {"Allow": bool(len(flips) % 2), "Msg": "not now"}

        answers["AuthZPlugin.AuthZReq"] = moody
        found = await outcomes(authz.KIT, driver)
        assert [name for name, outcome in found.items() if outcome is Outcome.BROKEN] == ["same-answer"]


async def test_metrics(tmp_path: Path) -> None:
    state = {"on": False}

    def turn(to: bool) -> Any:
        def answer(_: Any) -> Any:
            if state["on"] == to and state.get("strict"):
                raise Refusal("already so")
            state["on"] = to
            return Raw(b"")

        return answer

    answers = {"MetricsCollector.StartMetrics": turn(True), "MetricsCollector.StopMetrics": turn(False)}
    async with peer(tmp_path, "metricscollector", "MetricsCollector", answers) as (driver, _):
        assert set((await outcomes(metrics.KIT, driver)).values()) == {Outcome.HOLDS}
        assert state["on"]
        state["strict"] = True
        found = await outcomes(metrics.KIT, driver)
        assert found["start-again"] is Outcome.BROKEN
        assert found["stop"] is Outcome.BROKEN

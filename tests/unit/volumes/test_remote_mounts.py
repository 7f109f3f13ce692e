"""Volumes of drivers that refuse, hang, die and come back; a daemon that is killed in between."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from plugin_sdk import Conflict, EngineError, NotFound, PluginRefusal, Unavailable
from plugins.volumes import owed, survey
from plugins.volumes.owed import BOOT
from plugins.volumes.remote import VolumeInterface

from .conftest import FakePeer, World, container


def requests(peer: FakePeer, method: str) -> list[str]:
    return [arguments["ID"] for arguments in peer.of(method)]


async def hang(_: Any) -> None:
    await asyncio.sleep(60)


async def test_a_driver_is_stored_under_its_canonical_name(world: World) -> None:
    record = await world.volumes.create("v", driver="me/vol")
    assert record.Driver == "me/vol:latest"
    assert (await world.volumes.create("v", driver="me/vol")).Driver == "me/vol:latest"
    assert (await world.volumes.create("v", driver="")).Driver == "me/vol:latest"
    with pytest.raises(Conflict, match="it exists with the driver me/vol:latest"):
        await world.volumes.create("v", driver="local")
    assert world.volumes.is_driver("me/vol:latest", "me/vol")
    assert not world.volumes.is_driver("me/vol:latest", "me/vol:1")


async def test_an_unknown_driver(world: World) -> None:
    with pytest.raises(NotFound, match='create v: error looking up volume plugin nope: plugin "nope" not found'):
        await world.volumes.create("v", driver="nope")


async def test_a_refusal_to_create_leaves_no_record(world: World) -> None:
    world.peer.answers["Create"] = PluginRefusal("me/vol:latest", "VolumeDriver.Create", "option 'x' is unknown")
    with pytest.raises(PluginRefusal, match=r"plugin 'me/vol:latest': VolumeDriver.Create: option 'x' is unknown"):
        await world.volumes.create("v", driver="me/vol")
    assert world.volumes.find("v") is None


async def test_who_holds_a_plugin(world: World) -> None:
    await world.volumes.create("v", driver="me/vol")
    await world.volumes.create("other")
    (holder,) = world.volumes.kept_by("me/vol:latest")
    assert (holder.kind, holder.id) == ("volume", "v")
    world.volumes.reserve("v", "c1")
    assert "container c1" in str(world.volumes.kept_by("me/vol:latest")[0])
    world.drivers.remove("me/vol:latest")
    assert [one.id for one in world.volumes.kept_by("me/vol:latest")] == ["v"]
    assert [one.id for one in world.volumes.kept_by("volumes")] == ["other"]


async def test_a_plugin_in_the_daemon_is_held_through_its_drivers_name(world: World) -> None:
    world.drivers.remove("me/vol:latest")
    world.drivers.add("inhouse", await VolumeInterface().connect(world.peer))
    await world.volumes.create("v", driver="me/vol")
    assert [one.id for one in world.volumes.kept_by("inhouse")] == ["v"]


async def test_one_id_for_each_start(world: World) -> None:
    await world.volumes.create("v", driver="me/vol")
    await world.volumes.create("w", driver="me/vol")
    web = container("v", "w")
    for _ in range(2):
        preparation = await world.prepare(web)
        assert [mount.source for mount in preparation.mounts] == [str(world.root / "mnt")] * 2
        await world.mounts.release(web)
    first, also_first, second, also_second = requests(world.peer, "Mount")
    assert first == also_first != second == also_second
    assert sorted(requests(world.peer, "Unmount")) == sorted([first, first, second, second])


async def test_a_refused_mount_is_not_unmounted(world: World) -> None:
    for name in ("v", "w", "x"):
        await world.volumes.create(name, driver="me/vol")
    fine = world.peer.answers["Mount"]
    refusal = PluginRefusal("me/vol:latest", "VolumeDriver.Mount", "no")
    world.peer.answers["Mount"] = lambda arguments: refusal if arguments["Name"] == "w" else fine
    with pytest.raises(PluginRefusal):
        await world.prepare(container("v", "w", "x"))
    await world.mounts.release(container("v", "w", "x"))
    assert [arguments["Name"] for arguments in world.peer.of("Unmount")] == ["v"]


async def test_a_mount_that_got_no_answer_is_unmounted(world: World) -> None:
    await world.volumes.create("v", driver="me/vol")
    world.peer.answers["Mount"] = Unavailable("died")
    with pytest.raises(Unavailable):
        await world.prepare(container("v"))
    await world.mounts.release(container("v"))
    assert requests(world.peer, "Unmount") == requests(world.peer, "Mount")


async def test_a_mount_point_that_is_not_there(world: World) -> None:
    await world.volumes.create("v", driver="me/vol")
    world.peer.answers["Mount"] = {"Mountpoint": "/nowhere"}
    with pytest.raises(EngineError, match="driver me/vol:latest gave /host/nowhere as mount point of volume v"):
        await world.prepare(container("v"))


async def test_release_does_not_wait_for_a_plugin_that_hangs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owed, "DELAYS", (0.01,))
    await world.volumes.create("v", driver="me/vol")
    await world.prepare(container("v"))
    world.peer.answers["Unmount"] = hang
    began = time.monotonic()
    await world.mounts.release(container("v"))
    assert time.monotonic() - began < 1
    assert len(requests(world.peer, "Unmount")) == 1
    # And nobody waits for it a second time.
    await world.mounts._intend("d", "r", [world.volumes.get("v")])
    began = time.monotonic()
    await world.mounts.release(container("v").model_copy(update={"Id": "d"}))
    assert time.monotonic() - began < world.owed.patience


async def test_unmounts_are_tried_until_answered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owed, "DELAYS", (0.01,))
    await world.volumes.create("v", driver="me/vol")
    await world.prepare(container("v"))
    answers = [Unavailable("away"), Unavailable("away"), {}]
    world.peer.answers["Unmount"] = lambda _: answers.pop(0)
    await world.mounts.release(container("v"))
    await world.until(lambda: not world.owed._stored.values())
    assert requests(world.peer, "Unmount") == requests(world.peer, "Mount") * 3


async def test_removal_asks_for_what_is_owed_first(world: World) -> None:
    await world.volumes.create("v", driver="me/vol")
    await world.prepare(container("v"))
    answers = [Unavailable("away"), {}]
    world.peer.answers["Unmount"] = lambda _: answers.pop(0)
    await world.mounts.release(container("v"))
    assert world.owed._stored.values()
    await world.volumes.remove("v")
    assert [method for method, _, _ in world.peer.calls][-2:] == ["VolumeDriver.Unmount", "VolumeDriver.Remove"]
    assert not world.owed._stored.values()


async def test_a_refused_unmount_is_let_go(world: World) -> None:
    await world.volumes.create("v", driver="me/vol")
    await world.prepare(container("v"))
    world.peer.answers["Unmount"] = PluginRefusal("me/vol:latest", "VolumeDriver.Unmount", "not mounted")
    await world.mounts.release(container("v"))
    assert not world.owed._stored.values()


async def test_a_daemon_killed_with_a_mounted_volume(world: World) -> None:
    await world.volumes.create("v", driver="me/vol")
    await world.prepare(container("v"))
    await world.killed_and_started()
    await world.connect()
    world.mounts.restore()
    await asyncio.sleep(0.05)
    assert len(requests(world.peer, "Mount")) == 1
    assert requests(world.peer, "Unmount") == []
    await world.mounts.release(container("v"))
    assert requests(world.peer, "Unmount") == requests(world.peer, "Mount")


async def test_a_daemon_killed_while_an_unmount_is_owed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owed, "DELAYS", (0.01,))
    await world.volumes.create("v", driver="me/vol")
    await world.prepare(container("v"))
    world.peer.answers["Unmount"] = hang
    await world.mounts.release(container("v"))
    await world.killed_and_started()
    world.peer.answers["Unmount"] = {}
    began = time.monotonic()
    world.mounts.restore()
    assert time.monotonic() - began < 0.1
    await asyncio.sleep(0.05)
    await world.connect()  # the driver comes later than the restore
    await world.until(lambda: not world.owed._stored.values())
    assert requests(world.peer, "Unmount") == requests(world.peer, "Mount") * 2


async def test_after_a_boot_of_the_machine_nothing_is_mounted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.volumes.create("v", driver="me/vol")
    await world.prepare(container("v"))
    (run,) = world.mounts._runs.values()
    assert run.Boot == BOOT
    await world.mounts._runs.put(run.model_copy(update={"Boot": "another"}))
    await world.killed_and_started()
    world.mounts.restore()
    await world.mounts.release(container("v"))
    assert requests(world.peer, "Unmount") == []
    assert not world.mounts._runs.values()


async def test_a_mount_waits_for_the_unmount_that_is_on_its_way(world: World) -> None:
    await world.volumes.create("v", driver="me/vol")
    await world.prepare(container("v"))
    let = asyncio.Event()

    async def slow(_: Any) -> dict[str, Any]:
        await let.wait()
        return {}

    world.peer.answers["Unmount"] = slow
    await world.mounts.release(container("v"))
    again = asyncio.ensure_future(world.prepare(container("v")))
    await asyncio.sleep(0.05)
    assert len(requests(world.peer, "Mount")) == 1
    let.set()
    await again
    assert len(requests(world.peer, "Mount")) == 2


async def test_a_volume_whose_driver_is_gone_is_shown_and_can_be_forgotten(world: World) -> None:
    await world.volumes.create("v", driver="me/vol")
    await world.volumes.create("here")
    world.drivers.remove("me/vol:latest")
    seen, warnings = await world.survey.all()
    assert [record.Name for record, _ in seen] == ["here", "v"]
    assert warnings == ['volume driver me/vol:latest: plugin "me/vol:latest" not found']
    _, shown = await world.survey.look("v")
    assert 'plugin "me/vol:latest" not found' in shown.status["Error"]
    with pytest.raises(Unavailable, match='remove v: .*plugin "me/vol:latest" not found.*use force'):
        await world.volumes.remove("v")
    await world.volumes.remove("v", force=True)
    assert world.volumes.find("v") is None


async def test_drivers_that_hang_do_not_hold_up_a_listing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert survey.LISTING_DEADLINE < 2
    monkeypatch.setattr(survey, "LISTING_DEADLINE", 0.2)
    monkeypatch.setattr(survey, "LOOK_DEADLINE", 0.2)
    for number in range(3):
        peer = FakePeer(f"p{number}", **world.peer.answers)
        world.peer, good = peer, world.peer
        await world.connect()
        world.peer = good
        await world.volumes.create(f"v{number}", driver=peer.name)
        peer.answers |= {"List": hang, "Get": hang}
    began = time.monotonic()
    seen, warnings = await world.survey.all()
    assert [record.Name for record, _ in seen] == ["v0", "v1", "v2"]
    assert len(warnings) == 3
    assert "did not answer within 0.2 s" in (await world.survey.look("v1"))[1].status["Error"]
    with pytest.raises(NotFound, match=r"get nobody: no such volume; volume driver p0 did not answer"):
        await world.survey.look("nobody")
    assert time.monotonic() - began < 1.5


async def test_a_volume_that_only_its_plugin_knows(world: World) -> None:
    world.peer.answers["Create"]({"Name": "theirs"})
    assert [(record.Name, record.Driver) for record, _ in (await world.survey.all())[0]] == [
        ("theirs", "me/vol:latest")
    ]
    assert (await world.survey.look("theirs"))[0].Driver == "me/vol:latest"

"""VolumeDriver 1.0: what is sent, and what is made of the replies."""

from __future__ import annotations

from typing import Any

import pytest

from plugin_sdk import DeadlineExceeded, EngineError, NotFound, NotSupported, PluginError, PluginRefusal, Unavailable
from plugin_sdk.volumes import DriverVolume, VolumeDriver
from plugins.volumes.plugin import VolumesPlugin
from plugins.volumes.remote import RemoteDriver, VolumeInterface, says_no_such_volume

from .conftest import FakePeer


def driver(**answers: Any) -> tuple[RemoteDriver, FakePeer]:
    peer = FakePeer(**answers)
    return RemoteDriver(peer, "local"), peer


def refusal(call: str, text: str) -> PluginRefusal:
    return PluginRefusal("me/vol:latest", f"VolumeDriver.{call}", text)


@pytest.mark.parametrize(
    ("answer", "scope"),
    [
        ({"Capabilities": {"Scope": "global"}}, "global"),
        ({"capabilities": {"scope": "GLOBAL"}}, "global"),
        ({"Capabilities": {"Scope": "local"}}, "local"),
        ({"Capabilities": {"Scope": "galactic"}}, "local"),
        ({"Capabilities": None}, "local"),
        ({}, "local"),
        (NotSupported("404"), "local"),
        (refusal("Capabilities", "no"), "local"),
        (DeadlineExceeded("late"), "local"),
        (PluginError("me/vol:latest", "VolumeDriver.Capabilities", "rubbish"), "local"),
    ],
)
async def test_the_scope_is_asked_once(answer: Any, scope: str) -> None:
    peer = FakePeer(Capabilities=answer)
    (spec,) = await VolumeInterface().connect(peer)
    assert (spec.contract, spec.name) == (VolumeDriver, "me/vol:latest")
    assert [spec.driver.scope(), spec.driver.scope()] == [scope, scope]
    assert [(method, arguments) for method, arguments, _ in peer.calls] == [("VolumeDriver.Capabilities", None)]


def test_the_adapter_is_offered_through_engine_managed_interfaces() -> None:
    plugin = VolumesPlugin()
    plugin._interface = VolumeInterface()
    (adapter,) = plugin.engine_managed_interfaces().values()
    assert adapter.legacy == "VolumeDriver"
    assert plugin.engine_managed_interfaces() == {"docker.volumedriver/1.0": adapter}


async def test_what_is_sent_and_how_long_it_may_take() -> None:
    remote, peer = driver(Get={}, Create={}, Remove={}, Mount={"Mountpoint": "/m"}, Unmount={}, Path={}, List={})
    await remote.create("v", {"a": "1"})
    await remote.mount("v", "id1")
    await remote.unmount("v", "id1")
    await remote.path("v")
    await remote.list()
    await remote.remove("v")
    assert peer.calls == [
        ("VolumeDriver.Get", {"Name": "v"}, 60),
        ("VolumeDriver.Create", {"Name": "v", "Opts": {"a": "1"}}, 120),
        ("VolumeDriver.Mount", {"Name": "v", "ID": "id1"}, 120),
        ("VolumeDriver.Unmount", {"Name": "v", "ID": "id1"}, 60),
        ("VolumeDriver.Path", {"Name": "v"}, 60),
        ("VolumeDriver.List", None, 60),
        ("VolumeDriver.Remove", {"Name": "v"}, 60),
    ]


@pytest.mark.parametrize("told", [NotSupported("404"), refusal("Get", "no such volume"), refusal("Get", "broken"), {}])
async def test_create_makes_what_get_does_not_know(told: Any) -> None:
    remote, peer = driver(Get=told, Create={})
    await remote.create("v", {})
    assert peer.of("Create") == [{"Name": "v", "Opts": {}}]


async def test_create_leaves_what_is_there_and_waits_for_no_dead_plugin() -> None:
    remote, peer = driver(Get={"Volume": {"Name": "v"}}, Create={})
    await remote.create("v", {})
    assert peer.of("Create") == []
    remote, peer = driver(Get=Unavailable("gone"), Create={})
    with pytest.raises(Unavailable):
        await remote.create("v", {})
    assert peer.of("Create") == []


async def test_get_and_list_are_lenient() -> None:
    told = {
        "name": "v",
        "mountPoint": "/m",
        "createdAt": "2026-01-02T03:04:05+01:00",
        "status": {"a": 1},
        "unheard": [],
    }
    remote, peer = driver(Get={"volume": told}, List={"volumes": [told, None, {"Name": ""}, {"Name": "w"}]})
    expected = DriverVolume("v", "/host/m", "2026-01-02T03:04:05+01:00", {"a": 1})
    assert await remote.get("v") == expected
    assert await remote.list() == [expected, DriverVolume("w")]
    for odd in ("", None, 7, "yesterday"):
        peer.answers["Get"] = {"Volume": {"Name": "v", "CreatedAt": odd, "Status": ["odd"], "Mountpoint": None}}
        assert await remote.get("v") == DriverVolume("v")
    for none in ({}, {"Volumes": None}, NotSupported("404")):
        peer.answers["List"] = none
        assert await remote.list() == []


async def test_one_bad_entry_does_not_hide_the_others() -> None:
    remote, _ = driver(
        List={"Volumes": [{"Name": "bad", "Mountpoint": "/../etc"}, {"Name": "good", "Mountpoint": "/m"}]}
    )
    bad, good = await remote.list()
    assert "VolumeDriver.List: the mount point of volume bad" in bad.status["Error"]
    assert (bad.mountpoint, good.mountpoint) == ("", "/host/m")


async def test_neither_volume_nor_error_is_not_found() -> None:
    remote, _ = driver(Get={})
    with pytest.raises(NotFound, match="get v: no such volume"):
        await remote.get("v")


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("no such volume", True),
        ("No such volume: v1", True),
        ("get v1: no such volume", True),
        ("volume v1 not found", True),
        ("Volume not found", True),
        ("volume 'v1' does not exist", True),
        ("Volume (v1) lookup failed: volume v1 doesn't exist", True),
        ('"v1": not found', True),
        ("v1 does not exist", True),
        ("unknown volume v1", True),
        ("no volume named v1", True),
        ("could not find volume v1", True),
        ("not found: v1", True),
        ("not found", False),
        ("key not found in store", False),
        ("volume v1: server nas7 not found", False),
        ("mount point of volume v1: /mnt/v1 does not exist", False),
        ("v10 not found", False),
        ("nas/v1 not found", False),
        ("host for volume v1 does not exist", False),
        ("volume v1 is in use", False),
        ("permission denied", False),
    ],
)
async def test_which_refusals_mean_no_such_volume(text: str, gone: bool) -> None:
    assert says_no_such_volume(text, "v1") is gone
    remote, _ = driver(Get=refusal("Get", text), Remove=refusal("Remove", text))
    with pytest.raises(EngineError) as told:
        await remote.get("v1")
    assert isinstance(told.value, NotFound) is gone
    if gone:
        await remote.remove("v1")
    else:
        with pytest.raises(PluginRefusal):
            await remote.remove("v1")


@pytest.mark.parametrize("mountpoint", ["", "mnt/v", "../../etc"])
async def test_a_mount_point_that_is_none(mountpoint: str) -> None:
    remote, _ = driver(Mount={"Mountpoint": mountpoint})
    with pytest.raises(
        PluginError, match=r"'me/vol:latest' failed in VolumeDriver.Mount: gave no mount point for volume v"
    ):
        await remote.mount("v", "1")


async def test_a_mount_point_that_leads_out() -> None:
    remote, _ = driver(Mount={"Mountpoint": "/a/../../etc"})
    with pytest.raises(
        PluginError, match=r"'me/vol:latest' failed in VolumeDriver.Mount: the mount point of volume v.*out"
    ):
        await remote.mount("v", "1")

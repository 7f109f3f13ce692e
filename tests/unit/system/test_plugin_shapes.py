"""Plugins in the API's shapes, and their filters."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from plugin_sdk import HookStats, InvalidParameter, PluginState, PluginStatus
from plugin_sdk.managed import ManagedPlugin, ManagedStatus
from plugins.plugin_admin.cli import _archive
from plugins.plugin_admin.shapes import in_process, managed, select

VOLUMES = ManagedPlugin(Id="1", Name="v:1", Enabled=True, Config={"Interface": {"Types": ["docker.volumedriver/1.0"]}})
LOGS = ManagedPlugin(Id="2", Name="l:1", Config={"Interface": {"Types": ["docker.logdriver/1.0"]}})
BARE = ManagedPlugin(Id="3", Name="b:1")


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, ["v:1", "l:1", "b:1"]),
        ({"enabled": ["true"]}, ["v:1"]),
        ({"enabled": ["false"]}, ["l:1", "b:1"]),
        ({"capability": ["volumedriver"]}, ["v:1"]),
        ({"capability": ["VolumeDriver", "logdriver"]}, ["v:1", "l:1"]),
        ({"capability": ["authz"]}, []),
    ],
)
def test_filters(filters: dict[str, list[str]], names: list[str]) -> None:
    assert [plugin.Name for plugin in select([VOLUMES, LOGS, BARE], filters)] == names


def test_bad_filter() -> None:
    with pytest.raises(InvalidParameter, match=r"invalid filter 'enabled=\[x\]'"):
        select([VOLUMES], {"enabled": ["x"]})


def test_shapes() -> None:
    assert managed(VOLUMES, VOLUMES.Settings, ManagedStatus())["PluginReference"] == "v:1"
    stats = {("a", "engine_info"): HookStats(calls=2, seconds=0.5), ("b", "engine_info"): HookStats()}
    shown = in_process(PluginStatus("a", PluginState.FAILED, reason="why"), stats)
    assert (shown["State"], shown["Reason"]) == ("failed", "why")
    assert shown["Calls"] == {"engine_info": {"calls": 2, "failures": 0, "seconds": 0.5, "longest": 0.0}}


def test_archive_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "rootfs/bin").mkdir(parents=True)
    (tmp_path / "rootfs/bin/big").write_bytes(b"x" * 3_000_000)
    (tmp_path / "rootfs/link").symlink_to("bin/big")
    (tmp_path / "unrelated").write_text("")
    pieces = list(_archive(tmp_path))
    assert len(pieces) > 1
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        assert tar.getnames() == ["config.json", "rootfs", "rootfs/bin", "rootfs/bin/big", "rootfs/link"]
        assert tar.getmember("rootfs/link").linkname == "bin/big"

"""Info's parts: merging, the host's facts, the settings behind them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from plugins.system.describe import merge
from plugins.system.host import cgroup_limits, os_release
from plugins.system.settings import Settings
from plugins.system.usage import tree_size


def test_merge() -> None:
    base = {"Driver": "", "Warnings": ["a"], "Plugins": {"Log": ["json-file"], "Volume": []}}
    part = {"Driver": "overlay2", "Warnings": ["b", "a"], "Plugins": {"Log": ["syslog"]}, "New": 1}
    assert merge(base, part) == {
        "Driver": "overlay2",
        "Warnings": ["a", "b"],
        "Plugins": {"Log": ["json-file", "syslog"], "Volume": []},
        "New": 1,
    }


def test_os_release(tmp_path: Path) -> None:
    assert os_release(tmp_path) == {}
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text('# comment\nPRETTY_NAME="Some Linux 1"\nVERSION_ID=1\n\n')
    assert os_release(tmp_path) == {"PRETTY_NAME": "Some Linux 1", "VERSION_ID": "1"}


def test_cgroup_versions(tmp_path: Path) -> None:
    version, limits = cgroup_limits(tmp_path)
    assert version == "1"
    assert not any(limits.values())
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text("0")
    assert cgroup_limits(tmp_path)[1]["MemoryLimit"]
    (tmp_path / "cgroup.controllers").write_text("cpu pids\n")
    version, limits = cgroup_limits(tmp_path)
    assert version == "2"
    assert limits["CpuCfsQuota"]
    assert limits["PidsLimit"]
    assert not limits["MemoryLimit"]


def test_labels() -> None:
    assert Settings(labels=["a=b", "a=b", "c="]).labels == ["a=b", "c="]
    for bad in (["a"], ["=b"], ["a=1", "a=2"]):
        with pytest.raises(ValidationError):
            Settings(labels=bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"rootless": True},
    ],
)
def test_what_would_be_wrong_to_ignore_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings(**bad)


def test_tree_size(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").write_bytes(b"x" * 5000)
    (tmp_path / "hard").hardlink_to(tmp_path / "a/file")
    (tmp_path / "soft").symlink_to("/")
    directory = (tmp_path / "a").stat().st_size
    assert tree_size(str(tmp_path)) == 5000 + directory + 1
    assert tree_size(str(tmp_path / "none")) == 0

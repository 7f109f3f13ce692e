"""The working folder of a container that was created and not yet started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plugin_sdk import InvalidParameter
from plugin_sdk.containers import MountPoint
from plugins.containers import workdir
from plugins.containers.workdir import make_working_dir


@pytest.fixture(autouse=True)
def anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may not be root, whose the folders are to be."""
    make = workdir.make_folders
    own = {"uid": os.getuid(), "gid": os.getgid()}
    monkeypatch.setattr(workdir, "make_folders", lambda root, path, **_: make(root, path, **own))


def test_it_is_made_and_links_stay_inside(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/real")
    (tmp_path / "real").mkdir()
    make_working_dir(tmp_path, "/link/a/b", [], None)
    make_working_dir(tmp_path, "/link/a/b", [], None)
    assert (tmp_path / "real/a/b").is_dir()


def test_below_a_mount_nothing_is_made(tmp_path: Path) -> None:
    make_working_dir(tmp_path, "/data/x", [MountPoint(Type="volume", Destination="/data")], None)
    make_working_dir(tmp_path, "/database/x", [MountPoint(Type="volume", Destination="/data")], None)
    assert sorted(os.listdir(tmp_path)) == ["database"]


@pytest.mark.parametrize("path", ["/file", "/file/below", "/dangling"])
def test_something_else_is_in_the_way(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("/nowhere")
    with pytest.raises(InvalidParameter, match="is not a directory"):
        make_working_dir(tmp_path, path, [], None)

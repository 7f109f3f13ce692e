"""Paths inside a hostile root file system never lead out of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plugin_sdk.rootfs import (
    copy_tree,
    exists_in_root,
    make_folders,
    open_in_root,
    open_parent,
    resolve_in_root,
    stat_in_root,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("host")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/name").write_text("container")
    (root / "absolute").symlink_to("/etc")
    (root / "up").symlink_to("../../../../etc")
    (root / "out").symlink_to(tmp_path)
    (root / "loop").symlink_to("loop")
    (root / "magic").symlink_to("/proc/self/root")
    return root


def content(root: Path, path: str) -> str:
    with os.fdopen(open_in_root(root, path, os.O_RDONLY)) as file:
        return file.read()


def test_links_stay_inside(root: Path) -> None:
    for path in ("/etc/name", "absolute/name", "up/name", "../../etc/name"):
        assert content(root, path) == "container"
    assert resolve_in_root(root, "/up/name") == "/etc/name"
    assert resolve_in_root(root, "/up", follow=False) == "/up"
    assert resolve_in_root(root, "/") == "/"
    for path in ("out/secret", "magic/etc/passwd", "../secret"):
        with pytest.raises(OSError):
            content(root, path)
    with pytest.raises(OSError):
        open_in_root(root, "loop")


def test_looking(root: Path) -> None:
    assert exists_in_root(root, "/absolute/name")
    assert not exists_in_root(root, "/out")
    assert exists_in_root(root, "/out", follow=False)
    assert not exists_in_root(root, "/etc/name/below")
    assert stat_in_root(root, "up/name").st_size == len("container")


def test_parent(root: Path) -> None:
    folder, name = open_parent(root, "/absolute/new")
    try:
        assert name == "new"
        os.mkdir(name, dir_fd=folder)
    finally:
        os.close(folder)
    assert (root / "etc/new").is_dir()
    with pytest.raises(ValueError):
        open_parent(root, "/etc/..")


def test_making_folders_follows_links_inside(root: Path) -> None:
    os.close(make_folders(root, "/absolute/a/b", mode=0o750, uid=os.getuid(), gid=os.getgid()))
    assert (root / "etc/a/b").stat().st_mode & 0o777 == 0o750
    os.close(make_folders(root, "/absolute/a/b"))
    with pytest.raises(OSError):
        make_folders(root, "/out/x")
    with pytest.raises(NotADirectoryError):
        make_folders(root, "/etc/name/x")


def test_copy_keeps_what_a_tree_is(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "sub").mkdir(parents=True)
    target.mkdir()
    (source / "file").write_text("x")
    (source / "file").chmod(0o640)
    os.link(source / "file", source / "sub/same")
    (source / "link").symlink_to("/etc/passwd")
    os.mkfifo(source / "pipe")
    with (source / "sparse").open("wb") as file:
        file.truncate(1 << 20)
        file.seek(512 << 10)
        file.write(b"middle")
    os.setxattr(source / "file", "user.colour", b"red")
    source.chmod(0o1777)
    os.utime(source / "file", ns=(1, 2))
    from_fd, to_fd = (os.open(path, os.O_PATH | os.O_DIRECTORY) for path in (source, target))
    try:
        copy_tree(from_fd, to_fd)
    finally:
        os.close(from_fd)
        os.close(to_fd)
    assert target.stat().st_mode & 0o7777 == 0o1777
    copied = (target / "file").stat()
    assert (copied.st_mode & 0o777, copied.st_nlink, copied.st_mtime_ns) == (0o640, 2, 2)
    assert copied.st_ino == (target / "sub/same").stat().st_ino
    assert os.readlink(target / "link") == "/etc/passwd"
    assert (target / "pipe").is_fifo()
    assert os.getxattr(target / "file", "user.colour") == b"red"
    sparse = (target / "sparse").read_bytes()
    assert sparse == (source / "sparse").read_bytes()
    assert (target / "sparse").stat().st_blocks * 512 < 1 << 20

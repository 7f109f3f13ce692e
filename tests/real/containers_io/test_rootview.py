"""A stopped container's root file system with its volumes, without a trace on the host."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugin_sdk.rootfs import open_in_root
from plugin_sdk.streams import apart
from plugins.containers.rootview import Bind, assemble

pytestmark = pytest.mark.real


@pytest.fixture
def layer(real_host: None, tmp_path: Path) -> Iterator[Path]:
    """A mounted root file system, and sources of volumes beside it."""
    path = tmp_path / "merged"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "layer", path], check=True)
    (path / "data").mkdir()
    (path / "data/shadowed").write_text("layer")
    (path / "escape").symlink_to("/../../outside")
    for name in ("volume", "outside", "inner"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    (tmp_path / "volume/part").mkdir()
    (tmp_path / "volume/part/file").write_text("part")
    yield path
    subprocess.run(["umount", path], check=True)


def read(root: int, path: str) -> str:
    with open(open_in_root(root, path, os.O_RDONLY)) as file:
        return file.read()


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


async def test_volumes_are_seen_and_nothing_is_left(layer: Path) -> None:
    before = mounts()
    sources = layer.parent
    binds = [
        Bind(str(sources / "volume"), "/data"),
        Bind(str(sources / "inner"), "/data/made/here"),
        Bind(str(sources / "volume"), "/part", subpath="part"),
        Bind(str(sources / "outside/file"), "/etc/one"),
    ]
    root = await apart(assemble, layer, binds)
    try:
        assert read(root, "/data/file") == "volume"
        assert read(root, "/data/made/here/file") == "inner"
        assert read(root, "/part/file") == "part"
        assert read(root, "/etc/one") == "outside"
        with pytest.raises(FileNotFoundError):
            read(root, "/data/shadowed")
        with open(open_in_root(root, "/data/new", os.O_WRONLY | os.O_CREAT, 0o644), "w") as file:
            file.write("in the volume")
        assert mounts() == before
    finally:
        os.close(root)
    assert (sources / "volume/new").read_text() == "in the volume"
    assert (layer / "data/shadowed").read_text() == "layer"
    assert mounts() == before


async def test_read_only_is_kept_by_the_kernel(layer: Path) -> None:
    sources = layer.parent
    binds = [Bind(str(sources / "volume"), "/data", writable=False), Bind(str(sources / "inner"), "/inner")]
    root = await apart(assemble, layer, binds, True)
    try:
        for path in ("/data/x", "/x"):
            with pytest.raises(OSError) as refused:
                open_in_root(root, path, os.O_WRONLY | os.O_CREAT, 0o644)
            assert refused.value.errno == errno.EROFS
        os.close(open_in_root(root, "/inner/x", os.O_WRONLY | os.O_CREAT, 0o644))
    finally:
        os.close(root)


async def test_a_link_as_mount_point_stays_inside(layer: Path) -> None:
    sources = layer.parent
    before = mounts()
    root = await apart(assemble, layer, [Bind(str(sources / "inner"), "/escape/deep")])
    try:
        assert read(root, "/outside/deep/file") == "inner"
    finally:
        os.close(root)
    assert not (sources / "outside/deep").exists()
    assert mounts() == before


async def test_many_at_once(layer: Path) -> None:
    binds = [Bind(str(layer.parent / "volume"), "/data")]
    roots = await asyncio.gather(*(apart(assemble, layer, binds) for _ in range(20)))
    assert {read(root, "/data/file") for root in roots} == {"volume"}
    for root in roots:
        os.close(root)

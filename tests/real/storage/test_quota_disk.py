"""Disk images of limited layers: what a crash leaves is settled, and they take no more room than they hold."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from harness import eventually

from plugin_sdk import EngineError
from plugins.storage_overlay2.driver import Overlay2
from plugins.storage_overlay2.mounts import sync_file_system
from plugins.storage_overlay2.quota.image import DiskImage

pytestmark = pytest.mark.real


def make_driver(root: Path) -> Overlay2:
    made = Overlay2(root, logging.getLogger("test"), lambda work, name: asyncio.ensure_future(work))
    made._quotas._backends = [DiskImage()]
    made.open()
    return made


def traces(root: Path) -> list[str]:
    """Mounts and loop devices below a folder."""
    found = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines() if f" {root}/" in line]
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found += [text for text in [backing.read_text()] if text.startswith(f"{root}/")]
        except OSError:
            continue  # it ended meanwhile
    return found


async def nothing_left(root: Path) -> None:
    for _ in range(100):
        if not traces(root) and not os.listdir(root / "tmp"):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"left: {traces(root)}, {os.listdir(root / 'tmp')}")


@pytest.fixture
async def root(tmp_path: Path) -> AsyncIterator[Path]:
    folder = tmp_path / "storage"
    folder.mkdir()
    yield folder
    driver = make_driver(folder)
    await driver.recover()
    for name in driver.writable():
        await driver.remove(name)
    await nothing_left(folder)
    assert os.listdir(folder / "writable") == []


async def test_a_reader_that_was_killed(root: Path) -> None:
    driver = make_driver(root)
    await driver.create("c", "", options={"size": "16m"})
    await driver.create("d", "", options={"size": "16m"})
    (await driver.mount("d") / "file").write_text("kept")
    reader = driver._writables.upper("c")
    reader.__enter__()  # its daemon dies before it leaves
    assert f"{root}/writable/c/disk" in traces(root)
    later = make_driver(root)
    await later.recover()
    assert not any("/c/" in trace for trace in traces(root))
    assert Path(later.metadata("d")["MergedDir"], "file").read_text() == "kept"
    await later.unmount("d")
    await nothing_left(root)
    assert await later.usage("d") == 4
    await nothing_left(root)


async def test_a_layer_that_was_taken_out_of_its_place(root: Path) -> None:
    driver = make_driver(root)
    await driver.create("c", "", options={"size": "16m"})
    await driver.mount("c")
    os.rename(root / "writable/c", root / "tmp/gone-1")
    later = make_driver(root)
    assert later.writable() == {}
    await later.recover()
    await nothing_left(root)


async def test_a_failure_half_way(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = make_driver(root)
    forgotten: list[Path] = []

    def fail(*_: Any) -> None:
        raise EngineError("no luck")

    monkeypatch.setattr(DiskImage, "finish", fail)
    monkeypatch.setattr(DiskImage, "forget", lambda _, home: forgotten.append(home))
    with pytest.raises(EngineError, match="no luck"):
        await driver.create("c", "", options={"size": "16m"})
    assert len(forgotten) == 1 and driver.writable() == {}
    assert os.listdir(root / "tmp") == os.listdir(root / "writable") == []


async def test_room_on_the_disk_below(root: Path) -> None:
    driver = make_driver(root)
    await driver.create("big", "", options={"size": "200g"})
    used = (root / "writable/big/disk.img").stat().st_blocks * 512
    assert used < 64 << 20, "a journal of 1 GiB was written"

    await driver.create("c", "", options={"size": "64m"})
    merged = await driver.mount("c")
    image = root / "writable/c/disk.img"
    with (merged / "file").open("wb") as file:
        file.write(os.urandom(32 << 20))
        file.flush()
        os.fsync(file.fileno())
    full = image.stat().st_blocks * 512
    assert full > 32 << 20
    (merged / "file").unlink()
    # The kernel gives room back some time after it has written the deletion, and not to a disk that is being unmounted.
    sync_file_system(root / "writable/c/disk")
    await asyncio.to_thread(eventually, lambda: image.stat().st_blocks * 512 < full - (16 << 20))
    await driver.unmount("c")
    await nothing_left(root)

"""A disk of its own for each limited layer: a sparse file with ext4 in it, mounted by a loop device.

Works on any file system that holds big files, at the price of a second file system below the layer. The kernel's loop device goes with its mount.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from plugin_sdk import EngineError
from plugin_sdk.aio import run_blocking

from .. import mounts

_FILE = "disk.img"
_DEADLINE = 60.0
_TABLES = "nodiscard,lazy_itable_init=1,lazy_journal_init=1"
"""A new sparse file is all zeros: tables and journal (1 GiB of a big disk) need not be written."""
_OPTIONS = "loop,noatime,discard"
"""Discard: what is deleted in the disk frees room in the file."""
_PROGRAMS = (("mkfs.ext4", "e2fsprogs"), ("mount", "mount"))


class DiskImage:
    """See the module."""

    name = "disk image"
    inner = "disk"
    least = 8 << 20

    def available(self, root: Path) -> str:
        """See `QuotaBackend`."""
        missing = [package for program, package in _PROGRAMS if shutil.which(program) is None]
        if missing:
            return f"disk images: install {', '.join(missing)}"
        if not os.path.exists("/dev/loop-control"):
            return "disk images: the kernel has no loop devices (modprobe loop)"
        return ""

    def begin(self, home: Path, size: int) -> None:
        """See `QuotaBackend`."""
        (home / self.inner).mkdir(mode=0o711)

    def finish(self, home: Path, size: int) -> None:
        """See `QuotaBackend`: the folders that were made become the new file system's content."""
        image, content = home / _FILE, home / self.inner
        with image.open("xb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.truncate(size)
        made = run_blocking(
            ["mkfs.ext4", "-q", "-m", "0", "-E", _TABLES, "-d", str(content), str(image)], timeout=_DEADLINE
        )
        if made.code != 0:
            raise EngineError(f"mkfs.ext4 failed: {made.message}")
        for folder in ("fs", "work"):
            os.rmdir(content / folder)

    def ready(self, home: Path) -> None:
        """See `QuotaBackend`."""
        target = home / self.inner
        if mounts.is_mounted(str(target)):
            return
        done = run_blocking(["mount", "-t", "ext4", "-o", _OPTIONS, str(home / _FILE), str(target)], timeout=_DEADLINE)
        if done.code != 0:
            raise EngineError(f"the disk image of {home.name} cannot be mounted: {done.message}")

    def rest(self, home: Path) -> None:
        """See `QuotaBackend`."""
        mounts.unmount(str(home / self.inner))

    def forget(self, home: Path) -> None:
        """See `QuotaBackend`."""
        self.rest(home)

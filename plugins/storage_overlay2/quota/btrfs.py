"""Quota groups of btrfs: each limited layer is a subvolume of its own.

Source: btrfs-subvolume(8), btrfs-quota(8), btrfs-qgroup(8).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from plugin_sdk import EngineError
from plugin_sdk.aio import run_blocking

from ..mounts import file_system

_DEADLINE = 60.0


class BtrfsQuota:
    """See the module."""

    name = "btrfs quota group"
    inner = "disk"
    least = 1 << 20

    def available(self, root: Path) -> str:
        """See `QuotaBackend`."""
        if file_system(root)[1] != "btrfs":
            return "btrfs quota groups: not on btrfs"
        if shutil.which("btrfs") is None:
            return "btrfs quota groups: the program btrfs is missing; install btrfs-progs"
        return ""

    def begin(self, home: Path, size: int) -> None:
        """See `QuotaBackend`. All users of the file system pay for its quotas: they are switched on by the first limit."""
        _btrfs("quota", "enable", home)
        _btrfs("subvolume", "create", home / self.inner)
        try:
            _btrfs("qgroup", "limit", str(size), home / self.inner)
        except EngineError:
            _btrfs("subvolume", "delete", home / self.inner)
            raise

    def finish(self, home: Path, size: int) -> None:
        """See `QuotaBackend`."""

    def ready(self, home: Path) -> None:
        """See `QuotaBackend`: the limit lasts."""

    def rest(self, home: Path) -> None:
        """See `QuotaBackend`."""

    def forget(self, home: Path) -> None:
        """See `QuotaBackend`: the group would outlive its subvolume."""
        subvolume = home / self.inner
        if not subvolume.exists():
            return
        number = _btrfs("inspect-internal", "rootid", subvolume)
        _btrfs("subvolume", "delete", "--commit-after", subvolume)
        # Newer kernels drop the group with the subvolume.
        run_blocking(["btrfs", "qgroup", "destroy", f"0/{number}", str(home)], timeout=_DEADLINE)


def _btrfs(*arguments: str | Path) -> str:
    done = run_blocking(["btrfs", *map(str, arguments)], timeout=_DEADLINE)
    if done.code != 0:
        raise EngineError(f"btrfs {' '.join(map(str, arguments[:2]))} failed: {done.message}")
    return done.stdout.decode().strip()

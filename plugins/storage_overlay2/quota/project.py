"""Project quotas of XFS, ext4 and f2fs: the file system itself counts what belongs to a folder's project.

Source: ioctl_fsgetxattr in linux/fs.h, quotactl(2), linux/dqblk_xfs.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import secrets
import struct
import threading
from pathlib import Path

_FSGETXATTR = 0x801C581F
_FSSETXATTR = 0x401C5820
_XATTR = struct.Struct("=IIIII8x")  # xflags, extsize, nextents, projid, cowextsize
_PROJINHERIT = 0x200

_QUOTACTL_FD = 443  # the same on all architectures that were added to after 2019
_PROJECT = 2
_SETLIMIT = (ord("X") << 8) + 4  # Q_XSETQLIM
_DISK_QUOTA = struct.Struct("=bbHIQQQQQQiiHHbbbbQQQiHh8s")
_HARD_AND_SOFT_BLOCKS = 0xC  # FS_DQ_BSOFT | FS_DQ_BHARD
_SECTOR = 512

_FIRST = 1 << 30
"""Lowest number that we give: small ones are people's, in /etc/projid."""

_libc = ctypes.CDLL(None, use_errno=True)


class ProjectQuota:
    """See the module. Not possible on the machines where this is tested: the kernel lacks it there, and says so."""

    name = "project quota"
    inner = ""
    least = 1 << 20

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def available(self, root: Path) -> str:
        """Tries it on a folder of its own."""
        trial = root / "tmp" / f"quota-{secrets.token_hex(4)}"
        trial.mkdir(mode=0o700)
        try:
            project = self._free(root)
            _set_project(trial, project)
            _set_limit(trial, project, 1 << 20)
            _set_limit(trial, project, 0)
        except OSError as error:
            return f"project quotas: {error.strerror}; mount the file system with the option prjquota"
        finally:
            trial.rmdir()
        return ""

    def begin(self, home: Path, size: int) -> None:
        """See `QuotaBackend`."""
        with self._lock:
            project = self._free(home.parents[1])
            _set_project(home, project)
        _set_limit(home, project, size)

    def finish(self, home: Path, size: int) -> None:
        """See `QuotaBackend`: new files inherit the project."""

    def ready(self, home: Path) -> None:
        """See `QuotaBackend`: the limit lasts."""

    def rest(self, home: Path) -> None:
        """See `QuotaBackend`."""

    def forget(self, home: Path) -> None:
        """See `QuotaBackend`."""
        project = _get_project(home)
        if project >= _FIRST:
            _set_limit(home, project, 0)

    def _free(self, root: Path) -> int:
        """A number that no layer, ready or being made, has."""
        taken = {0}
        for folder in (root / "writable", root / "tmp"):
            if folder.exists():
                taken |= {_get_project(path) for path in folder.iterdir() if path.is_dir() and not path.is_symlink()}
        # Random, so that a machine's other project quotas are unlikely to be met.
        while (project := secrets.randbelow(1 << 30) + _FIRST) in taken:
            pass
        return project


def _get_project(path: Path) -> int:
    return _attributes(path)[3]


def _attributes(path: Path) -> tuple[int, int, int, int, int]:
    with _Folder(path) as descriptor:
        return _XATTR.unpack(fcntl.ioctl(descriptor, _FSGETXATTR, bytes(_XATTR.size)))


def _set_project(path: Path, project: int) -> None:
    flags, extent, extents, _, cow = _attributes(path)
    with _Folder(path) as descriptor:
        fcntl.ioctl(descriptor, _FSSETXATTR, _XATTR.pack(flags | _PROJINHERIT, extent, extents, project, cow))


def disk_quota(project: int, size: int) -> bytes:
    """`struct fs_disk_quota` that limits a project's blocks to `size` bytes; 0 lifts the limit."""
    blocks = -(-size // _SECTOR)
    return _DISK_QUOTA.pack(
        *(1, _PROJECT, _HARD_AND_SOFT_BLOCKS, project, blocks, blocks),  # version, flags, fieldmask, id, hard, soft
        *(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, bytes(8)),
    )


def _set_limit(path: Path, project: int, size: int) -> None:
    buffer = ctypes.create_string_buffer(disk_quota(project, size))
    with _Folder(path) as descriptor:
        command = ctypes.c_uint((_SETLIMIT << 8) | _PROJECT)
        if _libc.syscall(ctypes.c_long(_QUOTACTL_FD), descriptor, command, project, buffer) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> int:
        self._descriptor = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

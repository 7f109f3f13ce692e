"""A container's changes as an archive, with OCI whiteouts. Blocking. The container may be changing its tree meanwhile."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from plugin_sdk.rootfs import open_parent
from plugin_sdk.storage import ChangeKind
from storage_vfs.trees import Difference
from storage_vfs.unpacking import WHITEOUT, XATTR


def pack(tree: Path, differences: Sequence[Difference], out: BinaryIO) -> None:
    """Write the differences, folders before what they hold."""
    links: dict[tuple[int, int], str] = {}
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:
        for each in differences:
            if each.kind is ChangeKind.DELETED:
                folder, slash, name = each.path.rpartition("/")
                tar.addfile(tarfile.TarInfo(f"{folder}{slash}{WHITEOUT}{name}"))
            else:
                _add(tar, tree, each.path, links)


def _add(tar: tarfile.TarFile, tree: Path, path: str, links: dict[tuple[int, int], str]) -> None:
    try:
        place, name = open_parent(tree, path)
    except OSError:
        return  # gone, or replaced by something that is no folder
    try:
        entry = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
    except FileNotFoundError:
        return
    finally:
        os.close(place)
    try:
        facts = os.fstat(entry)
        info = _described(entry, path, facts)
        if info is None:
            return
        key = (facts.st_dev, facts.st_ino)
        if facts.st_nlink > 1 and not info.isdir():
            if key in links:
                info.type, info.linkname, info.size = tarfile.LNKTYPE, links[key], 0
                tar.addfile(info)
                return
            links[key] = path
        if info.isreg():
            with open(f"/proc/self/fd/{entry}", "rb") as content:
                tar.addfile(info, content)
        else:
            tar.addfile(info)
    finally:
        os.close(entry)


def _described(entry: int, path: str, facts: os.stat_result) -> tarfile.TarInfo | None:
    """None for a socket, which no archive can hold."""
    kinds = {
        stat.S_IFREG: tarfile.REGTYPE,
        stat.S_IFDIR: tarfile.DIRTYPE,
        stat.S_IFLNK: tarfile.SYMTYPE,
        stat.S_IFIFO: tarfile.FIFOTYPE,
        stat.S_IFCHR: tarfile.CHRTYPE,
        stat.S_IFBLK: tarfile.BLKTYPE,
    }
    kind = kinds.get(stat.S_IFMT(facts.st_mode))
    if kind is None:
        return None
    info = tarfile.TarInfo(path)
    info.type, info.mode = kind, stat.S_IMODE(facts.st_mode)
    info.uid, info.gid = facts.st_uid, facts.st_gid
    info.mtime = facts.st_mtime_ns // 10**9
    headers = {"mtime": f"{facts.st_mtime_ns // 10**9}.{facts.st_mtime_ns % 10**9:09d}"}
    if kind == tarfile.REGTYPE:
        info.size = facts.st_size
    elif kind == tarfile.SYMTYPE:
        info.linkname = os.readlink("", dir_fd=entry)
    elif kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        info.devmajor, info.devminor = os.major(facts.st_rdev), os.minor(facts.st_rdev)
    if kind != tarfile.SYMTYPE:
        for name in os.listxattr(f"/proc/self/fd/{entry}"):
            value = os.getxattr(f"/proc/self/fd/{entry}", name)
            headers[f"{XATTR}{name}"] = value.decode("utf-8", "surrogateescape")
    info.pax_headers = headers
    return info

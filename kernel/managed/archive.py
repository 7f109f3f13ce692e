"""The tar that `plugin create` sends: `config.json` and `rootfs/`."""

from __future__ import annotations

import os
import stat
import tarfile
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from kernel.errors import InvalidParameter
from kernel.managed.schema import MAX_BYTES


def unpack(archive: BinaryIO, target: Path) -> bytes:
    """Unpack `rootfs/` below `target` and give the bytes of `config.json`. Blocking.

    Nothing is written through a symbolic link, so nothing outside `target` is touched whatever the archive says.

    Raises:
        InvalidParameter: no tar, an unsafe member, or `config.json` or `rootfs` is missing.
    """
    config: bytes | None = None
    try:
        with tarfile.open(fileobj=archive, mode="r|*") as tar:
            # Members are checked here; Python's own filters would refuse device nodes and absolute links of a root file
            # system. Set as an attribute, since early 3.11 has no argument for it.
            tar.extraction_filter = lambda member, path: member
            for member in tar:
                name = _safe(member.name)
                if name == "config.json":
                    config = _config(tar, member)
                elif name == "rootfs" or name.startswith("rootfs/"):
                    _extract(tar, member, name, target)
    except (tarfile.TarError, EOFError) as error:
        raise InvalidParameter(f"the plugin archive is no tar: {error}") from error
    if config is None:
        raise InvalidParameter("the plugin archive has no config.json")
    if not (target / "rootfs").is_dir():
        raise InvalidParameter("the plugin archive has no rootfs directory")
    return config


def _safe(name: str) -> str:
    parts = PurePosixPath(name.lstrip("/")).parts
    if ".." in parts:
        raise InvalidParameter(f"the plugin archive holds an unsafe path: {name!r}")
    return "/".join(parts)


def _config(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member) if member.isreg() else None
    if file is None or member.size > MAX_BYTES:
        raise InvalidParameter(f"config.json must be a regular file of at most {MAX_BYTES} bytes")
    return file.read()


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, name: str, target: Path) -> None:
    _make_parents(name, target)
    path = target / name
    member.name = name
    if member.islnk():
        member.linkname = _safe(member.linkname)
        _make_parents(member.linkname, target)
        if not (target / member.linkname).is_symlink() and not (target / member.linkname).is_file():
            raise InvalidParameter(f"the plugin archive links {name!r} to {member.linkname!r}, which it does not hold")
    if not member.isdir() and (path.is_symlink() or path.is_file()):
        path.unlink()
    elif path.is_symlink():
        raise InvalidParameter(f"the plugin archive holds {name!r} as a link and as a directory")
    tar.extract(member, target, numeric_owner=True)


def _make_parents(name: str, target: Path) -> None:
    """Make the folders above a member; each must be a real one."""
    folder = target
    for part in PurePosixPath(name).parts[:-1]:
        folder /= part
        try:
            mode = os.lstat(folder).st_mode
        except FileNotFoundError:
            folder.mkdir(mode=0o755)
            continue
        if not stat.S_ISDIR(mode):
            raise InvalidParameter(
                f"the plugin archive writes through {folder.relative_to(target)}, which is no directory"
            )

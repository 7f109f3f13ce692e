"""Ownership, modes, times and extended attributes of files, and overlayfs's own marks among them."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field

OPAQUE = "trusted.overlay.opaque"
_PRIVATE = ("trusted.overlay.", "user.overlay.")
_FOREIGN = ("security.selinux", "security.ima", "security.evm", "security.apparmor", "security.SMACK64")
_IGNORED = (errno.ENOTSUP, errno.EOPNOTSUPP)


@dataclass(slots=True)
class Attributes:
    """What a file carries beside its content; times in nanoseconds."""

    mode: int
    uid: int
    gid: int
    mtime: int
    xattrs: dict[bytes, bytes] = field(default_factory=dict)


def portable(name: str) -> bool:
    """An extended attribute that belongs into a layer: not overlayfs's own, nor a security module's of this host."""
    return not name.startswith(_PRIVATE) and name not in _FOREIGN


def of(where: int | str) -> Attributes:
    """A file's or folder's attributes, by descriptor or path."""
    found = os.stat(where)
    return Attributes(found.st_mode & 0o7777, found.st_uid, found.st_gid, found.st_mtime_ns, xattrs(where))


def xattrs(where: int | str) -> dict[bytes, bytes]:
    """Portable extended attributes."""
    try:
        return {os.fsencode(name): os.getxattr(where, name) for name in os.listxattr(where) if portable(name)}
    except OSError as error:
        if error.errno in _IGNORED:
            return {}
        raise


def set_on(descriptor: int, wanted: Attributes) -> None:
    """Give an open file or folder its attributes, the times last."""
    os.fchown(descriptor, wanted.uid, wanted.gid)
    os.fchmod(descriptor, wanted.mode)
    set_xattrs(descriptor, wanted.xattrs)
    os.utime(descriptor, ns=(wanted.mtime, wanted.mtime))


def set_xattrs(where: int | str, wanted: dict[bytes, bytes], *, follow: bool = True) -> None:
    """Set portable attributes; those that the file system does not know are left out."""
    for name, value in wanted.items():
        if not portable(os.fsdecode(name)):
            continue
        try:
            os.setxattr(where, name, value, follow_symlinks=follow)
        except OSError as error:
            if error.errno not in _IGNORED:
                raise


def is_whiteout(found: os.stat_result) -> bool:
    """overlayfs's mark for "deleted": a character device 0/0."""
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def is_opaque(where: int | str) -> bool:
    """overlayfs's mark on a folder that hides what lies below it."""
    try:
        return os.getxattr(where, OPAQUE) == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, *_IGNORED):
            return False
        raise


def make_opaque(descriptor: int) -> None:
    """Set that mark."""
    os.setxattr(descriptor, OPAQUE, b"y")

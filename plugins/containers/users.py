"""User and group names of a container's own /etc/passwd and /etc/group."""

from __future__ import annotations

import os
import stat

from plugin_sdk import InvalidParameter
from plugin_sdk.rootfs import open_in_root

_LIMIT = 8 << 20
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY


def owner_of(root: int, user: str) -> tuple[int, int] | None:
    """(uid, gid) of `user[:group]`, names or numbers; None for "". Blocking.

    Without a group it is the user's own, 0 for a number that the container does not know.

    Raises:
        InvalidParameter: the container knows no such user or group.
    """
    if not user:
        return None
    name, _, group = user.partition(":")
    uid, gid = -1, 0
    for fields in _table(root, "/etc/passwd"):
        if len(fields) > 3 and name in (fields[0], fields[2]) and fields[2].isdecimal() and fields[3].isdecimal():
            uid, gid = int(fields[2]), int(fields[3])
            break
    if uid < 0:
        if not name.isdecimal():
            raise InvalidParameter(f"unable to find user {name}: no matching entries in passwd file")
        uid = int(name)
    if group:
        gid = _group(root, group)
    return uid, gid


def _group(root: int, name: str) -> int:
    for fields in _table(root, "/etc/group"):
        if len(fields) > 2 and name in (fields[0], fields[2]) and fields[2].isdecimal():
            return int(fields[2])
    if name.isdecimal():
        return int(name)
    raise InvalidParameter(f"unable to find group {name}: no matching entries in group file")


def _table(root: int, path: str) -> list[list[str]]:
    try:
        descriptor = open_in_root(root, path, _READ)
    except OSError:
        return []  # a container need not have the file
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return []
        text = os.read(descriptor, _LIMIT).decode(errors="replace")
    finally:
        os.close(descriptor)
    return [line.split(":") for line in text.splitlines()]

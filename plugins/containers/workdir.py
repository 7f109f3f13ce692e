"""The working directory that a container was given, made with the container: `docker cp` may come before the start."""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Iterable
from pathlib import Path

from plugin_sdk import IdMap, InvalidParameter
from plugin_sdk.containers import MountPoint
from plugin_sdk.rootfs import make_folders
from plugin_sdk.userns import acting_as


def make_working_dir(root: Path, path: str, mounts: Iterable[MountPoint], ids: IdMap | None) -> None:
    """Make a folder and those above it, root's, if they are missing. Blocking.

    Args:
        ids: of the container's user namespace, whose root is meant.

    Below a mount nothing is made: what lies there is not the container's, or not mounted yet.

    Raises InvalidParameter, in dockerd's words: something that is no folder is in the way.
    """
    if any(_within(path, mount.Destination) for mount in mounts):
        return
    try:
        uid, gid = ids.root if ids else (0, 0)
        with acting_as(ids):
            os.close(make_folders(root, path, uid=uid, gid=gid))
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.EEXIST, errno.ELOOP):
            raise
        raise InvalidParameter(f"Cannot mkdir: {path} is not a directory") from None


def _within(path: str, folder: str) -> bool:
    return posixpath.commonpath((path, folder)) == folder

"""A new volume takes over what the image has at its place."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

from plugin_sdk import IdMap, InvalidParameter
from plugin_sdk.rootfs import copy_tree, open_in_root

STAGING = "_copy"


def is_empty(folder: str) -> bool:
    """Blocking. A folder that cannot be read counts as not empty: it is left alone."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return False


def give_to_root(folder: str, ids: IdMap) -> None:
    """An empty volume of the host's root becomes that of a user namespace's root, so that this can write. Blocking."""
    facts = os.stat(folder)
    if (facts.st_uid, facts.st_gid) == (0, 0) and is_empty(folder):
        os.chown(folder, *ids.root)


def copy_up(rootfs: Path, destination: str, target: str, *, fresh: bool) -> None:
    """Copy the folder `destination` of a root file system, with its attributes, into an empty volume. Blocking.

    Args:
        target: the volume's folder on the host.
        fresh: nobody else can have the volume mounted yet: the copy is made aside and put in place as a whole.

    Raises:
        InvalidParameter: there is a file where the volume shall be.
    """
    try:
        source = open_in_root(rootfs, destination, os.O_PATH | os.O_DIRECTORY)
    except (FileNotFoundError, OSError) as error:
        if error.errno == errno.ENOTDIR:
            raise InvalidParameter(
                f"cannot mount volume over existing file, file exists {destination} in the image"
            ) from None
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return
        raise
    try:
        if fresh:
            _replace(source, Path(target))
        elif is_empty(target):
            _copy(source, target)
    finally:
        os.close(source)


def _replace(source: int, target: Path) -> None:
    staging = target.parent / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(mode=0o700)
    try:
        _copy(source, str(staging))
        os.rename(staging, target)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def _copy(source: int, target: str) -> None:
    folder = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        copy_tree(source, folder)
    except BaseException:
        for name in os.listdir(f"/proc/self/fd/{folder}"):
            with suppress(OSError):
                path = os.path.join(target, name)
                if os.path.isdir(path) and not os.path.islink(path):
                    shutil.rmtree(path)
                else:
                    os.unlink(path)
        raise
    finally:
        os.close(folder)

"""The init layer: mount points that every container needs, where an image lacks them.

It lies between the image's layers and the writable one, so what a runtime mounts over does not show up as a change of the
container. The list is Docker's.
"""

from __future__ import annotations

import os
from pathlib import Path

from . import attributes
from .attributes import Attributes
from .stack import Stack

_FOLDERS = ("dev/pts", "dev/shm", "proc", "sys")
_FILES = (".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf")
_LINKS = {"etc/mtab": "/proc/mounts"}

NEW = Attributes(0o755, 0, 0, 0)
"""Of a folder that no layer has; the same in each stack, times too."""


def build(tree: Path, below: Stack) -> None:
    """Fill the empty folder `tree`. Blocking."""
    borrowed: dict[Path, Attributes] = {}
    root = below.find("")
    borrowed[tree] = attributes.of(root) if root else NEW
    for name in (*_FOLDERS, *_FILES, *_LINKS):
        place = _parent(tree, name, below, borrowed)
        if place is None or below.find(name) is not None:
            continue
        if name in _LINKS:
            os.symlink(_LINKS[name], tree / name)
        elif name in _FILES:
            (tree / name).touch(mode=0o755)
        else:
            (tree / name).mkdir()
            borrowed[tree / name] = NEW
            continue
        os.utime(tree / name, ns=(0, 0), follow_symlinks=False)
    for folder, wanted in borrowed.items():
        _set(folder, wanted)


def _parent(tree: Path, name: str, below: Stack, borrowed: dict[Path, Attributes]) -> Path | None:
    """The folder that holds `name`, with the attributes of the one below; None where something else is in the way."""
    parent = name.rpartition("/")[0]
    folder = tree / parent
    if not folder.exists():
        found = below.find(parent)
        if found is not None and (os.path.islink(found) or not os.path.isdir(found)):
            return None
        if found is not None and below.find(name) is not None:
            return None
        folder.mkdir()
        borrowed[folder] = attributes.of(found) if found else NEW
    return folder


def _set(folder: Path, wanted: Attributes) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        attributes.set_on(descriptor, wanted)
    finally:
        os.close(descriptor)

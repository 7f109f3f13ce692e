"""What an upper tree changed of the layers below it, and how much it holds."""

from __future__ import annotations

import os
import stat

from plugin_sdk.storage import Change, ChangeKind

from . import attributes
from .stack import Stack

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def changes(upper: str, below: Stack) -> list[Change]:
    """Changed paths, sorted. A folder counts as changed when anything below it did, as with dockerd."""
    found: dict[str, ChangeKind] = {}
    root = os.open(upper, _FOLDER)
    try:
        _folder(root, "", below, found)
    finally:
        os.close(root)
    return [Change(path, kind) for path, kind in sorted(found.items())]


def _folder(folder: int, path: str, below: Stack, found: dict[str, ChangeKind]) -> None:
    names = os.listdir(folder)
    if path and attributes.is_opaque(folder):
        for name in below.names(path) - set(names):
            found[f"/{path}/{name}"] = ChangeKind.DELETED
    for name in names:
        inner = f"{path}/{name}" if path else name
        try:
            here = os.stat(name, dir_fd=folder, follow_symlinks=False)
            _entry(folder, name, inner, here, below, found)
        except FileNotFoundError:
            continue


def _entry(folder: int, name: str, path: str, here: os.stat_result, below: Stack, found: dict[str, ChangeKind]) -> None:
    if attributes.is_whiteout(here):
        found["/" + path] = ChangeKind.DELETED
        return
    found["/" + path] = ChangeKind.MODIFIED if below.find(path) else ChangeKind.ADDED
    if stat.S_ISDIR(here.st_mode):
        inner = os.open(name, _FOLDER, dir_fd=folder)
        try:
            _folder(inner, path, below, found)
        finally:
            os.close(inner)


def usage(upper: str) -> int:
    """Bytes of all files of a tree, each inode once."""
    seen: set[int] = set()
    total = 0
    for _, folders, names, folder in os.fwalk(upper, follow_symlinks=False):
        del folders
        for name in names:
            try:
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if found.st_nlink > 1:
                if found.st_ino in seen:
                    continue
                seen.add(found.st_ino)
            total += found.st_size
    return total

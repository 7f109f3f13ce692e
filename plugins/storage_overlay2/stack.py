"""The merged view of read-only layers, without a mount: what overlayfs would show."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from .attributes import is_opaque, is_whiteout


class Stack:
    """Trees of read-only layers, the uppermost first. Nobody changes them, so plain paths are safe."""

    def __init__(self, trees: Sequence[str]) -> None:
        self._trees = list(trees)

    def find(self, path: str) -> str | None:
        """Where a relative path really lies, None when it is not there. Symbolic links are not followed."""
        found = self._merged(path)
        return found[0] if found else None

    def names(self, path: str) -> set[str]:
        """Names in a folder; none when it is no folder or not there."""
        hidden: set[str] = set()
        seen: set[str] = set()
        for tree in self._merged(path):
            if not stat.S_ISDIR(os.lstat(tree).st_mode):
                break
            with os.scandir(tree) as entries:
                for entry in entries:
                    if entry.name in hidden or entry.name in seen:
                        continue
                    (hidden if is_whiteout(entry.stat(follow_symlinks=False)) else seen).add(entry.name)
        return seen

    def _merged(self, path: str) -> list[str]:
        trees = self._trees
        for part in path.split("/") if path else ():
            trees = _step(trees, part)
            if not trees:
                break
        return trees


def _step(folders: list[str], name: str) -> list[str]:
    found: list[str] = []
    for folder in folders:
        path = f"{folder}/{name}"
        try:
            what = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if is_whiteout(what):
            break
        is_folder = stat.S_ISDIR(what.st_mode)
        if found and not is_folder:
            break
        found.append(path)
        if not is_folder or is_opaque(path):
            break
    return found

"""Open folders of a tree that is being filled, by path; walked so that no symbolic link leads out of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from plugin_sdk import InvalidParameter

from . import attributes

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KEPT_OPEN = 200
_MAX_LINKS = 40

Made = Callable[[bytes], None]


class Folders:
    """Descriptors of folders below `root`. Nobody else may write to the tree meanwhile.

    Args:
        root: descriptor of the tree's root; stays open.
        made: told the path of each folder that had to be made because the archive did not.
    """

    def __init__(self, root: int, made: Made) -> None:
        self._root = root
        self._made = made
        self._open: dict[bytes, tuple[int, bytes]] = {b"": (root, b"")}
        self._retired: set[int] = set()

    def get(self, path: bytes, *, make: bool = True) -> tuple[int, bytes]:
        """(descriptor, path without symbolic links) of a folder. The descriptor is good until `trim` or `close`.

        Missing ones are made with `make`. A symbolic link on the way is followed within the tree.

        Raises:
            OSError: it is no folder, or (without `make`) missing.
            InvalidParameter: symbolic links lead round in circles.
        """
        return self._open.get(path) or self._walk(path, make, 0)

    def _walk(self, path: bytes, make: bool, links: int) -> tuple[int, bytes]:
        known = path
        while known not in self._open:
            known = known.rpartition(b"/")[0]
        place = self._open[known]
        for name in path[len(known) :].strip(b"/").split(b"/") if len(known) < len(path) else ():
            known = known + b"/" + name if known else name
            place = self._enter(place, name, make, links)
            self._open[known] = place
        return place

    def _enter(self, place: tuple[int, bytes], name: bytes, make: bool, links: int) -> tuple[int, bytes]:
        parent, real = place
        here = real + b"/" + name if real else name
        try:
            return os.open(name, _OPEN, dir_fd=parent), here
        except FileNotFoundError:
            if not make:
                raise
        except NotADirectoryError:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISLNK(found.st_mode):
                if links >= _MAX_LINKS:
                    raise InvalidParameter(f"too many symbolic links at {here.decode(errors='replace')!r}") from None
                return self._walk(_inside(real, os.readlink(name, dir_fd=parent)), make, links + 1)
            if not attributes.is_whiteout(found) or not make:
                raise
            os.unlink(name, dir_fd=parent)
            return self._new(parent, name, here, opaque=True)
        return self._new(parent, name, here, opaque=False)

    def _new(self, parent: int, name: bytes, here: bytes, *, opaque: bool) -> tuple[int, bytes]:
        os.mkdir(name, 0o700, dir_fd=parent)
        descriptor = os.open(name, _OPEN, dir_fd=parent)
        if opaque:
            attributes.make_opaque(descriptor)
        self._made(here)
        return descriptor, here

    def forget(self) -> None:
        """Something other than a file was replaced: what paths mean has changed. Descriptors stay good until `trim`."""
        self._retired |= {descriptor for descriptor, _ in self._open.values()} - {self._root}
        self._open = {b"": (self._root, b"")}

    def trim(self) -> None:
        """Close them all when there are many."""
        if len(self._open) + len(self._retired) > _KEPT_OPEN:
            self.close()

    def close(self) -> None:
        """Close them all but the root."""
        self.forget()
        for descriptor in self._retired:
            os.close(descriptor)
        self._retired = set()


def _inside(folder: bytes, target: bytes) -> bytes:
    """Where a symbolic link leads if the tree's root is "/"."""
    parts = [] if target.startswith(b"/") else folder.split(b"/")
    for part in target.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(part for part in parts if part)

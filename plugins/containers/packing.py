"""Folders to tars, below a root that no link leads out of. Everything here blocks."""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections.abc import Collection
from contextlib import suppress
from typing import Protocol

from plugin_sdk import IdMap
from plugin_sdk.rootfs import open_in_root

CHUNK = 1 << 20
BLOCK = 512
PSEUDO_LIMIT = 16 << 20
"""Bytes taken from files that give content but no size, as those of /proc."""

XATTR = "SCHILY.xattr."
CAPABILITY = "security.capability"
USER = "user."
FOLDER = os.O_PATH | os.O_DIRECTORY
ENTRY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
ZEROS = bytes(CHUNK)
_VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""What opening something gives that was removed, or replaced by a link, since it was listed."""


class Sink(Protocol):
    """Where a tar goes."""

    def write(self, data: bytes) -> object: ...


class Packer:
    """Writes a file, or a folder with all that is in it, as a tar.

    File systems that are mounted inside stay empty folders unless their place is one of `mounts`: the container's own
    volumes belong to what a user copies, /proc and /sys do not.

    Args:
        root: descriptor of the root.
        mounts: paths whose content is taken although it lies on another file system.
        ids: of the user namespace whose IDs the archive shall name.
        exact: tell nanoseconds and the users' extended attributes too. `export` does not: its tars become layers,
            which other engines make with whole seconds and capabilities alone.
    """

    def __init__(
        self, root: int, out: Sink, mounts: Collection[str] = (), ids: IdMap | None = None, *, exact: bool = False
    ) -> None:
        self._root = root
        self._out = out
        self._mounts = frozenset(mounts)
        self._ids = ids
        self._exact = exact
        self._links: dict[tuple[int, int], str] = {}
        self._pending: list[bytes] = []
        self._parent = ("", -1)

    def pack(self, path: str, name: str, *, itself: bool = True) -> None:
        """Write the entry at `path` (not followed) under `name`, the end of the archive, and nothing behind it.

        Args:
            itself: a folder's own entry too, not only what is in it.
        """
        stack = [(path, name, -1, itself)]
        try:
            while stack:
                here, called, device, emit = stack.pop()
                found = self._entry(here, called, emit)
                if found is None or (device not in (-1, found) and here not in self._mounts):
                    continue
                prefix = called if called.endswith("/") or not called else called + "/"
                children = self._children(here)
                base = here.rstrip("/")
                stack += [(f"{base}/{child}", prefix + child, found, True) for child in children]
            self._write(bytes(2 * BLOCK))
            self._flush()
        finally:
            if self._parent[1] >= 0:
                os.close(self._parent[1])

    def _children(self, path: str) -> list[str]:
        try:
            folder = open_in_root(self._root, path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno in _VANISHED:
                return []
            raise
        try:
            return sorted(os.listdir(folder), reverse=True)
        finally:
            os.close(folder)

    def _entry(self, path: str, name: str, emit: bool) -> int | None:
        """Write one entry; gives the device of a folder that may be descended into."""
        try:
            entry = self._open(path)
        except OSError as error:
            if error.errno in _VANISHED:
                return None
            raise
        try:
            facts = os.fstat(entry)
            if emit:
                self._emit(entry, facts, name)
            return facts.st_dev if stat.S_ISDIR(facts.st_mode) else None
        finally:
            os.close(entry)

    def _open(self, path: str) -> int:
        parent, _, name = path.rpartition("/")
        if not name:
            return open_in_root(self._root, "/", FOLDER)
        if self._parent[0] != parent or self._parent[1] < 0:
            if self._parent[1] >= 0:
                os.close(self._parent[1])
                self._parent = ("", -1)
            self._parent = (parent, open_in_root(self._root, parent or "/", FOLDER))
        return os.open(name, ENTRY, dir_fd=self._parent[1])

    def _emit(self, entry: int, facts: os.stat_result, name: str) -> None:
        info = tarfile.TarInfo(name)
        info.mode = stat.S_IMODE(facts.st_mode)
        owner = facts.st_uid, facts.st_gid
        info.uid, info.gid = self._ids.inside(*owner) if self._ids else owner
        info.mtime = facts.st_mtime_ns // 10**9
        if self._exact and (fraction := facts.st_mtime_ns % 10**9):
            info.pax_headers = {"mtime": f"{info.mtime}.{fraction:09}"}
        kind = stat.S_IFMT(facts.st_mode)
        if kind == stat.S_IFDIR:
            info.type = tarfile.DIRTYPE
            if self._exact:
                self._attributes(entry, info)
        elif kind != stat.S_IFLNK and facts.st_nlink > 1 and self._linked(info, facts):
            pass
        elif kind == stat.S_IFREG:
            self._emit_file(entry, facts, info)
            return
        elif kind == stat.S_IFLNK:
            info.type = tarfile.SYMTYPE
            info.linkname = os.readlink("", dir_fd=entry)
        elif kind == stat.S_IFIFO:
            info.type = tarfile.FIFOTYPE
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            info.type = tarfile.CHRTYPE if kind == stat.S_IFCHR else tarfile.BLKTYPE
            info.devmajor, info.devminor = os.major(facts.st_rdev), os.minor(facts.st_rdev)
        else:
            return  # a socket: tar knows none
        self._header(info)

    def _linked(self, info: tarfile.TarInfo, facts: os.stat_result) -> bool:
        key = (facts.st_dev, facts.st_ino)
        first = self._links.setdefault(key, info.name)
        if first == info.name:
            return False
        info.type, info.linkname = tarfile.LNKTYPE, first
        return True

    def _emit_file(self, entry: int, facts: os.stat_result, info: tarfile.TarInfo) -> None:
        self._attributes(entry, info)
        try:
            file = os.open(f"/proc/self/fd/{entry}", _READ)
        except FileNotFoundError:
            return
        try:
            info.size = facts.st_size
            if not facts.st_size:
                content = _content_without_size(file)
                info.size = len(content)
                self._header(info)
                self._write(content)
            else:
                self._header(info)
                self._copy(file, facts)
            self._write(bytes(-info.size % BLOCK))
        finally:
            os.close(file)

    def _attributes(self, entry: int, info: tarfile.TarInfo) -> None:
        path = f"/proc/self/fd/{entry}"
        with suppress(OSError):  # the file system may know none
            for name in os.listxattr(path):
                if name == CAPABILITY or (self._exact and name.startswith(USER)):
                    value = os.getxattr(path, name).decode("utf-8", "surrogateescape")
                    info.pax_headers = {**info.pax_headers, XATTR + name: value}

    def _copy(self, file: int, facts: os.stat_result) -> None:
        """Exactly st_size bytes: zeros for holes, and for what was cut off meanwhile."""
        size = facts.st_size
        position = 0
        sparse = facts.st_blocks * BLOCK < size
        while position < size:
            end = size
            if sparse:
                begin, end = _data_after(file, position, size)
                self._zeros(begin - position)
                position = begin
            while position < end:
                data = os.pread(file, min(CHUNK, end - position), position)
                if not data:
                    self._zeros(size - position)
                    return
                self._write(data)
                position += len(data)

    def _zeros(self, count: int) -> None:
        while count > 0:
            self._write(ZEROS[: min(count, CHUNK)])
            count -= CHUNK

    def _header(self, info: tarfile.TarInfo) -> None:
        self._write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))

    def _write(self, data: bytes) -> None:
        if len(data) >= 1 << 16:
            self._flush()
            self._out.write(data)
            return
        self._pending.append(data)
        if len(self._pending) >= 64:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            data, self._pending = b"".join(self._pending), []
            self._out.write(data)


def _data_after(file: int, position: int, size: int) -> tuple[int, int]:
    """Begin and end of the first piece of data of a sparse file from `position` on."""
    try:
        begin = os.lseek(file, position, os.SEEK_DATA)
        return min(begin, size), min(os.lseek(file, begin, os.SEEK_HOLE), size)
    except OSError as error:
        return (size, size) if error.errno == errno.ENXIO else (position, size)


def _content_without_size(file: int) -> bytes:
    parts: list[bytes] = []
    with suppress(OSError):  # some files of /proc cannot be read; they stay empty
        while sum(map(len, parts)) < PSEUDO_LIMIT and (data := os.read(file, CHUNK)):
            parts.append(data)
    return b"".join(parts)

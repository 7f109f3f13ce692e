"""Tars to folders, below a root that no name and no link leads out of. Everything here blocks."""

from __future__ import annotations

import errno
import os
import re
import stat
import tarfile
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO, cast

from plugin_sdk import IdMap, InvalidParameter
from plugin_sdk.compression import plain
from plugin_sdk.rootfs import make_folders, open_in_root
from plugin_sdk.userns import acting_as

from .packing import CAPABILITY, CHUNK, ENTRY, FOLDER, USER, XATTR, ZEROS
from .rootview import resolve

READ = 64 << 10

_TIME = re.compile(r"(-?)(\d{1,12})(?:\.(\d+))?")


class Unpacker:
    """Unpacks a tar, plain or compressed (gzip, bzip2, xz, zstd), into a folder below a root.

    Links that lie there already are followed within the root, as the container itself would follow them; names that lead out
    of the folder by `..` are refused.

    Args:
        root: descriptor of the root.
        folder: where to unpack, resolved and there.
        keep_kind: refuse to replace a folder by something else and the other way round.
        owner: (uid, gid) for everything, instead of the archive's.
        ids: of the user namespace whose IDs the archive and `owner` name.
    """

    def __init__(
        self,
        root: int,
        folder: str,
        *,
        keep_kind: bool = False,
        owner: tuple[int, int] | None = None,
        ids: IdMap | None = None,
    ) -> None:
        self._root = root
        self._folder = folder.rstrip("/")
        self._keep_kind = keep_kind
        self._owner = owner
        self._ids = ids
        self._parent = ("", -1)
        self._times: list[tuple[str, int]] = []

    def unpack(self, source: BinaryIO) -> None:
        """Read the archive to its end.

        Raises:
            InvalidParameter: not a tar, a name that leads out, or what `keep_kind` forbids.
            OSError: from the file system.
        """
        with acting_as(self._ids):
            self._unpack(source)

    def _unpack(self, source: BinaryIO) -> None:
        counted = _Counted(source)
        try:
            data = cast(BinaryIO, plain(counted))
            with tarfile.open(fileobj=data, mode="r|", bufsize=READ, encoding="utf-8") as archive:
                for member in archive:
                    archive.members = []  # type: ignore[attr-defined] # it would keep them all
                    self._member(archive, member)
            for path, when in reversed(self._times):
                with suppress(OSError):
                    folder = open_in_root(self._root, path, FOLDER | os.O_NOFOLLOW)
                    try:
                        os.utime(f"/proc/self/fd/{folder}", ns=(when, when))
                    finally:
                        os.close(folder)
            while counted.read(CHUNK):
                pass
        except (tarfile.TarError, EOFError) as error:
            if counted.count:
                raise InvalidParameter(f"invalid tar archive: {error}") from None
        finally:
            self._forget_parent()

    def _member(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = _clean(member.name)
        if name.startswith(".."):
            raise InvalidParameter(f'"{member.name}" is outside of "{self._folder or "/"}"')
        if name == ".":
            if member.isdir():
                return
            raise InvalidParameter(f"{member.name!r} in the archive names no file")
        path = f"{self._folder}/{name}"
        parent, entry = self._open_parent(path)
        there = self._lstat(parent, entry)
        if there is not None:
            self._check_kind(path, there, member)
        if there is not None and not (stat.S_ISDIR(there.st_mode) and member.isdir()):
            there = self._clear(parent, entry, there, member)
        if member.isreg():
            self._file(archive, member, parent, entry, there)
        elif member.isdir():
            if there is None:
                os.mkdir(entry, 0o700, dir_fd=parent)
            self._finish(parent, entry, member)
            self._times.append((path, _mtime(member)))
        elif member.issym():
            os.symlink(member.linkname, entry, dir_fd=parent)
            self._own_link(parent, entry, member)
        elif member.islnk():
            self._link(member, parent, entry)
        elif member.isfifo() or member.isdev():
            kind = stat.S_IFIFO if member.isfifo() else stat.S_IFCHR if member.ischr() else stat.S_IFBLK
            os.mknod(entry, kind | 0o600, os.makedev(member.devmajor, member.devminor), dir_fd=parent)
            self._finish(parent, entry, member)
        else:
            raise InvalidParameter(f"unhandled tar header type {member.type!r} of {member.name!r}")

    def _open_parent(self, path: str) -> tuple[int, str]:
        parent, _, entry = path.rpartition("/")
        if self._parent[0] != parent or self._parent[1] < 0:
            self._forget_parent()
            try:
                folder = open_in_root(self._root, parent or "/", FOLDER)
            except FileNotFoundError:
                uid, gid = self._ids.root if self._ids else (0, 0)
                folder = make_folders(self._root, resolve(self._root, parent), uid=uid, gid=gid)
            self._parent = (parent, folder)
        return self._parent[1], entry

    def _forget_parent(self) -> None:
        if self._parent[1] >= 0:
            os.close(self._parent[1])
        self._parent = ("", -1)

    @staticmethod
    def _lstat(parent: int, entry: str) -> os.stat_result | None:
        try:
            return os.stat(entry, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _check_kind(self, path: str, there: os.stat_result, member: tarfile.TarInfo) -> None:
        is_folder = stat.S_ISDIR(there.st_mode)
        if not self._keep_kind or is_folder == member.isdir():
            return
        into = self._folder or "/"
        if is_folder:
            raise InvalidParameter(f'cannot overwrite directory "{path}" with non-directory "{into}"')
        raise InvalidParameter(f'cannot overwrite non-directory "{path}" with directory "{into}"')

    @staticmethod
    def _clear(parent: int, entry: str, there: os.stat_result, member: tarfile.TarInfo) -> os.stat_result | None:
        """Remove what is in the way. A file that something is mounted on stays, to be written over."""
        if stat.S_ISDIR(there.st_mode):
            remove_tree(parent, entry)
            return None
        try:
            os.unlink(entry, dir_fd=parent)
        except OSError as error:
            if error.errno == errno.EBUSY and member.isreg() and stat.S_ISREG(there.st_mode):
                return there
            raise
        return None

    def _file(
        self, archive: tarfile.TarFile, member: tarfile.TarInfo, parent: int, entry: str, there: os.stat_result | None
    ) -> None:
        how = os.O_TRUNC if there is not None else os.O_CREAT | os.O_EXCL
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | how
        file = os.open(entry, flags, 0o600, dir_fd=parent)
        try:
            content = archive.extractfile(member)
            position = 0
            while content is not None and position < member.size:
                data = content.read(min(CHUNK, member.size - position))
                if not data:
                    raise InvalidParameter(f"unexpected EOF in the archive, within {member.name!r}")
                _write_sparsely(file, data, position)
                position += len(data)
            os.ftruncate(file, position)
            self._attributes(file, member)
        finally:
            os.close(file)

    def _finish(self, parent: int, entry: str, member: tarfile.TarInfo) -> None:
        made = os.open(entry, ENTRY, dir_fd=parent)
        try:
            if stat.S_ISLNK(os.fstat(made).st_mode):
                raise InvalidParameter(f"{member.name!r} was replaced by a link while it was unpacked")
            self._attributes(f"/proc/self/fd/{made}", member)
        finally:
            os.close(made)

    def _attributes(self, path: str | int, member: tarfile.TarInfo) -> None:
        """Owner first: changing it clears the set-user-ID bits and capabilities."""
        os.chown(path, *self._owner_of(member))
        os.chmod(path, member.mode & 0o7777)
        for key, value in member.pax_headers.items():
            name = key.removeprefix(XATTR)
            if key.startswith(XATTR) and (name == CAPABILITY or name.startswith(USER)):
                with suppress(OSError):  # the file system may know none
                    os.setxattr(path, name, value.encode("utf-8", "surrogateescape"))
        os.utime(path, ns=(_mtime(member), _mtime(member)))

    def _own_link(self, parent: int, entry: str, member: tarfile.TarInfo) -> None:
        os.chown(entry, *self._owner_of(member), dir_fd=parent, follow_symlinks=False)
        os.utime(entry, ns=(_mtime(member), _mtime(member)), dir_fd=parent, follow_symlinks=False)

    def _owner_of(self, member: tarfile.TarInfo) -> tuple[int, int]:
        owner = self._owner or (member.uid, member.gid)
        try:
            return self._ids.outside(*owner) if self._ids else owner
        except ValueError as error:
            raise InvalidParameter(f"{member.name!r} in the archive: {error}") from None

    def _link(self, member: tarfile.TarInfo, parent: int, entry: str) -> None:
        target = _clean(member.linkname)
        if target.startswith(".."):
            raise InvalidParameter(f'"{member.linkname}" is outside of "{self._folder or "/"}"')
        folder, _, name = f"{self._folder}/{target}".rpartition("/")
        source = open_in_root(self._root, folder or "/", FOLDER)
        try:
            os.link(name, entry, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source)


class _Counted:
    """Counts what was read: an empty body is no broken archive."""

    def __init__(self, source: BinaryIO) -> None:
        self._read: Callable[[int], bytes] = source.read
        self.count = 0

    def read(self, size: int = CHUNK) -> bytes:
        data = self._read(size)
        self.count += len(data)
        return data


def remove_tree(parent: int, entry: str) -> None:
    """`rm -r` of a folder, never following a link. Raises OSError."""
    folder = os.open(entry, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        for child in os.listdir(folder):
            facts = os.stat(child, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISDIR(facts.st_mode):
                remove_tree(folder, child)
            else:
                os.unlink(child, dir_fd=folder)
    finally:
        os.close(folder)
    os.rmdir(entry, dir_fd=parent)


def _clean(name: str) -> str:
    """Relative to the folder, without "." and double slashes; begins with ".." if it leads out."""
    return os.path.normpath(name.lstrip("/") or ".")


def _mtime(member: tarfile.TarInfo) -> int:
    """Nanoseconds; the header's own text, since tarfile's float has not enough digits."""
    if found := _TIME.fullmatch(member.pax_headers.get("mtime", "")):
        whole, fraction = int(found[2]) * 10**9, int((found[3] or "").ljust(9, "0")[:9])
        return -(whole + fraction) if found[1] else whole + fraction
    return int(member.mtime * 10**9)


def _write_sparsely(file: int, data: bytes, position: int) -> None:
    """Write, leaving a hole where a whole chunk is zeros."""
    if len(data) == CHUNK and data == ZEROS:
        return
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, position)
        position += written
        view = view[written:]

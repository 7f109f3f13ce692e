"""Folders to tars and back, below a root that no name and no link leads out of. Everything here blocks."""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import BinaryIO, Protocol, cast

from plugin_sdk import InvalidParameter
from plugin_sdk.rootfs import make_folders, open_in_root

from .rootview import resolve

CHUNK = 1 << 20
BLOCK = 512
PSEUDO_LIMIT = 16 << 20
"""Bytes taken from files that give content but no size, as those of /proc."""

_XATTR = "SCHILY.xattr."
_CAPABILITY = "security.capability"
_FOLDER = os.O_PATH | os.O_DIRECTORY
_ENTRY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_ZEROS = bytes(CHUNK)


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
    """

    def __init__(self, root: int, out: Sink, mounts: Collection[str] = ()) -> None:
        self._root = root
        self._out = out
        self._mounts = frozenset(mounts)
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
                folder = open_in_root(self._root, here, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    children = sorted(os.listdir(folder), reverse=True)
                finally:
                    os.close(folder)
                base = here.rstrip("/")
                stack += [(f"{base}/{child}", prefix + child, found, True) for child in children]
            self._write(bytes(2 * BLOCK))
            self._flush()
        finally:
            if self._parent[1] >= 0:
                os.close(self._parent[1])

    def _entry(self, path: str, name: str, emit: bool) -> int | None:
        """Write one entry; gives the device of a folder that may be descended into."""
        try:
            entry = self._open(path)
        except FileNotFoundError:
            return None  # removed meanwhile
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
            return open_in_root(self._root, "/", _FOLDER)
        if self._parent[0] != parent or self._parent[1] < 0:
            if self._parent[1] >= 0:
                os.close(self._parent[1])
                self._parent = ("", -1)
            self._parent = (parent, open_in_root(self._root, parent or "/", _FOLDER))
        return os.open(name, _ENTRY, dir_fd=self._parent[1])

    def _emit(self, entry: int, facts: os.stat_result, name: str) -> None:
        info = tarfile.TarInfo(name)
        info.mode = stat.S_IMODE(facts.st_mode)
        info.uid, info.gid = facts.st_uid, facts.st_gid
        info.mtime = int(facts.st_mtime)
        kind = stat.S_IFMT(facts.st_mode)
        if kind == stat.S_IFDIR:
            info.type = tarfile.DIRTYPE
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
        with suppress(OSError):
            value = os.getxattr(f"/proc/self/fd/{entry}", _CAPABILITY)
            info.pax_headers = {_XATTR + _CAPABILITY: value.decode("utf-8", "surrogateescape")}
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
            self._write(_ZEROS[: min(count, CHUNK)])
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


class Unpacker:
    """Unpacks a tar, plain or compressed (gzip, bzip2, xz), into a folder below a root.

    Links that lie there already are followed within the root, as the container itself would follow them; names that lead out
    of the folder by `..` are refused.

    Args:
        root: descriptor of the root.
        folder: where to unpack, resolved and there.
        keep_kind: refuse to replace a folder by something else and the other way round.
        owner: (uid, gid) for everything, instead of the archive's.
    """

    def __init__(
        self, root: int, folder: str, *, keep_kind: bool = False, owner: tuple[int, int] | None = None
    ) -> None:
        self._root = root
        self._folder = folder.rstrip("/")
        self._keep_kind = keep_kind
        self._owner = owner
        self._parent = ("", -1)
        self._times: list[tuple[str, int]] = []

    def unpack(self, source: BinaryIO) -> None:
        """Read the archive to its end.

        Raises:
            InvalidParameter: not a tar, a name that leads out, or what `keep_kind` forbids.
            OSError: from the file system.
        """
        counted = _Counted(source)
        try:
            with tarfile.open(fileobj=cast(BinaryIO, counted), mode="r|*", bufsize=CHUNK, encoding="utf-8") as archive:
                for member in archive:
                    archive.members = []  # type: ignore[attr-defined] # it would keep them all
                    self._member(archive, member)
            for path, when in reversed(self._times):
                with suppress(OSError):
                    folder = open_in_root(self._root, path, _FOLDER | os.O_NOFOLLOW)
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
                folder = open_in_root(self._root, parent or "/", _FOLDER)
            except FileNotFoundError:
                folder = make_folders(self._root, resolve(self._root, parent))
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
            while content is not None and (data := content.read(CHUNK)):
                _write_sparsely(file, data, position)
                position += len(data)
            if position != member.size:
                raise InvalidParameter(f"unexpected EOF in the archive, within {member.name!r}")
            os.ftruncate(file, position)
            self._attributes(f"/proc/self/fd/{file}", member)
        finally:
            os.close(file)

    def _finish(self, parent: int, entry: str, member: tarfile.TarInfo) -> None:
        made = os.open(entry, _ENTRY, dir_fd=parent)
        try:
            if stat.S_ISLNK(os.fstat(made).st_mode):
                raise InvalidParameter(f"{member.name!r} was replaced by a link while it was unpacked")
            self._attributes(f"/proc/self/fd/{made}", member)
        finally:
            os.close(made)

    def _attributes(self, path: str, member: tarfile.TarInfo) -> None:
        """Owner first: changing it clears the set-user-ID bits and capabilities."""
        os.chown(path, *self._owner_of(member))
        os.chmod(path, member.mode & 0o7777)
        for key, value in member.pax_headers.items():
            name = key.removeprefix(_XATTR)
            if key.startswith(_XATTR) and (name == _CAPABILITY or name.startswith("user.")):
                with suppress(OSError):  # the file system may know none
                    os.setxattr(path, name, value.encode("utf-8", "surrogateescape"))
        os.utime(path, ns=(_mtime(member), _mtime(member)))

    def _own_link(self, parent: int, entry: str, member: tarfile.TarInfo) -> None:
        os.chown(entry, *self._owner_of(member), dir_fd=parent, follow_symlinks=False)
        os.utime(entry, ns=(_mtime(member), _mtime(member)), dir_fd=parent, follow_symlinks=False)

    def _owner_of(self, member: tarfile.TarInfo) -> tuple[int, int]:
        return self._owner or (member.uid, member.gid)

    def _link(self, member: tarfile.TarInfo, parent: int, entry: str) -> None:
        target = _clean(member.linkname)
        if target.startswith(".."):
            raise InvalidParameter(f'"{member.linkname}" is outside of "{self._folder or "/"}"')
        folder, _, name = f"{self._folder}/{target}".rpartition("/")
        source = open_in_root(self._root, folder or "/", _FOLDER)
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
    return int(member.mtime * 10**9)


def _write_sparsely(file: int, data: bytes, position: int) -> None:
    """Write, leaving a hole where a whole chunk is zeros."""
    if len(data) == CHUNK and data == _ZEROS:
        return
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, position)
        position += written
        view = view[written:]

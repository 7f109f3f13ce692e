"""Unpacks a layer's tar into a folder: safely, with OCI whiteouts turned into overlayfs's.

Source for whiteouts: OCI image spec, "Representing Changes"; kernel documentation of overlayfs.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field

from plugin_sdk import InvalidParameter

from . import attributes, tarread
from .attributes import Attributes
from .folders import Folders
from .journal import JournalWriter
from .source import Source
from .stack import Stack
from .tarread import Member, TarReader, printable

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
_AUFS = b".wh..wh."

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_WINDOW = 1 << 16
_ZEROS = bytes(_WINDOW)
_MAX_ID = 0xFFFFFFFE
_OURS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EROFS, errno.EPERM)
_SPECIAL = {tarread.CHAR: stat.S_IFCHR, tarread.BLOCK_DEVICE: stat.S_IFBLK, tarread.FIFO: stat.S_IFIFO}


@dataclass(slots=True)
class Extracted:
    """What was unpacked.

    Attributes:
        size: bytes of all regular files.
        kept: (number of file records before, path, name): trees that later members of the same archive replaced, moved
            aside since the archive cannot be rebuilt without them.
    """

    size: int = 0
    kept: list[tuple[int, bytes, str]] = field(default_factory=list)


class Extractor:
    """Unpacks one archive.

    Args:
        root: descriptor of an empty folder.
        aside: path of a folder, not yet made, for what gets replaced.
        below: the layers underneath; their folders lend their attributes to those that the archive needs and lacks.
    """

    def __init__(self, root: int, aside: str, below: Stack, source: Source, journal: JournalWriter) -> None:
        self._root = root
        self._aside = aside
        self._below = below
        self._source = source
        self._journal = journal
        self._reader = TarReader(source, journal.raw)
        self._folders = Folders(root, self._lend)
        self._attributes: dict[bytes, Attributes] = {}
        self._opaque_root = False
        self._result = Extracted()

    def run(self) -> Extracted:
        """Unpack all of it.

        Raises:
            InvalidParameter: it cannot or must not be unpacked; names the member.
            OSError: this machine is at fault (no space, ...).
        """
        name = b""
        try:
            while (member := self._reader.next()) is not None:
                name = member.name
                self._one(member)
            self._finish()
        except OSError as error:
            if error.errno in _OURS:
                raise
            raise InvalidParameter(f"cannot extract {printable(name)}: {error.strerror or error}") from error
        except (ValueError, OverflowError) as error:
            raise InvalidParameter(f"cannot extract {printable(name)}: {error}") from error
        finally:
            self._folders.close()
        return self._result

    def _one(self, member: Member) -> None:
        path = clean(member.name)
        parent, _, name = path.rpartition(b"/")
        if not name:
            if member.type != tarread.DIRECTORY:
                raise InvalidParameter(f"{printable(member.name)}: the root of a layer must be a directory")
            self._attributes[b""] = _attributes(member)
            return
        if not (0 <= member.uid <= _MAX_ID and 0 <= member.gid <= _MAX_ID):
            raise InvalidParameter(f"{printable(member.name)}: there is no owner {member.uid}:{member.gid}")
        self._folders.trim()
        if name.startswith(WHITEOUT):
            self._whiteout(parent, name)
            self._reader.skip(member)
            return
        folder, where = self._folders.get(parent)
        here = where + b"/" + name if where else name
        kind = member.type
        if kind in tarread.REGULAR:
            self._file(folder, name, here, member)
        elif kind == tarread.DIRECTORY:
            self._directory(folder, name, here, member)
        elif kind == tarread.HARD_LINK:
            self._hard_link(folder, name, here, member)
        else:
            self._special(folder, name, here, member)

    def _file(self, folder: int, name: bytes, here: bytes, member: Member) -> None:
        try:
            descriptor = os.open(name, _NEW, 0o600, dir_fd=folder)
        except FileExistsError:
            self._displace(folder, name, here)
            descriptor = os.open(name, _NEW, 0o600, dir_fd=folder)
        try:
            if member.holes is not None:
                self._sparse(descriptor, member)
                self._journal.file(here, member.holes)
            elif member.size:
                self._content(descriptor, member.size)
                self._journal.file(here, ((0, member.size),))
            if member.uid or member.gid:
                os.fchown(descriptor, member.uid, member.gid)
            os.fchmod(descriptor, member.mode & 0o7777)
            if member.xattrs:
                attributes.set_xattrs(descriptor, member.xattrs)
            os.utime(descriptor, ns=(member.mtime, member.mtime))
        finally:
            os.close(descriptor)
        self._reader.padding(member)
        self._result.size += member.size

    def _content(self, descriptor: int, size: int) -> None:
        if size < _WINDOW:
            for piece in self._source.pieces(size):
                _write(descriptor, piece)
            return
        skipped = False
        for piece in self._source.pieces(size):
            skipped = _write_around_zeros(descriptor, piece) or skipped
        if skipped:
            os.ftruncate(descriptor, size)

    def _sparse(self, descriptor: int, member: Member) -> None:
        for offset, length in member.holes or ():
            os.lseek(descriptor, offset, os.SEEK_SET)
            for piece in self._source.pieces(length):
                _write(descriptor, piece)
        os.ftruncate(descriptor, member.size)

    def _directory(self, folder: int, name: bytes, here: bytes, member: Member) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=folder)
        except FileExistsError:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                self._displace(folder, name, here)
                os.mkdir(name, 0o700, dir_fd=folder)
                if attributes.is_whiteout(found):  # removed and made anew: nothing of the one below shows through
                    attributes.make_opaque(self._folders.get(here)[0])
        self._attributes[here] = _attributes(member)

    def _hard_link(self, folder: int, name: bytes, here: bytes, member: Member) -> None:
        parent, _, target = clean(member.link).rpartition(b"/")
        try:
            source, where = self._folders.get(parent, make=False)
            if (where + b"/" + target if where else target) == here:
                return
            try:
                os.link(target, name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
            except FileExistsError:
                self._displace(folder, name, here)
                os.link(target, name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            raise InvalidParameter(
                f"hard link {printable(member.name)} to {printable(member.link)}, which is no file of this layer"
            ) from None

    def _special(self, folder: int, name: bytes, here: bytes, member: Member) -> None:
        try:
            _make(folder, name, member)
        except FileExistsError:
            self._displace(folder, name, here)
            _make(folder, name, member)
        link = member.type == tarread.SYMLINK
        if member.uid or member.gid:
            os.chown(name, member.uid, member.gid, dir_fd=folder, follow_symlinks=False)
        if not link:
            os.chmod(name, member.mode & 0o7777, dir_fd=folder)
        if member.xattrs:
            allowed = {key: value for key, value in member.xattrs.items() if not key.startswith(b"user.")}
            path = os.fsdecode(os.fsencode(f"/proc/self/fd/{folder}/") + name)
            attributes.set_xattrs(path, allowed, follow=False)
        os.utime(name, ns=(member.mtime, member.mtime), dir_fd=folder, follow_symlinks=False)

    def _whiteout(self, parent: bytes, name: bytes) -> None:
        folder, where = self._folders.get(parent)
        if name == OPAQUE:
            if where:
                attributes.make_opaque(folder)
            else:
                self._opaque_root = True
            return
        if name.startswith(_AUFS):  # aufs's own bookkeeping, of no meaning here
            return
        hidden = name[len(WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise InvalidParameter(f"invalid whiteout {printable(name)}")
        self._hide(folder, where + b"/" + hidden if where else hidden)

    def _hide(self, folder: int, here: bytes) -> None:
        """Hide what lies below `here`, but nothing of this layer itself."""
        name = here.rpartition(b"/")[2]
        try:
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=folder)
        except FileExistsError:
            if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                attributes.make_opaque(self._folders.get(here)[0])

    def _displace(self, folder: int, name: bytes, here: bytes) -> None:
        """Make room for a member that replaces an earlier one."""
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if attributes.is_whiteout(found):
            os.unlink(name, dir_fd=folder)
            return
        with suppress(FileExistsError):
            os.mkdir(self._aside, 0o700)
        label = str(len(self._result.kept))
        os.rename(name, f"{self._aside}/{label}", src_dir_fd=folder)
        self._result.kept.append((self._journal.files, here, label))
        if not stat.S_ISREG(found.st_mode):
            self._folders.forget()
            inner = here + b"/"
            for path in [path for path in self._attributes if path == here or path.startswith(inner)]:
                del self._attributes[path]

    def _lend(self, here: bytes) -> None:
        """Attributes for a folder that no member describes: those of the one below, if any."""
        if here not in self._attributes:
            below = self._below.find(os.fsdecode(here))
            found = attributes.of(below) if below and stat.S_ISDIR(os.lstat(below).st_mode) else None
            self._attributes[here] = found or Attributes(0o755, 0, 0, 0)

    def _finish(self) -> None:
        if self._opaque_root:
            for name in self._below.names(""):
                self._hide(self._root, os.fsencode(name))
        self._lend(b"")
        for path, wanted in self._attributes.items():
            self._folders.trim()
            attributes.set_on(self._folders.get(path)[0], wanted)


def clean(name: bytes) -> bytes:
    """A member's name as a path below the root: no leading slash, no ".", no "..", "" for the root itself.

    Raises InvalidParameter when it leads out.
    """
    if name.startswith(b"./"):
        name = name[2:]
    if name.endswith(b"/"):
        name = name[:-1]
    if name and not name.startswith((b"/", b".")) and b"//" not in name and b"/." not in name:
        return name
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise InvalidParameter(f"unsafe path {printable(name)}: it leads out of the layer")
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def _attributes(member: Member) -> Attributes:
    return Attributes(member.mode & 0o7777, member.uid, member.gid, member.mtime, member.xattrs)


def _make(folder: int, name: bytes, member: Member) -> None:
    if member.type == tarread.SYMLINK:
        os.symlink(member.link, name, dir_fd=folder)
    else:
        os.mknod(name, _SPECIAL[member.type] | 0o600, os.makedev(member.major, member.minor), dir_fd=folder)


def _write(descriptor: int, piece: memoryview) -> None:
    while piece:
        piece = piece[os.write(descriptor, piece) :]


def _write_around_zeros(descriptor: int, piece: memoryview) -> bool:
    """Write, leaving holes where there are long runs of zeros; tells whether there were any."""
    skipped = False
    start = 0
    for at in range(0, len(piece), _WINDOW):
        window = piece[at : at + _WINDOW]
        if window[0] or len(window) < _WINDOW or window != _ZEROS:
            continue
        _write(descriptor, piece[start:at])
        os.lseek(descriptor, _WINDOW, os.SEEK_CUR)
        start = at + _WINDOW
        skipped = True
    _write(descriptor, piece[start:])
    return skipped

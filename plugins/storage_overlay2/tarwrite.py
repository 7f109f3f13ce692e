"""Writes the tar of a tree: pax where ustar does not suffice, overlayfs's whiteouts turned into OCI's.

The tree may be a running container's: folders are walked by descriptor, no symbolic link is followed, and a file that
grows or shrinks meanwhile is cut or filled up with zeros.
"""

from __future__ import annotations

import os
import stat
import struct

from . import attributes, tarread
from .extract import OPAQUE, WHITEOUT
from .journal import Gathered, Writer

_HEADER = struct.Struct("100s8s8s8s12s12s8s1s100s6s2s32s32s8s8s155s12x")
_OCTAL7 = 0o7777777
_OCTAL11 = 0o77777777777
_END = bytes(2 * tarread.BLOCK)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAX_DEPTH = 400


def header(
    name: bytes,
    kind: bytes,
    mode: int,
    *,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime: int = 0,
    link: bytes = b"",
    device: int = 0,
    xattrs: dict[bytes, bytes] | None = None,
) -> bytes:
    """A member's header blocks, with a pax header before it if need be. Times in nanoseconds."""
    pax: list[tuple[bytes, bytes]] = []
    short, prefix = _split(name)
    if short is None:
        pax.append((b"path", name))
        short, prefix = name[:100], b""
    if len(link) > 100:
        pax.append((b"linkpath", link))
    seconds, nanos = divmod(mtime, 10**9)
    if nanos or not 0 <= seconds <= _OCTAL11:
        pax.append((b"mtime", _decimal(mtime)))
    numbers = [(b"uid", uid, _OCTAL7), (b"gid", gid, _OCTAL7), (b"size", size, _OCTAL11)]
    pax += [(key, str(value).encode()) for key, value, limit in numbers if value > limit]
    pax += [(b"SCHILY.xattr." + key, value) for key, value in sorted((xattrs or {}).items())]
    block = _block(
        short, kind, mode, uid if uid <= _OCTAL7 else 0, gid if gid <= _OCTAL7 else 0, size if size <= _OCTAL11 else 0,
        seconds if 0 <= seconds <= _OCTAL11 else 0, link[:100], device, prefix,
    )  # fmt: skip
    if not pax:
        return block
    data = b"".join(_record(key, value) for key, value in pax)
    extended = _block(b"PaxHeaders/" + short[-80:], b"x", 0o644, 0, 0, len(data), 0, b"", 0, b"")
    return extended + data + bytes(-len(data) % tarread.BLOCK) + block


def _split(name: bytes) -> tuple[bytes | None, bytes]:
    if len(name) <= 100:
        return name, b""
    at = name.rfind(b"/", 0, 156)
    if len(name) <= 256 and 0 < at < len(name) - 1 and len(name) - at - 1 <= 100:
        return name[at + 1 :], name[:at]
    return None, b""


def _block(
    name: bytes,
    kind: bytes,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    seconds: int,
    link: bytes,
    device: int,
    prefix: bytes,
) -> bytes:
    def octal(value: int, width: int) -> bytes:
        return b"%0*o\0" % (width - 1, value)

    numbers = octal(mode, 8), octal(uid, 8), octal(gid, 8), octal(size, 12), octal(seconds, 12)
    devices = octal(os.major(device), 8), octal(os.minor(device), 8)
    fields = [name, *numbers, b" " * 8, kind, link, b"ustar\0", b"00", b"", b"", *devices, prefix]
    fields[6] = b"%06o\0 " % sum(_HEADER.pack(*fields))
    return _HEADER.pack(*fields)


def _decimal(nanoseconds: int) -> bytes:
    sign = "-" if nanoseconds < 0 else ""
    seconds, nanos = divmod(abs(nanoseconds), 10**9)
    return f"{sign}{seconds}.{nanos:09d}".rstrip("0").rstrip(".").encode()


def _record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body)
    while length != len(body) + len(str(length)):
        length = len(body) + len(str(length))
    return str(length).encode() + body


class TreeWriter:
    """Writes one upper tree."""

    def __init__(self, out: Writer) -> None:
        self._out = Gathered(out)
        self._links: dict[tuple[int, int], bytes] = {}

    def write(self, tree: str) -> None:
        """The whole tree, its root left out, as a tar."""
        root = os.open(tree, _FOLDER)
        try:
            self._folder(root, b"")
        finally:
            os.close(root)
        self._out.write(_END)
        self._out.flush()

    def _folder(self, folder: int, prefix: bytes) -> None:
        if prefix.count(b"/") > _MAX_DEPTH:
            raise OSError(36, f"folders are nested more than {_MAX_DEPTH} deep", os.fsdecode(prefix))
        for name in sorted(os.fsencode(name) for name in os.listdir(folder)):
            try:
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode):
                    self._subfolder(folder, name, prefix)
                else:
                    self._entry(folder, name, prefix, found)
            except FileNotFoundError:
                continue  # removed meanwhile

    def _subfolder(self, folder: int, name: bytes, prefix: bytes) -> None:
        inner = os.open(name, _FOLDER, dir_fd=folder)
        try:
            found = os.fstat(inner)
            path = prefix + name + b"/"
            self._member(path, tarread.DIRECTORY, found, xattrs=attributes.xattrs(inner))
            if attributes.is_opaque(inner):
                self._out.write(header(path + OPAQUE, b"0", 0o600, mtime=found.st_mtime_ns // 10**9 * 10**9))
            self._folder(inner, path)
        finally:
            os.close(inner)

    def _entry(self, folder: int, name: bytes, prefix: bytes, found: os.stat_result) -> None:
        path = prefix + name
        if attributes.is_whiteout(found):
            self._out.write(header(prefix + WHITEOUT + name, b"0", 0o600, mtime=found.st_mtime_ns // 10**9 * 10**9))
            return
        if found.st_nlink > 1:
            first = self._links.setdefault((found.st_dev, found.st_ino), path)
            if first != path:
                self._member(path, tarread.HARD_LINK, found, link=first)
                return
        if stat.S_ISREG(found.st_mode):
            self._file(folder, name, path)
        elif stat.S_ISLNK(found.st_mode):
            self._member(path, tarread.SYMLINK, found, link=os.readlink(name, dir_fd=folder))
        elif stat.S_ISCHR(found.st_mode):
            self._member(path, tarread.CHAR, found, device=found.st_rdev)
        elif stat.S_ISBLK(found.st_mode):
            self._member(path, tarread.BLOCK_DEVICE, found, device=found.st_rdev)
        elif stat.S_ISFIFO(found.st_mode):
            self._member(path, tarread.FIFO, found)

    def _file(self, folder: int, name: bytes, path: bytes) -> None:
        descriptor = os.open(name, _FILE, dir_fd=folder)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                return
            self._member(path, b"0", found, size=found.st_size, xattrs=attributes.xattrs(descriptor))
            left = found.st_size
            while left:
                data = os.read(descriptor, min(left, 1 << 20)) or bytes(min(left, 1 << 20))
                self._out.write(data)
                left -= len(data)
            self._out.write(bytes(-found.st_size % tarread.BLOCK))
        finally:
            os.close(descriptor)

    def _member(
        self,
        path: bytes,
        kind: bytes,
        found: os.stat_result,
        *,
        size: int = 0,
        link: bytes = b"",
        device: int = 0,
        xattrs: dict[bytes, bytes] | None = None,
    ) -> None:
        self._out.write(
            header(
                path, kind, stat.S_IMODE(found.st_mode), uid=found.st_uid, gid=found.st_gid, size=size,
                mtime=found.st_mtime_ns, link=link, device=device, xattrs=xattrs,
            )
        )  # fmt: skip

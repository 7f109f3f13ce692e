"""Paths inside a container's root file system, opened as the container would see them.

Whatever lies in a root file system is hostile: a symbolic link `/data -> /etc` means the container's own `/etc`, never
the host's. Nothing here joins paths as text; the kernel resolves them below the root (`openat2` with RESOLVE_IN_ROOT,
Linux 5.6 and later), so that no race with a running container can lead outside.

All functions block: call them in a worker thread when the file system may be slow. Descriptors that they give belong to
the caller. `path` may be absolute or relative; both start at the root. `root` is a path or an open descriptor.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kernel.errors import NotSupported

Root = Path | str | int

_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10
_RETRIES = 64
_CHUNK = 1 << 20
_MAX_DEPTH = 2048

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


@contextmanager
def root_descriptor(root: Root) -> Iterator[int]:
    """The root as an open descriptor for the time of the block."""
    if isinstance(root, int):
        yield root
        return
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_in_root(root: Root, path: str, flags: int = os.O_PATH, mode: int = 0) -> int:
    """Open a path as a process whose root directory is `root` would; gives a descriptor.

    Args:
        flags: of open(2). O_PATH is enough for stat and for use as a folder; add O_NOFOLLOW to get a final symbolic link
            itself (with O_PATH) or ELOOP (without). O_CLOEXEC is always added.
        mode: permissions of what O_CREAT makes; 0 otherwise.

    Raises:
        OSError: as open(2), for example FileNotFoundError; ELOOP for links that go round, or lead into /proc's magic.
        NotSupported: the kernel lacks openat2.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    name = os.fsencode(path or ".")
    if b"\0" in name:
        raise ValueError("embedded null byte in a path")
    with root_descriptor(root) as folder:
        for _ in range(_RETRIES):
            found = _libc.syscall(
                ctypes.c_long(_SYS_OPENAT2), folder, ctypes.c_char_p(name), ctypes.byref(how), ctypes.sizeof(how)
            )
            if found >= 0:
                return int(found)
            number = ctypes.get_errno()
            if number not in (errno.EAGAIN, errno.EINTR):
                break
    if number == errno.ENOSYS:
        raise NotSupported("this kernel lacks the openat2 system call: Linux 5.6 or later is needed")
    raise OSError(number, os.strerror(number), path)


def exists_in_root(root: Root, path: str, *, follow: bool = True) -> bool:
    """Something is there; a link that dangles is nothing, unless `follow` is False."""
    try:
        stat_in_root(root, path, follow=follow)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def stat_in_root(root: Root, path: str, *, follow: bool = True) -> os.stat_result:
    """stat(2), or lstat(2) without `follow`. Raises OSError."""
    descriptor = open_in_root(root, path, os.O_PATH | (0 if follow else os.O_NOFOLLOW))
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def resolve_in_root(root: Root, path: str, *, follow: bool = True) -> str:
    """The path without symbolic links, as the container sees it: absolute, "/" for the root. Raises OSError."""
    with root_descriptor(root) as folder:
        base = os.readlink(f"/proc/self/fd/{folder}")
        descriptor = open_in_root(folder, path, os.O_PATH | (0 if follow else os.O_NOFOLLOW))
        try:
            real = os.readlink(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
    return "/" + real.removeprefix(base.rstrip("/")).lstrip("/")


def open_parent(root: Root, path: str) -> tuple[int, str]:
    """The folder that holds the last component, as an O_PATH descriptor, and that component's name ("." for the root).

    The component itself is neither followed nor looked at: use the pair with `dir_fd=` and `follow_symlinks=False`.
    A last component ".." is refused with ValueError.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts:
        return open_in_root(root, "/", os.O_PATH | os.O_DIRECTORY), "."
    if parts[-1] == "..":
        raise ValueError(f"a path that ends with '..' names no entry: {path}")
    return open_in_root(root, "/".join(parts[:-1]) or "/", os.O_PATH | os.O_DIRECTORY), parts[-1]


def make_folders(root: Root, path: str, *, mode: int = 0o755, uid: int = 0, gid: int = 0) -> int:
    """`mkdir -p` inside the root; gives an O_PATH descriptor of the folder. New folders get mode and owner.

    Links on the way are followed within the root; one that dangles, or a file in the way, raises OSError.
    """
    with root_descriptor(root) as folder:
        current = open_in_root(folder, "/", os.O_PATH | os.O_DIRECTORY)
        done = ""
        for part in path.split("/"):
            if part in ("", "."):
                continue
            done += "/" + part
            try:
                following = open_in_root(folder, done, os.O_PATH | os.O_DIRECTORY)
            except FileNotFoundError:
                try:
                    following = _make_folder(current, part, mode, uid, gid)
                except BaseException:
                    os.close(current)
                    raise
            except BaseException:
                os.close(current)
                raise
            os.close(current)
            current = following
        return current


def _make_folder(parent: int, name: str, mode: int, uid: int, gid: int) -> int:
    try:
        os.mkdir(name, mode, dir_fd=parent)
        fresh = True
    except FileExistsError:
        fresh = False
    made = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    if fresh:
        path = f"/proc/self/fd/{made}"
        os.chown(path, uid, gid)
        os.chmod(path, mode)
    return made


def copy_attributes(source: int, target: int) -> None:
    """Owner, extended attributes, mode and times of one open file or folder (O_PATH will do) to another."""
    facts = os.fstat(source)
    theirs, ours = f"/proc/self/fd/{source}", f"/proc/self/fd/{target}"
    os.chown(ours, facts.st_uid, facts.st_gid)
    _copy_xattrs(theirs, ours, follow=True)
    os.chmod(ours, stat.S_IMODE(facts.st_mode))
    os.utime(ours, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def copy_tree(source: int, target: int) -> None:
    """Copy what a folder holds into another, empty one, and its own attributes last; both are open folders.

    Keeps owners, modes, times, extended attributes, hard links within the tree, symbolic links (never followed), FIFOs,
    device nodes and holes. Sockets are left out. Raises OSError.
    """
    _copy_folder(source, target, {}, 0)


def _copy_folder(source: int, target: int, links: dict[tuple[int, int], tuple[int, str]], depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise OSError(errno.ELOOP, "folders are nested too deeply")
    with _opened(source) as readable:
        names = os.listdir(readable)
    for name in names:
        entry = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
        try:
            _copy_entry(entry, target, name, links, depth)
        finally:
            os.close(entry)
    copy_attributes(source, target)
    if depth == 0:
        for folder, _ in links.values():
            os.close(folder)


@contextmanager
def _opened(folder: int) -> Iterator[int]:
    descriptor = os.open(f"/proc/self/fd/{folder}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _copy_entry(entry: int, target: int, name: str, links: dict[tuple[int, int], tuple[int, str]], depth: int) -> None:
    facts = os.fstat(entry)
    kind = stat.S_IFMT(facts.st_mode)
    if kind == stat.S_IFDIR:
        os.mkdir(name, 0o700, dir_fd=target)
        made = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=target)
        try:
            _copy_folder(entry, made, links, depth + 1)
        finally:
            os.close(made)
        return
    key = (facts.st_dev, facts.st_ino)
    if facts.st_nlink > 1 and key in links:
        folder, other = links[key]
        os.link(other, name, src_dir_fd=folder, dst_dir_fd=target, follow_symlinks=False)
        return
    if kind == stat.S_IFREG:
        _copy_file(entry, target, name)
    elif kind == stat.S_IFLNK:
        os.symlink(os.readlink("", dir_fd=entry), name, dir_fd=target)
        os.chown(name, facts.st_uid, facts.st_gid, dir_fd=target, follow_symlinks=False)
        os.utime(name, ns=(facts.st_atime_ns, facts.st_mtime_ns), dir_fd=target, follow_symlinks=False)
    elif kind in (stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK):
        os.mknod(name, facts.st_mode, facts.st_rdev, dir_fd=target)
        made = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=target)
        try:
            copy_attributes(entry, made)
        finally:
            os.close(made)
    else:
        return
    if facts.st_nlink > 1:
        links[key] = (os.dup(target), name)


def _copy_file(entry: int, target: int, name: str) -> None:
    source = os.open(f"/proc/self/fd/{entry}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        made = os.open(name, flags, 0o600, dir_fd=target)
        try:
            _copy_data(source, made)
            copy_attributes(entry, made)
        finally:
            os.close(made)
    finally:
        os.close(source)


def _copy_data(source: int, target: int) -> None:
    size = os.fstat(source).st_size
    position = 0
    while position < size:
        try:
            begin = os.lseek(source, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            begin = position
        try:
            position = os.lseek(source, begin, os.SEEK_HOLE)
        except OSError:
            position = size
        os.lseek(source, begin, os.SEEK_SET)
        os.lseek(target, begin, os.SEEK_SET)
        remaining = position - begin
        while remaining > 0:
            moved = os.sendfile(target, source, None, min(remaining, _CHUNK))
            if moved == 0:
                break
            remaining -= moved
    os.ftruncate(target, size)


def _copy_xattrs(source: str, target: str, *, follow: bool) -> None:
    try:
        names = os.listxattr(source, follow_symlinks=follow)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.EOPNOTSUPP):
            return
        raise
    for name in names:
        if name.startswith("trusted.overlay.") or name.startswith("user.overlay."):
            continue
        # A target without such attributes (tmpfs, NFS) still gets the content.
        with suppress(OSError):
            os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=follow), follow_symlinks=follow)

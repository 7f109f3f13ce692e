"""mount(2), umount2(2) and what tells whether a file system can carry overlays. Blocking; no program is run."""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import shutil
import stat
import threading
from collections.abc import Sequence
from pathlib import Path

from plugin_sdk import EngineError

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8
_CLONE_FS = 0x200
# Linux gives system calls since 5.0 the same numbers on all architectures.
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_AT_FDCWD, _AT_EMPTY_PATH, _OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH = -100, 0x1000, 1, 4
_MOUNT_ATTR_IDMAP, _MS_PRIVATE = 0x00100000, 1 << 18
_PAGE = os.sysconf("SC_PAGE_SIZE")

OVERLAYFS = 0x794C7630
_FILE_SYSTEMS = {
    0xEF53: "extfs",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x01021994: "tmpfs",
    OVERLAYFS: "overlayfs",
    0x2FC12FC1: "zfs",
    0xF2F52010: "f2fs",
    0x6969: "nfs",
    0xFF534D42: "cifs",
    0x65735546: "fuse",
    0xCA451A4E: "bcachefs",
    0x4D44: "vfat",
    0x61756673: "aufs",
    0xF15F: "ecryptfs",
}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.readdir.restype = ctypes.c_void_p
_libc.readdir.argtypes = [ctypes.c_void_p]
_libc.fdopendir.restype = ctypes.c_void_p
_libc.closedir.argtypes = [ctypes.c_void_p]


class _MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns_fd")]


class _Dirent(ctypes.Structure):
    _fields_ = [
        ("d_ino", ctypes.c_uint64),
        ("d_off", ctypes.c_int64),
        ("d_reclen", ctypes.c_ushort),
        ("d_type", ctypes.c_ubyte),
        ("d_name", ctypes.c_char * 256),
    ]


def mount_overlay(
    base: Path, target: str, lower: Sequence[str], upper: str, work: str, *, extra: Sequence[str] = ()
) -> None:
    """Mount an overlay.

    Args:
        base: folder to which the other paths are relative; `target`, `upper` and `work` may be absolute.
        lower: the uppermost first.
        extra: further mount options.

    Raises:
        OSError: the kernel's reason.
        EngineError: more layers than fit.
    """
    root = os.fspath(base)
    # The kernel takes one page of options. Absolute paths read best in /proc/mounts; relative ones are short.
    options = _options([f"{root}/{path}" for path in lower], os.path.join(root, upper), os.path.join(root, work), extra)
    if len(options) < _PAGE and not any(sign in root for sign in ",:\\"):
        _mount(os.path.join(root, target), options)
        return
    options = _options(lower, upper, work, extra)
    if len(options) >= _PAGE:
        raise EngineError(f"{len(lower)} layers are more than one mount can carry")
    failure: list[BaseException] = []

    def from_base() -> None:
        try:
            # A working directory of this thread's own: that of the process stays.
            if _libc.unshare(_CLONE_FS) != 0:
                _raise("unshare")
            os.chdir(base)
            _mount(target, options)
        except BaseException as error:  # noqa: BLE001 - carried over to the calling thread
            failure.append(error)

    thread = threading.Thread(target=from_base, name="overlay-mount")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]


def attach_mapped(source: Path, place: Path, userns: int) -> None:
    """Show the files below `source` at `place` too, with their owners as a user namespace has them.

    Raises OSError; EINVAL: this kernel or file system has no such mounts. Source: mount_setattr(2), "ID-mapped mounts".
    """
    tree = _libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(source), _OPEN_TREE_CLONE | os.O_CLOEXEC)
    if tree < 0:
        _raise(str(source))
    try:
        change = _MountAttr(set=_MOUNT_ATTR_IDMAP, propagation=_MS_PRIVATE, userns_fd=userns)
        size = ctypes.c_size_t(ctypes.sizeof(change))
        if _libc.syscall(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, ctypes.byref(change), size) != 0:
            _raise(str(source))
        flags = _MOVE_MOUNT_F_EMPTY_PATH
        if _libc.syscall(_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(place), flags) != 0:
            _raise(str(place))
    finally:
        os.close(tree)


def _options(lower: Sequence[str], upper: str, work: str, extra: Sequence[str]) -> bytes:
    return os.fsencode(",".join([f"lowerdir={':'.join(lower)}", f"upperdir={upper}", f"workdir={work}", *extra]))


def _mount(target: str, options: bytes) -> None:
    if _libc.mount(b"overlay", os.fsencode(target), b"overlay", ctypes.c_ulong(0), options) != 0:
        _raise(target)


def unmount(target: str) -> None:
    """Unmount; a busy mount is detached lazily, what is none is fine."""
    path = os.fsencode(target)
    if _libc.umount2(path, UMOUNT_NOFOLLOW) == 0:
        return
    if ctypes.get_errno() == errno.EBUSY and _libc.umount2(path, UMOUNT_NOFOLLOW | MNT_DETACH) == 0:
        return
    if ctypes.get_errno() not in (errno.EINVAL, errno.ENOENT):
        _raise(target)


def detach(target: str) -> int | None:
    """Take a mount out of the tree at once, whoever uses it; None when there is none.

    Gives a descriptor that keeps the file system alive. Closing it ends an overlay, which first writes out all that is
    pending on the file system below it: that may take long, so it is left to the caller when.
    """
    try:
        kept = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    if _libc.umount2(os.fsencode(target), UMOUNT_NOFOLLOW | MNT_DETACH) == 0:
        return kept
    number = ctypes.get_errno()
    os.close(kept)
    if number == errno.EINVAL:
        return None
    raise OSError(number, os.strerror(number), target)


def is_mounted(folder: str) -> bool:
    """Something is mounted on this folder (of one file system on another)."""
    try:
        return os.stat(folder).st_dev != os.stat(f"{folder}/..").st_dev
    except FileNotFoundError:
        return False


def file_system(path: Path) -> tuple[int, str]:
    """Magic number and name of the file system that holds a path."""
    buffer = ctypes.create_string_buffer(256)
    if _libc.statfs(os.fsencode(path), buffer) != 0:
        _raise(str(path))
    magic = ctypes.cast(buffer, ctypes.POINTER(ctypes.c_ulong))[0] & 0xFFFFFFFF
    return magic, _FILE_SYSTEMS.get(magic, f"0x{magic:x}")


def sync_file_system(path: Path) -> None:
    """Write all that is pending on the file system that holds `path` to its disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(descriptor) != 0:
            _raise(str(path))
    finally:
        os.close(descriptor)


def has_d_type(folder: Path) -> bool:
    """Listing this folder tells what kind each entry is. `folder` must hold an entry."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    stream = _libc.fdopendir(descriptor)
    if not stream:
        os.close(descriptor)
        _raise(str(folder))
    try:
        while entry := _libc.readdir(stream):
            found = ctypes.cast(entry, ctypes.POINTER(_Dirent)).contents
            if found.d_name not in (b".", b".."):
                return bool(found.d_type)
    finally:
        _libc.closedir(stream)
    return False


def probe(base: Path) -> str:
    """Try an overlay below `base`; gives the backing file system's name.

    Raises EngineError, with the reason and a way out, where it does not work.
    """
    magic, name = file_system(base)
    way_out = "put the data root (--data-root) on ext4, xfs or btrfs"
    if magic == OVERLAYFS:
        raise EngineError(f"overlay2 cannot keep its layers on overlayfs itself, where {base} lies: {way_out}")
    trial = base / f"probe-{secrets.token_hex(4)}"
    try:
        for folder in ("lower/gone", "upper", "work", "merged"):
            (trial / folder).mkdir(parents=True)
        if not has_d_type(trial):
            raise EngineError(
                f"overlay2 needs to learn the types of files from a listing (d_type), which {name} at {base} does not"
                f" offer: {way_out}, made with that feature (xfs: mkfs.xfs -n ftype=1; ext4: -O filetype)"
            )
        _try_mount(trial, name, way_out)
    finally:
        unmount(f"{trial}/merged")
        shutil.rmtree(trial, ignore_errors=True)
    return name


def _try_mount(trial: Path, name: str, way_out: str) -> None:
    try:
        mount_overlay(trial, "merged", ["lower"], "upper", "work", extra=features_off())
        (trial / "merged/gone").rmdir()
        whiteout = os.lstat(trial / "upper/gone")
    except PermissionError:
        raise EngineError("overlay2 needs root with CAP_SYS_ADMIN to mount overlays") from None
    except OSError as error:
        cause = "this kernel has no overlayfs" if error.errno == errno.ENODEV else f"{error.strerror}"
        raise EngineError(f"overlay2 does not work on {name} at {trial.parent}: {cause}; {way_out}") from None
    if not stat.S_ISCHR(whiteout.st_mode):
        raise EngineError(f"overlay2 does not work on {name} at {trial.parent}: no whiteouts; {way_out}")


def features_off() -> tuple[str, ...]:
    """Options against the features, on by default in some kernels, with which an upper folder is not a plain diff."""
    known = Path("/sys/module/overlay/parameters")
    return tuple(f"{feature}=off" for feature in ("redirect_dir", "metacopy", "index") if (known / feature).exists())


def _raise(what: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), what)

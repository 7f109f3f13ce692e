"""Opening files below a folder that somebody else fills: a symlink in there never leads out of it."""

from __future__ import annotations

import ctypes
import os
import stat
from pathlib import Path

from plugin_sdk import NotSupported

_OPENAT2 = 437  # the same number on every architecture
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_in(root: Path | str, path: str, flags: int = os.O_RDONLY) -> int:
    """A descriptor of `path` as a process whose root is `root` would find it. Blocking.

    Raises:
        OSError: as open(2).
        NotSupported: the kernel is older than 5.6.
    """
    folder = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        how = _OpenHow(flags | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
        descriptor: int = _libc.syscall(
            _OPENAT2, folder, os.fsencode(path), ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
        )
        if descriptor < 0:
            number = ctypes.get_errno()
            if number == 38:  # ENOSYS
                raise NotSupported("this kernel lacks openat2(2): Linux 5.6 or newer is needed")
            raise OSError(number, os.strerror(number), path)
        return descriptor
    finally:
        os.close(folder)


def read_in(root: Path | str, path: str, limit: int = 4 << 20) -> str:
    """A regular file's text, at most `limit` bytes; "" when there is none. Never waits for a FIFO or a device. Blocking."""
    try:
        descriptor = open_in(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return ""
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        return file.read(limit).decode(errors="replace")

"""mount(2) and umount2(2), and the options that `mount -o` takes."""

from __future__ import annotations

import ctypes
import errno
import os
import re

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_SYNCHRONOUS = 0x10
MS_REMOUNT = 0x20
MS_DIRSYNC = 0x80
MS_NOATIME = 0x400
MS_NODIRATIME = 0x800
MS_BIND = 0x1000
MS_REC = 0x4000
MS_SILENT = 0x8000
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

_SET = {
    "ro": MS_RDONLY,
    "nosuid": MS_NOSUID,
    "nodev": MS_NODEV,
    "noexec": MS_NOEXEC,
    "sync": MS_SYNCHRONOUS,
    "dirsync": MS_DIRSYNC,
    "noatime": MS_NOATIME,
    "nodiratime": MS_NODIRATIME,
    "relatime": MS_RELATIME,
    "strictatime": MS_STRICTATIME,
    "silent": MS_SILENT,
    "bind": MS_BIND,
    "rbind": MS_BIND | MS_REC,
}
_CLEAR = {
    "rw": MS_RDONLY,
    "suid": MS_NOSUID,
    "dev": MS_NODEV,
    "exec": MS_NOEXEC,
    "async": MS_SYNCHRONOUS,
    "atime": MS_NOATIME,
    "diratime": MS_NODIRATIME,
    "norelatime": MS_RELATIME,
    "nostrictatime": MS_STRICTATIME,
    "loud": MS_SILENT,
}
_PROPAGATION = {
    "private": MS_PRIVATE,
    "rprivate": MS_PRIVATE | MS_REC,
    "slave": MS_SLAVE,
    "rslave": MS_SLAVE | MS_REC,
    "shared": MS_SHARED,
    "rshared": MS_SHARED | MS_REC,
    "unbindable": MS_UNBINDABLE,
    "runbindable": MS_UNBINDABLE | MS_REC,
}

_libc = ctypes.CDLL(None, use_errno=True)


def parse_options(text: str) -> tuple[int, int, str]:
    """(flags, propagation flags, data for the file system) of `ro,noatime,size=1m`."""
    flags, propagation, data = 0, 0, []
    for option in filter(None, text.split(",")):
        if option in _SET:
            flags |= _SET[option]
        elif option in _CLEAR:
            flags &= ~_CLEAR[option]
        elif option in _PROPAGATION:
            propagation = _PROPAGATION[option]
        elif option != "defaults":
            data.append(option)
    return flags, propagation, ",".join(data)


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2). Raises OSError with the system's reason."""
    _call("mount", _bytes(source), _bytes(target), _bytes(fstype), ctypes.c_ulong(flags), _bytes(data), target=target)


def mount_with_options(source: str, target: str, fstype: str, options: str) -> None:
    """mount(2) as `mount -t fstype -o options` would call it; a read-only bind and propagation take further calls."""
    flags, propagation, data = parse_options(options)
    mount(source, target, fstype, flags, data)
    try:
        if flags & MS_BIND and flags & ~(MS_BIND | MS_REC | MS_SILENT):
            mount("", target, "", (flags & ~MS_REC) | MS_REMOUNT)
        if propagation:
            mount("", target, "", propagation)
    except OSError:
        unmount(target)
        raise


def unmount(target: str) -> None:
    """Take the topmost mount off, lazily when it is busy; what is not mounted is fine. Raises OSError."""
    try:
        _call("umount2", _bytes(target), UMOUNT_NOFOLLOW, target=target)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return
        if error.errno != errno.EBUSY:
            raise
        _call("umount2", _bytes(target), UMOUNT_NOFOLLOW | MNT_DETACH, target=target)


def mounted(path: str) -> bool:
    """Something is mounted at exactly this path. Raises OSError."""
    try:
        here = os.stat(path, follow_symlinks=False)
        above = os.stat(os.path.dirname(path.rstrip("/")) or "/", follow_symlinks=False)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno == errno.ESTALE:
            return True
        raise
    if here.st_dev != above.st_dev:
        return True
    # A bind mount within one file system shows in mountinfo alone; spaces and the like are escaped as octals there.
    wanted = os.path.realpath(os.path.dirname(path)) + "/" + os.path.basename(path)
    for char in ("\\", " ", "\t", "\n"):
        wanted = wanted.replace(char, f"\\{ord(char):03o}")
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        return any(line.split(" ", 5)[4] == wanted for line in table)


def mount_of(path: str) -> tuple[str, set[str]]:
    """Where the file system of a path is mounted, and its propagation: of "shared", "master", "unbindable".

    Raises OSError.
    """
    real = os.path.realpath(path, strict=True)
    best, facts = "/", set[str]()
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            fields = line.split(" ")
            place = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[4])
            if len(place) >= len(best) and (real == place or real.startswith(place.rstrip("/") + "/")):
                best = place
                facts = {field.partition(":")[0] for field in fields[6 : fields.index("-")]}
    return best, facts


def _bytes(text: str) -> ctypes.c_char_p:
    return ctypes.c_char_p(os.fsencode(text) if text else None)


def _call(name: str, *arguments: object, target: str) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)

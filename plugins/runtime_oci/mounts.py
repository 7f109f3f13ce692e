"""Mounts of a container: the kernel's file systems, then what others have prepared; masked and read-only paths.

Source: OCI runtime spec, config.md "Mounts" and config-linux.md "Default Filesystems"; dockerd's defaults.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path, PurePosixPath
from typing import Any

from plugin_sdk import IdMap, InvalidParameter
from plugin_sdk.containers import HostConfig
from plugin_sdk.runtime import OciMount

DEFAULT_SHM_SIZE = 64 << 20

MASKED = (
    *("/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi"),
    *("/sys/firmware", "/sys/devices/virtual/powercap"),
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_SHARED = {"shared", "rshared"}
_SLAVE = {"slave", "rslave"}

MNT_DETACH = 2
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8

_libc = ctypes.CDLL(None, use_errno=True)


def _mount(destination: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def kernel_mounts(host: HostConfig, *, writable_cgroups: bool, shm: Path | None) -> list[dict[str, Any]]:
    """/proc, /dev and below, /sys and below.

    Args:
        shm: a mounted file system of the host for /dev/shm; None: a tmpfs of the container's own.
    """
    safe = ("nosuid", "noexec", "nodev")
    sys_mode = "rw" if host.Privileged and not host.ReadonlyRootfs else "ro"
    cgroup_mode = "rw" if writable_cgroups else "ro"
    found = [
        _mount("/proc", "proc", "proc", *safe),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount("/dev/pts", "devpts", "devpts", *safe[:2], "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        _mount("/sys", "sysfs", "sysfs", *safe, sys_mode),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", cgroup_mode, *safe),
    ]
    if host.IpcMode == "host":
        if os.path.isdir("/dev/mqueue"):
            found.append(_mount("/dev/mqueue", "bind", "/dev/mqueue", "rbind", *safe))
        found.append(_mount("/dev/shm", "bind", "/dev/shm", "rbind", "rprivate"))
        return found
    found.append(_mount("/dev/mqueue", "mqueue", "mqueue", *safe))
    if shm is not None:
        found.append(_mount("/dev/shm", "bind", str(shm), "rbind", "rprivate"))
    elif host.IpcMode != "none":
        size = host.ShmSize or DEFAULT_SHM_SIZE
        found.append(_mount("/dev/shm", "tmpfs", "shm", *safe, "mode=1777", f"size={size}"))
    return found


def merge(usual: list[dict[str, Any]], prepared: list[OciMount]) -> list[dict[str, Any]]:
    """The usual mounts without those that a prepared one replaces, then the prepared ones, outer before inner."""
    taken = {_clean(mount.destination) for mount in prepared}
    kept = [
        mount
        for mount in usual
        if mount["destination"] not in taken and not ("/dev" in taken and mount["destination"].startswith("/dev/"))
    ]
    return kept + [
        _mount(_clean(mount.destination), mount.type, mount.source, *mount.options)
        for mount in sorted(prepared, key=lambda mount: len(PurePosixPath(_clean(mount.destination)).parts))
    ]


def _clean(destination: str) -> str:
    if not destination.startswith("/"):
        raise InvalidParameter(f"invalid mount destination {destination!r}: want an absolute path")
    cleaned = os.path.normpath(destination)
    return "/" + cleaned.lstrip("/")


def root_propagation(prepared: list[OciMount]) -> str:
    """Propagation that the container's root needs, so that the mounts in it can have theirs; "" for the runtime's own."""
    asked = {option for mount in prepared for option in mount.options}
    if asked & _SHARED:
        return "shared"
    return "slave" if asked & _SLAVE else ""


def mount_shm(place: Path, size: int, ids: IdMap | None = None) -> None:
    """Mount the /dev/shm that containers share by `--ipc container:`; a mounted one is fine. Blocking."""
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.path.ismount(place):
        return
    owner = f",uid={ids.root[0]},gid={ids.root[1]}" if ids else ""
    options = f"mode=1777,size={size or DEFAULT_SHM_SIZE}{owner}".encode()
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    if _libc.mount(b"shm", os.fsencode(place), b"tmpfs", ctypes.c_ulong(flags), options) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(place))


def unmount_shm(place: Path) -> None:
    """Undo `mount_shm`; nothing there is fine. Blocking."""
    while os.path.ismount(place):
        if _libc.umount2(os.fsencode(place), MNT_DETACH) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(place))
    if place.exists():
        place.rmdir()

"""A container's root file system with its mounts, by a descriptor that `plugin_sdk.rootfs` can resolve paths in.

Of a running container it is the root of its first process, with all that is mounted there. Of a stopped one it is a private,
detached copy of its layer's mount, on which its volumes and bind mounts were put in a mount namespace that lasts only
as long as that takes: the host sees nothing of it, and nothing is left when the descriptor is closed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from plugin_sdk import EngineError, IdMap, InvalidParameter
from plugin_sdk.containers import ContainerRecord, MountPoint
from plugin_sdk.rootfs import make_folders, open_in_root
from plugin_sdk.streams import apart
from plugin_sdk.text import new_id
from plugin_sdk.userns import acting_as
from plugin_sdk.volumes import VolumeDriver

if TYPE_CHECKING:
    from .service import ContainerService

# Linux gives system calls since 5.0 the same numbers on all architectures.
_OPEN_TREE = 428
_MOUNT_SETATTR = 442

_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_OPEN_TREE_CLONE = 1
_MOUNT_ATTR_RDONLY = 1
_CLONE_NEWNS = 0x00020000
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18

_LINK_LIMIT = 255
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns_fd")]


@dataclass(frozen=True, slots=True)
class Bind:
    """A folder or file of the host, to be seen at `destination`."""

    source: str
    destination: str
    writable: bool = True
    subpath: str = ""


@asynccontextmanager
async def opened(service: ContainerService, record: ContainerRecord) -> AsyncIterator[int]:
    """Descriptor of the container's root for as long as the block runs."""
    if record.State.running and (root := await _of_process(service, record)) is not None:
        try:
            yield root
        finally:
            os.close(root)
        return
    async with service.mounted(record) as path, _volumes(service, record) as binds:
        if binds or record.HostConfig.ReadonlyRootfs:
            root = await apart(assemble, path, binds, record.HostConfig.ReadonlyRootfs, record.Ids)
        else:
            root = os.open(path, _FOLDER)
        try:
            yield root
        finally:
            os.close(root)


async def _of_process(service: ContainerService, record: ContainerRecord) -> int | None:
    """The root of the container's first process; None when it has just ended."""
    try:
        process = os.open(f"/proc/{record.State.Pid}", _FOLDER)
    except OSError:
        return None
    try:
        # Asked after the descriptor was taken: if the PID is the container's now, then so is the descriptor, or it is
        # that of a dead process, and the next call fails.
        if record.State.Pid not in await service.runtime_of(record).pids(record.Id):
            return None
        return os.open("root", _FOLDER, dir_fd=process)
    except OSError:
        return None
    finally:
        os.close(process)


@asynccontextmanager
async def _volumes(service: ContainerService, record: ContainerRecord) -> AsyncIterator[list[Bind]]:
    """Where the container's volumes and bind mounts are on the host; volumes are mounted meanwhile."""
    request = f"copy-{new_id()}"
    held: list[tuple[VolumeDriver, str]] = []
    binds: list[Bind] = []
    try:
        for mount in sorted(record.Mounts, key=lambda mount: mount.Destination):
            if mount.Type == "volume":
                driver = await service.ctx.drivers.find(VolumeDriver, mount.Driver or "local")
                held.append((driver, mount.Name))
                source = await driver.mount(mount.Name, request)
                binds.append(Bind(source, mount.Destination, mount.RW, mount.Subpath))
            elif mount.Type == "bind":
                binds.append(_bind(mount))
        yield binds
    finally:
        for driver, name in held:
            try:
                await driver.unmount(name, request)
            except EngineError as error:
                service.ctx.log.warning("volume %s stays mounted after a copy: %s", name, error)


def _bind(mount: MountPoint) -> Bind:
    if not os.path.lexists(mount.Source):
        raise InvalidParameter(f"bind source path does not exist: {mount.Source}")
    return Bind(mount.Source, mount.Destination, mount.RW)


def assemble(path: Path, binds: Sequence[Bind], readonly: bool = False, ids: IdMap | None = None) -> int:
    """Descriptor of a detached copy of what is mounted at `path`, with other mounts on it.

    Takes the calling thread into a mount namespace of its own: it must end after that. Raises OSError.
    """
    _check(_libc.unshare(_CLONE_NEWNS))
    _check(_libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None))
    root = os.open(path, _FOLDER)
    try:
        # A mount of its own, so that what is put on it belongs to it.
        _bind_mount(root, root, str(path))
        top = os.open(path, _FOLDER)
    finally:
        os.close(root)
    try:
        for bind in binds:
            _put(top, bind, ids)
        flags = _AT_EMPTY_PATH | _AT_RECURSIVE | _OPEN_TREE_CLONE | os.O_CLOEXEC
        tree = _check(_libc.syscall(_OPEN_TREE, top, b"", flags), str(path))
    finally:
        os.close(top)
    if readonly:
        _set_readonly(tree, recursive=False)
    return tree


def _put(root: int, bind: Bind, ids: IdMap | None) -> None:
    source = os.open(bind.source, os.O_PATH | os.O_CLOEXEC)
    try:
        if bind.subpath:
            volume, source = source, open_in_root(source, bind.subpath)
            os.close(volume)
        with acting_as(ids):
            target = _mount_point(root, bind.destination, stat.S_ISDIR(os.fstat(source).st_mode), ids)
        try:
            _bind_mount(source, target, bind.destination)
        finally:
            os.close(target)
    finally:
        os.close(source)
    if not bind.writable:
        mounted = open_in_root(root, bind.destination)
        try:
            _set_readonly(mounted, recursive=True)
        finally:
            os.close(mounted)


def _mount_point(root: int, destination: str, folder: bool, ids: IdMap | None) -> int:
    """The place of a mount; made if it is missing, as the container's next start would."""
    with suppress(FileNotFoundError):
        return open_in_root(root, destination)
    destination = resolve(root, destination)
    uid, gid = ids.root if ids else (0, 0)
    if folder:
        return make_folders(root, destination, uid=uid, gid=gid)
    os.close(make_folders(root, os.path.dirname(destination), uid=uid, gid=gid))
    os.close(open_in_root(root, destination, os.O_WRONLY | os.O_CREAT, 0o644))
    return open_in_root(root, destination)


def _bind_mount(source: int, target: int, name: str) -> None:
    paths = (f"/proc/self/fd/{source}".encode(), f"/proc/self/fd/{target}".encode())
    _check(_libc.mount(*paths, None, ctypes.c_ulong(_MS_BIND | _MS_REC), None), name)


def _set_readonly(mounted: int, *, recursive: bool) -> None:
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    change = _MountAttr(set=_MOUNT_ATTR_RDONLY)
    size = ctypes.c_size_t(ctypes.sizeof(change))
    _check(_libc.syscall(_MOUNT_SETATTR, mounted, b"", flags, ctypes.byref(change), size))


def _check(result: int, name: str = "") -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
    return result


def resolve(root: int, path: str, *, last: bool = True) -> str:
    """The path without links, "." and ".."; a part that does not exist stays as it is.

    For messages, names and comparisons; what is opened is resolved by the kernel.

    Args:
        last: the last part is followed too if it is a link.

    Raises:
        OSError: ELOOP, with the path as given.
    """
    pending = path.split("/")[::-1]
    done: list[str] = []
    links = 0
    while pending:
        part = pending.pop()
        if part in ("", "."):
            continue
        if part == "..":
            del done[-1:]
            continue
        done.append(part)
        if not last and not any(rest not in ("", ".") for rest in pending):
            break
        target = read_link(root, "/".join(done))
        if target is None:
            continue
        links += 1
        if links > _LINK_LIMIT:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        del done[-1:]
        if target.startswith("/"):
            done.clear()
        pending += target.split("/")[::-1]
    return "/" + "/".join(done)


def read_link(root: int, path: str) -> str | None:
    """Target of a symbolic link; None for anything else, and for nothing."""
    try:
        descriptor = open_in_root(root, path, os.O_PATH | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            return None
        raise
    try:
        return os.readlink("", dir_fd=descriptor) if stat.S_ISLNK(os.fstat(descriptor).st_mode) else None
    finally:
        os.close(descriptor)

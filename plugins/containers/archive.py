"""`docker cp` and `docker export`: files into and out of containers, running or not."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from plugin_sdk import EngineError, Forbidden, InvalidParameter, NotFound
from plugin_sdk.containers import ContainerRecord
from plugin_sdk.rootfs import open_in_root
from plugin_sdk.streams import Inlet, Outlet, apart
from plugin_sdk.times import format_ns

from . import users
from .packing import Packer
from .rootview import opened, read_link, resolve
from .unpacking import Unpacker

if TYPE_CHECKING:
    from .service import ContainerService

GATHERED = 256 << 10

# Go's os.FileMode, which the path stat carries: type bits and the three special bits.
_GO_TYPE = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
}
_GO_SPECIAL = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}


@dataclass(frozen=True, slots=True)
class PathStat:
    """What `X-Docker-Container-Path-Stat` tells: `mode` is Go's FileMode, `mtime` nanoseconds."""

    name: str
    size: int
    mode: int
    mtime: int
    link_target: str = ""

    def wire(self) -> dict[str, Any]:
        """In the API's words."""
        whole, _, fraction = format_ns(self.mtime).rstrip("Z").partition(".")
        fraction = fraction.rstrip("0")
        return {
            "name": self.name,
            "size": self.size,
            "mode": self.mode,
            "mtime": f"{whole}.{fraction}Z" if fraction else f"{whole}Z",
            "linkTarget": self.link_target,
        }


@dataclass(frozen=True, slots=True)
class _Place:
    """A path that a client named: `real` is its entry without links before it; `name` what the client calls it."""

    real: str
    name: str
    facts: os.stat_result
    link_target: str = ""

    def stat(self) -> PathStat:
        mode = self.facts.st_mode
        go = stat.S_IMODE(mode) & 0o777 | _GO_TYPE.get(stat.S_IFMT(mode), 0)
        for bit, theirs in _GO_SPECIAL.items():
            go |= theirs if mode & bit else 0
        return PathStat(self.name, self.facts.st_size, go, self.facts.st_mtime_ns, self.link_target)


class Download:
    """A tar on its way to a client. `chunks` may be taken once; `close` must be called, whatever happens."""

    def __init__(self, stat: PathStat | None, stack: AsyncExitStack, pack: Callable[[Outlet], None]) -> None:
        self.stat = stat
        self._stack = stack
        self._pack = pack
        self._work: asyncio.Future[None] | None = None

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The tar. Raises OSError when it cannot go on."""
        outlet = Outlet()
        async with outlet:
            self._work = asyncio.ensure_future(apart(self._run, outlet))
            async for data in outlet:
                yield data

    def _run(self, outlet: Outlet) -> None:
        try:
            self._pack(outlet)
        except BrokenPipeError:
            return
        except Exception as error:  # noqa: BLE001 - raised again where the client's answer is written
            outlet.end(error)
        else:
            outlet.end()

    async def close(self) -> None:
        """Let go of the container's files, once the packing thread has."""
        try:
            if self._work is not None:
                await self._work
        finally:
            await self._stack.aclose()


async def path_stat(service: ContainerService, ref: str, path: str) -> PathStat:
    """Raises NotFound ("Could not find the file PATH in container REF")."""
    record = await service.ready(ref)
    async with opened(service, record) as root:
        return (await apart(_locate, root, path, ref)).stat()


async def download(service: ContainerService, ref: str, path: str) -> Download:
    """A file or folder as a tar. Raises like `path_stat`."""
    record = await service.ready(ref)
    stack = AsyncExitStack()
    try:
        root = await stack.enter_async_context(opened(service, record))
        place = await apart(_locate, root, path, ref)
        mounts = await apart(_mounts, root, record)
    except BaseException:
        await stack.aclose()
        raise
    service.emit(record, "archive-path")

    def pack(outlet: Outlet) -> None:
        Packer(root, outlet, mounts, record.Ids, exact=True).pack(place.real, place.name)

    return Download(place.stat(), stack, pack)


async def export(service: ContainerService, ref: str) -> Download:
    """The whole root file system as a tar, without what is mounted in it."""
    record = await service.ready(ref)
    stack = AsyncExitStack()
    path = await stack.enter_async_context(service.mounted(record))
    service.emit(record, "export")

    def pack(outlet: Outlet) -> None:
        root = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            Packer(root, outlet, ids=record.Ids).pack("/", "", itself=False)
        finally:
            os.close(root)

    return Download(None, stack, pack)


async def upload(
    service: ContainerService,
    ref: str,
    path: str,
    body: AsyncIterator[bytes],
    *,
    keep_kind: bool = False,
    as_user: bool = False,
) -> None:
    """Unpack a tar into a folder.

    Args:
        keep_kind: do not replace folders by other things and the other way round.
        as_user: everything belongs to the container's user afterwards, if it names one.

    Raises:
        NotFound: no such path.
        InvalidParameter: not a folder, or a bad archive; what was unpacked until then stays.
        Forbidden: the root file system or the volume is read-only.
    """
    record = await service.ready(ref)
    async with opened(service, record) as root:
        folder = await apart(_target, root, path, ref, record)
        owner = await apart(users.owner_of, root, record.Config.User) if as_user else None
        inlet = Inlet()
        unpacker = Unpacker(root, folder, keep_kind=keep_kind, owner=owner, ids=record.Ids)
        work = asyncio.ensure_future(apart(_unpack, unpacker, inlet))
        try:
            async for data in _gathered(body):
                await inlet.aput(data)
            inlet.end()
        except BrokenPipeError:
            pass  # the archive was refused; the work says why
        except BaseException as error:
            inlet.fail(OSError(errno.ECONNRESET, f"the upload broke off: {type(error).__name__}"))
            await asyncio.gather(work, return_exceptions=True)
            raise
        try:
            await work
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR) and error.filename:
                # The folder was there, so this is about what is in it; in /proc, for one, nothing can be made.
                why = (error.strerror or "").lower()
                raise InvalidParameter(f"{path} in container {ref} cannot take {error.filename!r}: {why}") from None
            _translate(error, path, ref)
    service.emit(record, "extract-to-dir")


async def _gathered(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Pieces of GATHERED bytes or more: the CLI sends a chunk for each header, and waking a thread costs more."""
    waiting: list[bytes] = []
    size = 0
    async for data in body:
        waiting.append(data)
        size += len(data)
        if size >= GATHERED:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def _unpack(unpacker: Unpacker, inlet: Inlet) -> None:
    try:
        unpacker.unpack(inlet)  # type: ignore[arg-type]
    finally:
        inlet.close()


def _locate(root: int, path: str, ref: str) -> _Place:
    """Find what a client named, as `docker cp` has it: a last "/" or "/." means the folder behind a link."""
    follow = path.endswith(("/", "/.")) or path in (".", "")
    try:
        real = resolve(root, path, last=follow)
        descriptor = open_in_root(root, real, os.O_PATH | os.O_NOFOLLOW)
        try:
            facts = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if follow and not stat.S_ISDIR(facts.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        target = resolve(root, real) if read_link(root, real) is not None else ""
    except (OSError, ValueError) as error:
        _translate(error, path, ref)
    return _Place(real, _called(path, real), facts, target)


def _called(path: str, real: str) -> str:
    name: str = os.path.basename(path.rstrip("/"))
    if name == "..":
        name = os.path.basename(real)
    return name or "/"


def _target(root: int, path: str, ref: str, record: ContainerRecord) -> str:
    """The folder to unpack into, resolved; refuses a read-only one."""
    try:
        real = resolve(root, path)
        descriptor = open_in_root(root, real)
        try:
            facts = os.fstat(descriptor)
            readonly = os.fstatvfs(descriptor).f_flag & os.ST_RDONLY
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        _translate(error, path, ref)
    if not stat.S_ISDIR(facts.st_mode):
        raise InvalidParameter("extraction point is not a directory")
    if readonly:
        on_mount = any(Path(real).is_relative_to(mount) for mount in _mounts(root, record))
        raise Forbidden("mounted volume is marked read-only" if on_mount else "container rootfs is marked read-only")
    return real


def _mounts(root: int, record: ContainerRecord) -> set[str]:
    """Where the user has mounted something, without links."""
    wanted = {mount.Destination for mount in record.Mounts} | set(record.HostConfig.Tmpfs)
    found = set()
    for path in wanted:
        try:
            found.add(resolve(root, path))
        except OSError:
            continue  # the place is not reachable, so nothing is copied from it either
    return found


def _translate(error: OSError | ValueError, path: str, ref: str) -> NoReturn:
    """The error that a client understands."""
    if isinstance(error, ValueError):
        raise InvalidParameter(f"invalid path {path!r}: {error}") from None
    if error.errno == errno.ENOENT and error.filename2 is None:
        raise NotFound(f"Could not find the file {path} in container {ref}") from None
    if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
        raise InvalidParameter(f"lstat {path}: {(error.strerror or '').lower()}") from None
    if error.errno == errno.EROFS:
        raise Forbidden(f"{path}: the file system in container {ref} is read-only") from None
    what = f"{error.filename}: " if error.filename else ""
    raise EngineError(f"copying {path} of container {ref}: {what}{(error.strerror or str(error)).lower()}") from error

"""Sandboxes: network namespaces, pinned by bind mounts so that they outlive the daemon; some lie ready."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import secrets
import socket
import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from plugin_sdk import EngineError, IdMap, Unavailable, userns
from plugin_sdk.netlink import Netlink, inside, set_link

_CLONE_NEWNET = 0x40000000
_MS_BIND = 0x1000
_MNT_DETACH = 2
_QUIET = 0.05
"""Seconds without a start after which the stock is filled up again: not in a start's way."""

_libc = ctypes.CDLL(None, use_errno=True)


class SandboxPool:
    """Hands out fresh sandboxes, a ready one if possible, and takes them down.

    Args:
        folder: where the pins lie; nothing else may lie there.
        stock: how many to keep ready.
        complain: called with a sentence when the background work fails.
    """

    def __init__(self, folder: Path, stock: int, complain: Callable[[str], None]) -> None:
        self._folder, self._stock, self._complain = folder, stock, complain
        self._ready: list[Path] = []
        self._going: set[asyncio.Future[None]] = set()
        self._wanted = asyncio.Event()
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="sandbox")

    async def take(self) -> Path:
        """Path of a sandbox of one's own, with a loopback that is up and nothing else."""
        self._wanted.set()
        if self._ready:
            return self._ready.pop()
        return await self.make()

    async def make_owned(self, ids: IdMap) -> Path:
        """A new one that belongs to a new user namespace, which is pinned at `owner(path)`. Raises Unavailable."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, create_owned, self._folder, ids)
        except OSError as error:
            raise Unavailable(f"cannot make a network sandbox in a user namespace: {error}") from None

    async def make(self) -> Path:
        """A new one. Raises Unavailable when the kernel gives none."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, create, self._folder)
        except OSError as error:
            raise Unavailable(f"cannot make a network sandbox: {error}") from None

    def destroy_soon(self, path: Path) -> None:
        """`destroy`, in the background."""
        work = asyncio.ensure_future(self.destroy(path))
        self._going.add(work)
        work.add_done_callback(self._gone)

    async def destroy(self, path: Path) -> None:
        """Unpin it; the kernel takes it down once nothing runs in it. One that is gone is fine."""
        if path.parent == self._folder:
            for pin in (path, owner(path)):
                await asyncio.get_running_loop().run_in_executor(self._threads, unpin, pin)

    def _gone(self, work: asyncio.Future[None]) -> None:
        self._going.discard(work)
        if not work.cancelled() and (error := work.exception()) is not None:
            self._complain(f"a network sandbox cannot be removed: {error}")

    async def keep_stocked(self) -> None:
        """Background work: fill the stock up whenever it was drawn from."""
        self._wanted.set()
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if self._ready:
                await asyncio.sleep(_QUIET)
            try:
                while len(self._ready) < self._stock:
                    self._ready.append(await self.make())
            except EngineError as error:
                self._complain(str(error))
                await asyncio.sleep(1.0)

    async def drop_strangers(self, owned: Collection[Path]) -> int:
        """Take down all that lies in the folder and is neither owned nor in the stock; gives how many there were."""
        keep = {*owned, *map(owner, owned), *self._ready}
        found = [path for path in self._folder.iterdir() if path not in keep]
        for path in found:
            await self.destroy(path)
        return len(found)

    async def close(self) -> None:
        """Take the stock down; what is in use stays."""
        ready, self._ready = self._ready, []
        await asyncio.gather(*self._going, *map(self.destroy, ready), return_exceptions=True)
        self._threads.shutdown(wait=False)


def create(folder: Path) -> Path:
    """Make a sandbox. Blocking. Raises OSError."""
    path = folder / secrets.token_hex(6)
    failure: list[BaseException] = []

    def become() -> None:
        try:
            _check(_libc.unshare(_CLONE_NEWNET), "unshare")
            _set_defaults()
            with Netlink() as netlink:
                netlink.run(set_link(socket.if_nametoindex("lo"), up=True))
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC, 0o400))
            _check(
                _libc.mount(b"/proc/thread-self/ns/net", os.fsencode(path), None, ctypes.c_ulong(_MS_BIND), None), path
            )
        except BaseException as error:  # noqa: BLE001 - carried over to the calling thread
            failure.append(error)

    # The namespace is the thread's, so the thread must end; one from a pool would stay in it.
    thread = threading.Thread(target=become, name="sandbox-maker")
    thread.start()
    thread.join()
    if failure:
        unpin(path)
        raise failure[0]
    return path


def create_owned(folder: Path, ids: IdMap) -> Path:
    """Make a sandbox and the user namespace that owns it. Blocking. Raises OSError."""
    path = folder / secrets.token_hex(6)
    try:
        with userns.sleeper(ids, network=True) as pid:
            for kind, pin in (("net", path), ("user", owner(path))):
                os.close(os.open(pin, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC, 0o400))
                _check(_libc.mount(f"/proc/{pid}/ns/{kind}".encode(), os.fsencode(pin), None, _MS_BIND, None), pin)
        with inside(path), Netlink() as netlink:
            _set_defaults()
            netlink.run(set_link(socket.if_nametoindex("lo"), up=True))
    except BaseException:
        unpin(path)
        unpin(owner(path))
        raise
    return path


def owner(path: Path) -> Path:
    """Where the user namespace of a sandbox of `create_owned` is pinned."""
    return path.with_name(f"{path.name}.user")


def unpin(path: Path) -> None:
    """Let a sandbox go. Blocking; idempotent."""
    if _libc.umount2(os.fsencode(path), _MNT_DETACH) != 0 and ctypes.get_errno() not in (errno.EINVAL, errno.ENOENT):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
    path.unlink(missing_ok=True)


def alive(path: Path) -> bool:
    """There is a namespace behind the pin (after a boot the file may be left without one)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.fstat(descriptor).st_dev != os.stat(path.parent).st_dev
    finally:
        os.close(descriptor)


def _set_defaults() -> None:
    # Interfaces of IPv4-only networks must not configure link-local IPv6 by themselves; drivers enable it where wanted.
    try:
        Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EROFS):
            raise


def _check(result: int, what: object) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(what))

"""User namespaces: making one, and acting on files as its root. Blocking. Source: user_namespaces(7), capabilities(7)."""

from __future__ import annotations

import ctypes
import os
import select
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import ParamSpec, TypeVar

from kernel.contracts.common import IdMap

P = ParamSpec("P")
T = TypeVar("T")

READY_DEADLINE = 10.0
"""Seconds for a process to be in its new namespaces."""
_CAPABILITIES_V3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def sleeper(ids: IdMap, *, network: bool = False) -> Iterator[int]:
    """PID of a process in a new user namespace, and in a network namespace that this one owns, while the block runs.

    Whoever wants to keep the namespaces pins or opens them in `/proc/PID/ns`. A program of its own, since a process with
    threads cannot change its user namespace. Raises OSError.
    """
    argv = ["unshare", "--user", *(["--net"] if network else []), "cat"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        try:
            # cat gives it back once it runs, which is after the namespaces were made.
            process.stdin.write(b"\n")
            process.stdin.flush()
            ready, _, _ = select.select([process.stdout], [], [], READY_DEADLINE)
            if not ready or not os.read(process.stdout.fileno(), 1):
                process.kill()
                raise OSError(
                    f"no user namespace can be made: {process.stderr.read().decode(errors='replace').strip()}"
                )
            for name, ranges in (("uid_map", ids.Uids), ("gid_map", ids.Gids)):
                lines = "".join(f"{part.Inside} {part.Host} {part.Size}\n" for part in ranges)
                Path(f"/proc/{process.pid}/{name}").write_text(lines)
            yield process.pid
        finally:
            process.kill()


def descriptor(ids: IdMap) -> int:
    """A namespace with these IDs, as mount_setattr(2) wants it. Kept for all further calls; do not close it."""
    return _descriptor(ids.model_dump_json())


@lru_cache(maxsize=16)
def _descriptor(ids: str) -> int:
    with sleeper(IdMap.model_validate_json(ids)) as pid:
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def acting_as(ids: IdMap | None) -> Iterator[None]:
    """This thread makes files as the namespace's root, with all that the engine's root may do. None: as itself.

    Where files are shown as those of a user namespace, the host's own root is nobody, and can make none.
    """
    if ids is None:
        yield
        return
    uid, gid = ids.root
    _become(uid, gid)
    try:
        yield
    finally:
        _become(0, 0)


def _become(uid: int, gid: int) -> None:
    # The kernel takes the capabilities over files away with fsuid 0, and leaves them permitted. The C library's calls
    # are the thread's own here; those for the capabilities do not exist in it.
    _libc.setfsgid(gid)
    _libc.setfsuid(uid)
    if _libc.setfsuid(-1) != uid or _libc.setfsgid(-1) != gid:
        raise PermissionError(f"cannot act as {uid}:{gid} on files: the engine needs CAP_SETUID and CAP_SETGID")
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_V3, 0)
    sets = (ctypes.c_uint32 * 6)()
    for call in ("capget", "capset"):
        if getattr(_libc, call)(header, sets) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), call)
        sets[0], sets[3] = sets[1], sets[4]  # effective: all that is permitted


def in_thread_as(ids: IdMap, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a thread of its own, which acts as the namespace's root; gives its result."""
    result: list[T] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            with acting_as(ids):
                result.append(function(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - carried over to the calling thread
            failure.append(error)

    thread = threading.Thread(target=work, name="as-namespace-root")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]

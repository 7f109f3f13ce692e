"""Blocking work, away from the event loop: threads, programs, other network namespaces."""

from __future__ import annotations

import asyncio
import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from kernel.errors import DeadlineExceeded, NotSupported

P = ParamSpec("P")
T = TypeVar("T")

CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


async def blocking(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking function in a worker thread."""
    return await asyncio.to_thread(function, *args, **kwargs)


@dataclass(frozen=True, slots=True)
class Finished:
    """A program's end."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def message(self) -> str:
        """The last words: standard error, else standard output, stripped."""
        return (self.stderr.strip() or self.stdout.strip()).decode(errors="replace")


def run_blocking(
    argv: Sequence[str],
    *,
    input: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
    timeout: float = 60.0,
) -> Finished:
    """Run a program to its end, in this thread; killed at the timeout.

    Raises:
        NotSupported: there is no such program.
        DeadlineExceeded: it took longer than `timeout` seconds.
    """
    try:
        done = subprocess.run(
            argv,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            env=env,
            cwd=cwd,
            pass_fds=pass_fds,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise NotSupported(f"the program {argv[0]!r} is not installed") from None
    except subprocess.TimeoutExpired:
        raise DeadlineExceeded(f"{argv[0]} did not finish within {timeout:g} s") from None
    return Finished(done.returncode, done.stdout, done.stderr)


async def run(
    argv: Sequence[str],
    *,
    input: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
    timeout: float = 60.0,
) -> Finished:
    """`run_blocking` in a worker thread."""
    return await asyncio.to_thread(
        run_blocking, argv, input=input, env=env, cwd=cwd, pass_fds=pass_fds, timeout=timeout
    )


def in_netns(path: Path, function: Callable[[], T], *, timeout: float = 30.0) -> T:
    """Run a blocking function in a thread of its own that has entered a network namespace. Blocking.

    Sockets that the function opens stay in that namespace whoever uses them afterwards.

    Raises:
        OSError: the namespace is gone.
        DeadlineExceeded: the function took longer than `timeout` seconds; its thread is left behind.
    """
    outcome: list[T] = []
    failure: list[BaseException] = []

    def enter() -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _libc.setns(descriptor, CLONE_NEWNET) != 0:
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number), str(path))
            finally:
                os.close(descriptor)
            outcome.append(function())
        except BaseException as error:  # noqa: BLE001 - carried over to the calling thread
            failure.append(error)

    thread = threading.Thread(target=enter, name=f"netns-{path.name[:12]}", daemon=True)
    thread.start()
    thread.join(timeout)
    if failure:
        raise failure[0]
    if not outcome:
        raise DeadlineExceeded(f"work in network namespace {path} did not finish within {timeout:g} s")
    return outcome[0]

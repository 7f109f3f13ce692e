"""Blocking work, away from the event loop: threads and programs."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from kernel.errors import DeadlineExceeded, NotSupported

P = ParamSpec("P")
T = TypeVar("T")


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

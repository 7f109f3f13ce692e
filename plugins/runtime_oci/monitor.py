"""conmon, the monitor of each container: it holds the container's streams, writes its log and tells its end.

It detaches itself (double fork), so that it and the container outlive the daemon. conmon's interface: file descriptors named
in the environment (`_OCI_SYNCPIPE`: one JSON line with the container's PID, or a negative number and a message), files in
the bundle (`attach`, `ctl`, `oom`), exit files. Works with 2.1.6 and later. Source: conmon, conmon.c, cli.c, ctrl.c.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from plugin_sdk import DeadlineExceeded, EngineError, NotSupported
from plugin_sdk.runtime import Launch
from plugins.runtime_oci.binary import ENVIRONMENT

log = logging.getLogger("engine.runtime_oci")

PID_FILE = "pidfile"
MONITOR_PID_FILE = "conmon.pid"
MONITOR_LOG = "conmon.log"
CONTROL = "ctl"
OOM_FILE = "oom"

CREATE_DEADLINE = 120.0
SYNC_PIPE = 3
MESSAGE_LIMIT = 64 << 10


class CreateFailed(Exception):
    """The runtime could not create the container; the text is its own."""


def find_conmon(configured: str) -> str:
    """Path of conmon. Raises NotSupported, with the mend."""
    found = shutil.which(configured or "conmon") or shutil.which("/usr/libexec/podman/conmon")
    if found is None:
        raise NotSupported(f"the program {configured or 'conmon'!r} is not installed: install the package conmon")
    return found


def command(conmon: str, program: str, options: Sequence[str], launch: Launch, exits: Path) -> list[str]:
    """The monitor's command line."""
    bundle = launch.bundle
    argv = [conmon, "--api-version", "1", "-c", launch.id, "-u", launch.id, "-n", launch.id[:12]]
    argv += ["-r", program, "-b", str(bundle), "-p", str(bundle / PID_FILE), "-P", str(bundle / MONITOR_PID_FILE)]
    argv += ["--exit-dir", str(exits), "--full-attach", "--no-sync-log", "--log-level", "error"]
    for option in options:
        argv += ["--runtime-arg", option]
    if launch.log is None:
        argv += ["-l", "none"]
    else:
        argv += ["-l", f"k8s-file:{launch.log.path}"]
        if launch.log.max_size > 0:
            argv += ["--log-size-max", str(launch.log.max_size)]
    if launch.tty:
        argv.append("-t")
    if launch.stdin:
        argv.append("-i")
        if launch.tty or not launch.stdin_once:
            argv.append("--leave-stdin-open")
    return argv


@dataclass(frozen=True, slots=True)
class Spawned:
    """A monitor on its way: the process that forks it, and the pipe on which it answers."""

    process: subprocess.Popen[bytes]
    answers: int


def spawn(argv: Sequence[str], bundle: Path) -> Spawned:
    """Start a monitor. Blocking, about half a millisecond: the daemon's memory is not copied (vfork)."""
    answers, ours = os.pipe()
    try:
        os.set_inheritable(ours, True)
        environment = ENVIRONMENT | {"_OCI_SYNCPIPE": str(ours)}
        with open(bundle / MONITOR_LOG, "wb") as errors:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                cwd=bundle,
                env=environment,
                pass_fds=(ours,),
                start_new_session=True,
            )
    except BaseException:
        os.close(answers)
        raise
    finally:
        os.close(ours)
    os.set_blocking(answers, False)
    return Spawned(process, answers)


async def created(spawned: Spawned, bundle: Path) -> int:
    """Wait for the monitor's answer: the container's PID.

    Raises:
        CreateFailed: the runtime's own words.
        DeadlineExceeded: no answer in time.
        EngineError: the monitor itself failed.
    """
    try:
        async with asyncio.timeout(CREATE_DEADLINE):
            line = await _line(spawned.answers)
    except TimeoutError:
        raise DeadlineExceeded(f"the monitor did not create the container within {CREATE_DEADLINE:g} s") from None
    finally:
        os.close(spawned.answers)
        if spawned.process.poll() is None:
            asyncio.get_running_loop().run_in_executor(None, spawned.process.wait)
    if not line:
        words = (bundle / MONITOR_LOG).read_text(errors="replace").strip()
        raise EngineError(f"the container's monitor failed: {words[-1000:] or 'it gave no reason'}")
    answer = json.loads(line)
    pid = int(answer["data"])
    if pid <= 0:
        raise CreateFailed(str(answer.get("message", "")))
    return pid


async def _line(descriptor: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while not data.endswith(b"\n") and len(data) < MESSAGE_LIMIT:
        readable: asyncio.Future[None] = loop.create_future()
        loop.add_reader(descriptor, _set, readable)
        try:
            await readable
        finally:
            loop.remove_reader(descriptor)
        piece = os.read(descriptor, MESSAGE_LIMIT)
        if not piece:
            break
        data += piece
    return data


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def read_pid(path: Path) -> int:
    """The number in a PID file; 0 when there is none."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def is_monitor(pid: int, container_id: str) -> bool:
    """That process is the monitor of this container, and no later one with the same PID."""
    if pid <= 0:
        return False
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return container_id.encode() in arguments and b"--exit-dir" in arguments


def parent_of(pid: int) -> int:
    """PID of the parent; 0 when the process is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[1])


def set_size(bundle: Path, height: int, width: int) -> None:
    """Tell the monitor the terminal's size. Raises OSError when it is gone."""
    descriptor = os.open(bundle / CONTROL, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(descriptor, b"1 %d %d\n" % (height, width))
    finally:
        os.close(descriptor)

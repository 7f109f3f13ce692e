"""Further processes in a container: the runtime's own `exec`, whose streams the engine holds itself.

Measured here, a process of `true`: 3.5 ms by the runtime directly, 5.9 ms through a monitor of its own. As with dockerd,
what ran attached loses its client with the daemon.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
import socket
import struct
import subprocess
import termios
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson

from plugin_sdk import DeadlineExceeded
from plugin_sdk.runtime import STDERR, STDOUT
from plugins.runtime_oci.binary import ENVIRONMENT
from plugins.runtime_oci.output import Chunk, Input, Output
from plugins.runtime_oci.terminal import TerminalSocket
from plugins.runtime_oci.watch import FileWatch

log = logging.getLogger("engine.runtime_oci")

START_DEADLINE = 60.0
LINGER = 2.0
"""Seconds for which output of children that outlive the process is still waited for; dockerd's figure."""
PIECE = 64 << 10


class ExecFailed(Exception):
    """The runtime could not start the process; the text is its own."""


class Process:
    """Fulfils `ExecProcess`."""

    def __init__(
        self,
        runtime: subprocess.Popen[bytes],
        output: Output,
        input: Input | None,
        tty: int,
        *,
        follows_size: bool = False,
    ) -> None:
        self.pid = 0
        self._follows_size = follows_size
        self._runtime = runtime
        self._output = output
        self._input = input
        self._tty = tty
        self._descriptors: list[int] = []
        self._stdin = -1
        self._lingering: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._pidfd = os.pidfd_open(runtime.pid)
        self.ended: asyncio.Future[int] = self._loop.create_future()
        self._loop.add_reader(self._pidfd, self._reap)

    def own(self, *descriptors: int, stdin: int = -1) -> None:
        """Descriptors to close at the end."""
        self._descriptors += descriptors
        self._stdin = stdin

    def _reap(self) -> None:
        code = self._runtime.poll()
        if code is None:
            return
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.ended.set_result(code if code >= 0 else 128 - code)
        self._end_input()
        self._lingering = self._loop.call_later(LINGER, self._end_output)
        if self._output.finished:
            self._end_output()

    def _end_output(self) -> None:
        if self._output.full:
            # The client reads slowly: what is still in the pipe is its own.
            self._lingering = self._loop.call_later(LINGER, self._end_output)
            return
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        self._output.finish()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()
        self._tty = -1

    def _end_input(self) -> None:
        if self._input is not None:
            self._input.close()
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1

    def attach_terminal(self, tty: int) -> None:
        """The terminal is input and output."""
        self._tty = tty
        self._descriptors.append(tty)
        self._input = Input(tty, lambda data: os.write(tty, data), PIECE)
        self._output.watch(tty, _receiver(tty, STDOUT))

    async def read(self) -> Chunk | None:
        """See `ProcessIO`."""
        chunk = await self._output.read()
        if chunk is None and self.ended.done():
            self._end_output()
        return chunk

    async def write(self, data: bytes) -> None:
        """See `ProcessIO`."""
        if self._input is not None:
            await self._input.write(data)

    async def close_stdin(self) -> None:
        """See `ProcessIO`; a terminal has no end of input."""
        if self._input is not None and self._tty < 0:
            await self._input.drained()
            self._end_input()

    async def close(self) -> None:
        """See `ProcessIO`. Its output is read on and dropped, so that the process is not held up."""
        self._output.discard()

    async def wait(self) -> int:
        """See `ExecProcess`."""
        return await asyncio.shield(self.ended)

    async def resize(self, height: int, width: int) -> None:
        """See `ExecProcess`."""
        if self._tty >= 0:
            set_size(self._tty, height, width)
            if self._follows_size:
                # Ours is not the runtime's controlling terminal, so the kernel does not tell it.
                self._runtime.send_signal(signal.SIGWINCH)

    def kill(self) -> None:
        """End the runtime, and with it a process that it has not started yet."""
        if not self.ended.done():
            if self.pid:
                _signal(self.pid)
            _signal(self._runtime.pid)


def _signal(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def set_size(tty: int, height: int, width: int) -> None:
    """TIOCSWINSZ."""
    fcntl.ioctl(tty, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


class ExecLauncher:
    """Starts processes.

    Args:
        folder: for files of a moment, under the exec root.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pids = FileWatch(folder)
        self._folder_descriptor = -1

    def open(self) -> None:
        """Get ready, from the running event loop. What a daemon that was killed has left of its starts goes."""
        self._pids.open()
        for left in self.folder.iterdir():
            left.unlink(missing_ok=True)
        self._folder_descriptor = os.open(self.folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Let go; the processes go on."""
        self._pids.close()
        if self._folder_descriptor >= 0:
            os.close(self._folder_descriptor)
            self._folder_descriptor = -1

    async def launch(
        self,
        argv: Sequence[str],
        container_id: str,
        exec_id: str,
        process: dict[str, Any],
        *,
        stdin: bool,
        sends_terminal: bool,
    ) -> Process:
        """Start a process.

        Args:
            argv: the runtime and its global options.
            process: the OCI spec's process.
            stdin: keep an input open for the client.
            sends_terminal: the runtime gives a terminal away on a socket; others stay between it and theirs.

        Raises:
            ExecFailed: the runtime refused.
            DeadlineExceeded: it did not answer.
        """
        document = self.folder / f"{exec_id}.json"
        document.write_bytes(orjson.dumps(process))
        command = [*argv, "exec", "--process", str(document), "--pid-file", str(self.folder / exec_id)]
        tty = bool(process["terminal"])
        try:
            if tty and sends_terminal:
                return await self._with_tty(command, container_id, exec_id)
            if tty:
                return await self._behind_tty([*command, container_id], exec_id, process.get("consoleSize", {}))
            return await self._with_pipes(command, container_id, exec_id, stdin=stdin)
        finally:
            document.unlink(missing_ok=True)
            self._pids.remove(exec_id)

    async def _with_pipes(self, command: list[str], container_id: str, exec_id: str, *, stdin: bool) -> Process:
        pairs = [os.pipe() for _ in range(3 if stdin else 2)]
        (out, out_inside), (err, err_inside) = pairs[0], pairs[1]
        inside, ours = (pairs[2][0], pairs[2][1]) if stdin else (subprocess.DEVNULL, -1)
        try:
            runtime = _spawn([*command, container_id], inside, out_inside, err_inside)
        except BaseException:
            for descriptor in (out, err, *([ours] if stdin else [])):
                os.close(descriptor)
            raise
        finally:
            for descriptor in (out_inside, err_inside, *([inside] if stdin else [])):
                os.close(descriptor)
        output = Output()
        input = None
        if stdin:
            os.set_blocking(ours, False)
            input = Input(ours, lambda data: os.write(ours, data), PIECE)
        made = Process(runtime, output, input, -1)
        made.own(out, err, stdin=ours)
        for descriptor, stream in ((out, STDOUT), (err, STDERR)):
            os.set_blocking(descriptor, False)
            output.watch(descriptor, _receiver(descriptor, stream))
        await self._started(made, exec_id)
        return made

    async def _with_tty(self, command: list[str], container_id: str, exec_id: str) -> Process:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        name = f"{exec_id[:16]}.tty"
        try:
            # The real path may be longer than the 108 bytes that an address holds.
            address = f"/proc/{os.getpid()}/fd/{self._folder_descriptor}/{name}"
            listener.bind(address)
            listener.listen(1)
            err, err_inside = os.pipe()
            try:
                runtime = _spawn(
                    [*command, "--console-socket", address, container_id],
                    subprocess.DEVNULL,
                    subprocess.DEVNULL,
                    err_inside,
                )
            except BaseException:
                os.close(err)
                raise
            finally:
                os.close(err_inside)
            os.set_blocking(err, False)
            output = Output()
            made = Process(runtime, output, None, -1)
            made.own(err)
            output.watch(err, _receiver(err, STDERR))
            sent = TerminalSocket(listener)
            try:
                await self._either(sent.arrived, made, sent.take)
            except BaseException:
                made.kill()
                sent.refuse()
                raise
            finally:
                sent.close()
            tty = sent.arrived.result()
        finally:
            listener.close()
            (self.folder / name).unlink(missing_ok=True)
        os.set_blocking(tty, False)
        made.attach_terminal(tty)
        await self._started(made, exec_id)
        return made

    async def _behind_tty(self, command: list[str], exec_id: str, size: dict[str, int]) -> Process:
        """The runtime copies between the process's terminal and one of ours, whose size it follows."""
        tty, tty_inside = os.openpty()
        err, err_inside = os.pipe()
        try:
            set_size(tty, size.get("height", 0), size.get("width", 0))
            runtime = _spawn(command, tty_inside, tty_inside, err_inside)
        except BaseException:
            os.close(tty)
            os.close(err)
            raise
        finally:
            os.close(tty_inside)
            os.close(err_inside)
        os.set_blocking(err, False)
        os.set_blocking(tty, False)
        output = Output()
        made = Process(runtime, output, None, -1, follows_size=True)
        made.own(err)
        output.watch(err, _receiver(err, STDERR))
        made.attach_terminal(tty)
        await self._started(made, exec_id)
        return made

    async def _started(self, made: Process, exec_id: str) -> None:
        """Until the runtime has written the PID: the process runs, whatever comes of it."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pids.expect(exec_id, lambda: None if written.done() else written.set_result(None))
        try:
            await self._either(written, made, lambda: self._pids.read(exec_id) is not None)
        except BaseException:
            made.kill()
            raise
        finally:
            self._pids.forget(exec_id)
        found = self._pids.read(exec_id)
        made.pid = found[0] if found else 0

    async def _either(self, wanted: asyncio.Future[Any], made: Process, late: Callable[[], bool] = bool) -> None:
        """Wait for `wanted`. Raises ExecFailed when the runtime ends before it, unless `late` says that it came after all."""
        try:
            await asyncio.wait([wanted, made.ended], timeout=START_DEADLINE, return_when=asyncio.FIRST_COMPLETED)
            if wanted.done() or (made.ended.done() and late()):
                return
            if made.ended.done():
                raise ExecFailed(await _words(made))
            raise DeadlineExceeded(f"the runtime did not start the process within {START_DEADLINE:g} s")
        finally:
            wanted.cancel()


async def _words(made: Process) -> str:
    """All that a failed runtime has said."""
    text = b""
    try:
        async with asyncio.timeout(LINGER):
            while (chunk := await made.read()) is not None and len(text) < PIECE:
                text += chunk[1]
    except TimeoutError:
        log.debug("a failed runtime keeps its streams open")
    return text.decode(errors="replace")


def _spawn(argv: Sequence[str], stdin: int, stdout: int, stderr: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=stderr, env=ENVIRONMENT, start_new_session=True)


def _receiver(descriptor: int, stream: int) -> Callable[[], Chunk | None]:
    def receive() -> Chunk | None:
        data = os.read(descriptor, PIECE)
        return (stream, data) if data else None

    return receive

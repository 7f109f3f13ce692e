"""Further processes in running containers.

An exec lives in memory only: its process belongs to a container, and what is known of it is of use to the client that
made it. It is forgotten `KEPT` seconds after its end; one that never starts, `UNSTARTED` seconds after it was made, or
with the end of its container.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import signal
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from plugin_sdk import Conflict, DeadlineExceeded, EngineError, InvalidParameter, NotFound
from plugin_sdk.containers import ContainerRecord, ContainerStatus, ExecSpec
from plugin_sdk.runtime import STDOUT, ExecProcess
from plugin_sdk.stdcopy import frame
from plugin_sdk.text import new_id

from .streams import HEAD_START, Conversation, Ending, OpenClient, Wanted, finish, parse_detach_keys

if TYPE_CHECKING:
    from .service import ContainerService

KEPT = 300.0
"""Seconds that a finished exec can still be inspected."""
UNSTARTED = 3600.0
"""Seconds that an exec may wait for its start."""
OUTPUT_LIMIT = 64 << 10
"""Bytes of output that `run` gives back."""
SWEEP = 60.0
"""Seconds between two looks for execs to forget."""
RESIZE_DEADLINE = 10.0
"""Seconds that a resize waits for the process."""

CANNOT_RUN = 126
NOT_FOUND = 127

log = logging.getLogger("engine.containers.execs")


@dataclass(slots=True)
class Exec:
    """One exec.

    Attributes:
        streams: what its client wants to be attached to.
        keys: bytes of the detach keys; `detach_keys` as the client wrote them, "" for the default.
        started: a client has started it; it may not be started again.
        ready: set when the process runs, or never will.
        exit_code: None until it has ended.
        reaped: done when its end is known; its output may still be on its way.
    """

    id: str
    container_id: str
    spec: ExecSpec
    streams: Wanted
    detach_keys: str = ""
    keys: bytes = b""
    started: bool = False
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    process: ExecProcess | None = None
    pid: int = 0
    exit_code: int | None = None
    reaped: asyncio.Future[None] | None = None

    def describe(self) -> dict[str, Any]:
        """Answer of `GET /exec/ID/json`."""
        spec = self.spec
        config: dict[str, Any] = {
            "tty": spec.tty,
            "entrypoint": spec.argv[0],
            "arguments": list(spec.argv[1:]),
            "privileged": spec.privileged,
        }
        if spec.user:
            config["user"] = spec.user
        return {
            "ID": self.id,
            "Running": self.started and self.exit_code is None,
            "ExitCode": self.exit_code,
            "ProcessConfig": config,
            "OpenStdin": self.streams.stdin,
            "OpenStderr": self.streams.stderr,
            "OpenStdout": self.streams.stdout,
            "CanRemove": False,
            "ContainerID": self.container_id,
            # Go sends bytes in base64: the keys themselves, "" where the client named none.
            "DetachKeys": base64.b64encode(self.keys).decode() if self.detach_keys else "",
            "Pid": self.pid,
        }


class Execs:
    """All execs of this engine."""

    def __init__(self, service: ContainerService) -> None:
        self._service = service
        self._execs: dict[str, Exec] = {}
        self._by_container: dict[str, dict[str, None]] = {}
        self._created: deque[tuple[float, str]] = deque()
        self._finished: deque[tuple[float, str]] = deque()
        self._sweeper: asyncio.TimerHandle | None = None

    def get(self, exec_id: str) -> Exec:
        """Raises NotFound."""
        try:
            return self._execs[exec_id]
        except KeyError:
            raise NotFound(f"No such exec instance: {exec_id}") from None

    def list_for(self, container_id: str) -> list[str]:
        """IDs of a container's execs that have not ended."""
        return list(self._by_container.get(container_id, ()))

    async def create(self, ref: str, spec: ExecSpec, streams: Wanted, detach_keys: str = "") -> Exec:
        """Make one; it runs when it is started.

        Raises:
            InvalidParameter: no command, or detach keys that are none.
            NotFound, Conflict: no such container, or it does not run.
        """
        record = await self._service.ready(ref)
        _check_usable(record, ref)
        if not spec.argv:
            raise InvalidParameter("No exec command specified")
        try:
            keys = parse_detach_keys(detach_keys)
        except ValueError:
            raise InvalidParameter(f"Invalid escape keys ({detach_keys}) provided") from None
        self._service.runtime_of(record).expect()
        item = Exec(new_id(), record.Id, spec, streams, detach_keys, keys)
        self._execs[item.id] = item
        self._by_container.setdefault(record.Id, {})[item.id] = None
        self._created.append((time.monotonic() + UNSTARTED, item.id))
        self._sweep_later()
        self._emit(record, item, f"exec_create: {_shown(spec)}")
        return item

    async def start_detached(self, exec_id: str, console: tuple[int, int] = (0, 0)) -> None:
        """Start it and let it run. Raises what the runtime raises, and Conflict when it was started before."""
        item, record = await self._begin(exec_id, console)
        process = await self._launch(item, record)
        self._service.ctx.spawn(self._settle(item, process), name=f"exec-{item.id[:12]}")

    async def start(
        self, exec_id: str, open_client: OpenClient, *, framed: bool, console: tuple[int, int] = (0, 0)
    ) -> None:
        """Start it and talk with its client; a failure to start is told to the client on the stream.

        The process goes on when the client leaves. Raises Conflict when it was started before.
        """
        item, record = await self._begin(exec_id, console)
        work = self._service.ctx.spawn(self._serve(item, record, open_client, framed), name=f"exec-{item.id[:12]}")
        # The process outlives its client, and so does the work of waiting for it.
        await asyncio.shield(work)

    async def resize(self, exec_id: str, height: int, width: int) -> None:
        """Set the terminal's size, once the process runs."""
        item = self.get(exec_id)
        try:
            async with asyncio.timeout(RESIZE_DEADLINE):
                await item.ready.wait()
        except TimeoutError:
            raise DeadlineExceeded("timeout waiting for exec session ready") from None
        if item.process is None or item.exit_code is not None:
            raise Conflict(f"exec {exec_id} is not running")
        await item.process.resize(height, width)

    async def run(self, record: ContainerRecord, spec: ExecSpec, timeout: float | None = None) -> tuple[int, bytes]:
        """Run to the end; gives exit code and output, both streams as they came, OUTPUT_LIMIT bytes at most.

        Raises DeadlineExceeded after `timeout` seconds; the process is killed then.
        """
        created = await self.create(record.Id, spec, Wanted(stdout=True, stderr=True))
        item, record = await self._begin(created.id)
        process = await self._launch(item, record)
        output = bytearray()
        try:
            async with asyncio.timeout(timeout):
                while (chunk := await process.read()) is not None:
                    output += chunk[1][: OUTPUT_LIMIT - len(output)]
        except TimeoutError:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            self._service.ctx.spawn(self._settle(item, process), name=f"exec-{item.id[:12]}")
            raise DeadlineExceeded(f"{spec.argv[0]} did not end within {timeout:g} s and was killed") from None
        except BaseException:
            self._service.ctx.spawn(self._settle(item, process), name=f"exec-{item.id[:12]}")
            raise
        await self._reaped(item)
        await process.close()
        return item.exit_code or 0, bytes(output)

    async def ended(self, container_id: str) -> None:
        """The container has ended: execs that never started are forgotten, the others will end by themselves."""
        for exec_id in self.list_for(container_id):
            if not self._execs[exec_id].started:
                self._drop(self._execs.pop(exec_id))

    async def _begin(self, exec_id: str, console: tuple[int, int] = (0, 0)) -> tuple[Exec, ContainerRecord]:
        item = self.get(exec_id)
        record = await self._service.ready(item.container_id)
        _check_usable(record, record.Id)
        if item.exit_code is not None:
            raise Conflict(f"Error: Exec command {item.id} has already run")
        if item.started:
            raise Conflict(f"Error: Exec command {item.id} is already running")
        item.started = True
        if item.spec.tty and any(console):
            item.spec = replace(item.spec, console=console)
        self._emit(record, item, f"exec_start: {_shown(item.spec)}")
        return item, record

    async def _launch(self, item: Exec, record: ContainerRecord) -> ExecProcess:
        try:
            process = await self._service.runtime_of(record).exec(record.Id, item.id, item.spec, record)
        except BaseException as error:
            item.exit_code = exit_code_of(str(error))
            item.ready.set()
            self._drop(item)
            raise
        item.process, item.pid = process, process.pid
        item.reaped = self._service.ctx.spawn(self._reap(item, record, process), name=f"exec-end-{item.id[:12]}")
        item.ready.set()
        return process

    async def _reap(self, item: Exec, record: ContainerRecord, process: ExecProcess) -> None:
        """The end is told when it comes, however slowly the client reads what was written before it."""
        self._end(item, record, await process.wait())

    @staticmethod
    async def _reaped(item: Exec) -> None:
        if item.reaped is not None:
            await asyncio.shield(item.reaped)

    async def _serve(self, item: Exec, record: ContainerRecord, open_client: OpenClient, framed: bool) -> None:
        try:
            client = await open_client()
        except OSError:
            item.exit_code = CANNOT_RUN
            self._drop(item)
            return
        try:
            process = await self._launch(item, record)
        except EngineError as error:
            text = f"{error}\r\n".encode()
            await asyncio.sleep(HEAD_START)
            try:
                await client.write(frame(STDOUT, text) if framed else text)
            except OSError:
                log.debug("exec %s: its client is gone", item.id)
            await finish(client)
            return
        ending = Ending.GONE
        try:
            if item.streams:
                ending = await Conversation(
                    process,
                    client,
                    item.streams,
                    framed=framed,
                    keys=item.keys if item.spec.tty else None,
                    close_stdin=not item.spec.tty,
                ).run()
            if ending is Ending.DETACHED:
                self._emit(record, item, "exec_detach")
            if ending is Ending.OUTPUT:
                # Before the stream ends: the client asks for the exit code right after it.
                await self._reaped(item)
        finally:
            await finish(client)
            await self._settle(item, process)

    async def _settle(self, item: Exec, process: ExecProcess) -> None:
        """Leave the process to itself until it ends."""
        try:
            if item.streams.stdin and item.exit_code is None:
                await process.close_stdin()
        finally:
            await process.close()
        await self._reaped(item)

    def _end(self, item: Exec, record: ContainerRecord, code: int) -> None:
        item.exit_code = code
        item.process = None
        self._emit(record, item, "exec_die", exitCode=str(code))
        self._drop(item)

    def _emit(self, record: ContainerRecord, item: Exec, action: str, **attributes: str) -> None:
        self._service.emit(record, action, execID=item.id, **attributes)

    def _drop(self, item: Exec) -> None:
        """Off its container's list, and forgotten after KEPT seconds."""
        siblings = self._by_container.get(item.container_id)
        if siblings is not None:
            siblings.pop(item.id, None)
            if not siblings:
                del self._by_container[item.container_id]
        if item.id in self._execs:
            self._finished.append((time.monotonic() + KEPT, item.id))
            self._sweep_later()

    def _sweep_later(self) -> None:
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(SWEEP, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        now = time.monotonic()
        for queue in (self._created, self._finished):
            while queue and queue[0][0] <= now:
                item = self._execs.get(queue.popleft()[1])
                if item is not None and (queue is self._finished or not item.started):
                    del self._execs[item.id]
                    self._drop(item)
        if self._execs:
            self._sweep_later()


def _shown(spec: ExecSpec) -> str:
    """The command as events have it: a blank follows a program without arguments, as from dockerd."""
    return f"{spec.argv[0]} {' '.join(spec.argv[1:])}"


def _check_usable(record: ContainerRecord, called: str) -> None:
    match record.State.Status:
        case ContainerStatus.RUNNING:
            return
        case ContainerStatus.PAUSED:
            raise Conflict(f"Container {called} is paused, unpause the container before exec")
        case ContainerStatus.RESTARTING:
            raise Conflict(f"Container {record.Id} is restarting, wait until the container is running")
    raise Conflict(f"container {record.Id} is not running")


def exit_code_of(message: str) -> int:
    """127 for a command that does not exist, 126 for one that cannot run, as shells have it."""
    text = message.lower()
    missing = ("executable file not found", "no such file or directory")
    return NOT_FOUND if any(words in text for words in missing) else CANNOT_RUN

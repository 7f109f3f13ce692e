"""A client's conversation with a process: attach, and what attach and exec share.

How a slow client is treated. Output waits in memory, `LIMIT` bytes for each client; when they are full, the process is no
longer read from, so it waits as it would for a full pipe. That wait has an end: a client that takes nothing for its
`patience` is cut off, and the container goes on (its log has all of the output). Who attached before the container
started (`docker run`) gets `PATIENT`, like the reader of a pipe; who joined a running container gets `IMPATIENT`,
so that a forgotten terminal does not stop somebody's service. An exec belongs to its client alone, which may be as slow
as it likes.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from plugin_sdk import Conflict, EngineError, InvalidParameter
from plugin_sdk.api import RawStream
from plugin_sdk.containers import ContainerRecord, ContainerStatus
from plugin_sdk.logs import LogEntry, LogQuery, Logs
from plugin_sdk.runtime import STDERR, STDOUT, ProcessIO
from plugin_sdk.stdcopy import frame

if TYPE_CHECKING:
    from .service import ContainerService

LIMIT = 1 << 20
"""Bytes of output that wait for one client."""
PIECE = 256 << 10
"""Bytes that are sent in one go; a client's patience is measured on them."""
PATIENT = 600.0
IMPATIENT = 30.0
END_DEADLINE = 30.0
"""Seconds that the last bytes may take once the process has ended."""

DEFAULT_DETACH_KEYS = b"\x10\x11"
"""ctrl-p, ctrl-q."""

_CONTROL = {f"ctrl-{letter}": code for code, letter in enumerate("@abcdefghijklmnopqrstuvwxyz[\\]^_")} | {"DEL": 127}
_HEADER = struct.Struct(">BxxxI")

log = logging.getLogger("engine.containers.streams")

OpenClient = Callable[[], Awaitable[RawStream]]
"""Takes the client's connection over; called when nothing can be refused any more."""


class Ending(Enum):
    """Why a conversation is over."""

    OUTPUT = "the process has ended its output"
    INPUT = "the client has ended its input"
    DETACHED = "the client has typed the detach keys"
    GONE = "the client is gone"
    STALLED = "the client has taken nothing for too long"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The streams that a client asked for."""

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False

    @property
    def output(self) -> Collection[int]:
        """STDOUT, STDERR, both or none."""
        return {stream for stream, on in ((STDOUT, self.stdout), (STDERR, self.stderr)) if on}

    def __bool__(self) -> bool:
        return self.stdin or self.stdout or self.stderr


def parse_detach_keys(text: str) -> bytes:
    """The bytes of a sequence such as "ctrl-p,ctrl-q" or "ctrl-a,a"; "" gives the default.

    Raises:
        ValueError: a key that is neither one character nor ctrl- with one of a-z @ [ \\ ] ^ _.
    """
    if not text:
        return DEFAULT_DETACH_KEYS
    codes = bytearray()
    for key in text.split(","):
        if len(key.encode()) == 1:
            codes += key.encode()
        elif key in _CONTROL:
            codes.append(_CONTROL[key])
        else:
            raise ValueError(f"unknown key {key!r}")
    return bytes(codes)


class DetachScanner:
    """Looks for the detach keys in what a terminal sends."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What may go on to the process, and whether the keys have come.

        The beginning of a sequence is held back until it is clear what follows; what comes after it is dropped.
        """
        if not self._held and self._keys[0] not in data:
            return data, False
        text = self._held + data
        self._held = b""
        before, found, _ = text.partition(self._keys)
        if found:
            return before, True
        for size in range(min(len(self._keys) - 1, len(text)), 0, -1):
            if text.endswith(self._keys[:size]):
                self._held = text[-size:]
                return text[:-size], False
        return text, False


def pieces(chunks: Iterable[tuple[int, bytes]], framed: bool) -> Iterator[bytes]:
    """Chunks of output joined to pieces of about PIECE bytes, with frame headers if `framed`.

    Neighbours of the same stream share a frame.
    """
    batch: list[tuple[int, bytes]] = []
    size = 0
    for chunk in chunks:
        batch.append(chunk)
        size += len(chunk[1])
        if size >= PIECE:
            yield _join(batch, framed)
            batch, size = [], 0
    if batch:
        yield _join(batch, framed)


def _join(batch: Sequence[tuple[int, bytes]], framed: bool) -> bytes:
    if not framed:
        return b"".join([data for _, data in batch])
    parts: list[bytes] = []
    for stream, group in groupby(batch, key=itemgetter(0)):
        payload = [data for _, data in group]
        parts.append(_HEADER.pack(stream, sum(map(len, payload))))
        parts += payload
    return b"".join(parts)


class Conversation:
    """One client and one process, until either has had enough.

    Args:
        io: the process; left open.
        client: left open.
        framed: output carries stdcopy frames.
        keys: detach keys, None to look for none (only a terminal's user can type them).
        close_stdin: the end of the client's input is the end of the process's; otherwise it ends the conversation.
        patience: seconds that the client may take nothing while output waits; None: any time.
    """

    def __init__(
        self,
        io: ProcessIO,
        client: RawStream,
        wanted: Wanted,
        *,
        framed: bool,
        keys: bytes | None = None,
        close_stdin: bool = False,
        patience: float | None = None,
    ) -> None:
        self._io = io
        self._client = client
        self._wanted = wanted
        self._framed = framed
        self._scanner = DetachScanner(keys) if keys else None
        self._close_stdin = close_stdin
        self._patience = patience
        self._chunks: list[tuple[int, bytes]] = []
        self._size = 0
        self._ended = False
        self._more = asyncio.Event()
        self._room = asyncio.Event()

    async def run(self) -> Ending:
        """Talk; when it returns, nothing of this conversation runs any more."""
        reading = asyncio.ensure_future(self._read_output())
        tasks = [asyncio.ensure_future(self._send_output()), asyncio.ensure_future(self._watch())]
        if self._wanted.stdin:
            tasks.append(asyncio.ensure_future(self._read_input()))
        try:
            done, _ = await asyncio.wait([*tasks, reading], return_when=asyncio.FIRST_COMPLETED)
            if reading in done:
                reading.result()
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next(task.result() for task in tasks if task in done)
        finally:
            for task in (*tasks, reading):
                task.cancel()
            await asyncio.gather(*tasks, reading, return_exceptions=True)

    async def _read_output(self) -> None:
        wanted = self._wanted.output
        try:
            while (item := await self._io.read()) is not None:
                if item[0] not in wanted:
                    continue
                self._chunks.append(item)
                self._size += len(item[1])
                self._more.set()
                if self._size >= LIMIT:
                    self._room.clear()
                    await self._room.wait()
        except (OSError, EngineError) as error:
            log.warning("output of a process broke off: %s", error)
        self._ended = True
        self._more.set()

    async def _send_output(self) -> Ending:
        while True:
            while not self._chunks:
                if self._ended:
                    return Ending.OUTPUT
                self._more.clear()
                await self._more.wait()
            chunks, self._chunks, self._size = self._chunks, [], 0
            self._room.set()
            try:
                for piece in pieces(chunks, self._framed):
                    async with asyncio.timeout(self._patience):
                        await self._client.write(piece)
            except TimeoutError:
                return Ending.STALLED
            except OSError:
                return Ending.GONE

    async def _read_input(self) -> Ending:
        try:
            while data := await self._client.read():
                found = False
                if self._scanner:
                    data, found = self._scanner.feed(data)
                if data:
                    await self._io.write(data)
                if found:
                    return Ending.DETACHED
        except OSError:
            return Ending.GONE
        if self._close_stdin:
            await self._io.close_stdin()
            await asyncio.get_running_loop().create_future()
        return Ending.INPUT

    async def _watch(self) -> Ending:
        await self._client.gone()
        return Ending.GONE


async def finish(client: RawStream) -> None:
    """Send what is left and close, within END_DEADLINE; a client that is gone is fine."""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(END_DEADLINE):
            await client.end()


@dataclass(frozen=True, slots=True)
class AttachRequest:
    """Query of `POST /containers/ID/attach`.

    Attributes:
        stream: go on with what is written from now on.
        logs: first what was written until now.
        framed: send frames unless the container has a terminal.
    """

    wanted: Wanted
    stream: bool = False
    logs: bool = False
    detach_keys: str = ""
    framed: bool = True


class Attachment:
    """One attach, from its checks to its end.

    Raises (from the constructor):
        InvalidParameter: detach keys that are none.
        Conflict: the container's state allows none; a container that has not started is waited for.
    """

    def __init__(self, service: ContainerService, record: ContainerRecord, request: AttachRequest) -> None:
        try:
            self._keys = parse_detach_keys(request.detach_keys)
        except ValueError:
            raise InvalidParameter(f"Invalid detach keys ({request.detach_keys}) provided") from None
        _refuse(record)
        self._service = service
        self._record = record
        self._request = request
        self._framed = request.framed and not record.Config.Tty

    @property
    def multiplexed(self) -> bool:
        """Output carries frames."""
        return self._framed

    async def serve(self, open_client: OpenClient) -> None:
        """Talk with the client until either end has had enough."""
        service, record, request = self._service, self._record, self._request
        backlog = self._backlog() if request.logs else None
        first = await anext(backlog, None) if backlog else None
        waiting: asyncio.Future[ProcessIO] | None = None
        client: RawStream | None = None
        try:
            if request.stream and not record.State.running:
                # Asked for before the client is answered: what it does next, `start`, must find it waiting.
                waiting = asyncio.ensure_future(self._connect())
                await asyncio.sleep(0)
            client = await open_client()
            service.emit(record, "attach")
            while backlog and first is not None:
                await client.write(first)
                first = await anext(backlog, None)
            if request.stream:
                waiting = waiting or asyncio.ensure_future(self._connect())
                if await _before_gone(waiting, client):
                    await self._talk(client, waiting.result())
        except OSError:
            log.debug("the client of an attach to %s is gone", record.Id)
        except EngineError as error:
            if client is None:
                raise
            # Who starts the container is told why it did not start; here there is only nothing to show.
            log.debug("attach to %s: %s", record.Id, error)
        finally:
            if backlog:
                await backlog.aclose()
            if waiting is not None:
                await _let_go(waiting)
            if client is not None:
                await finish(client)

    async def _connect(self) -> ProcessIO:
        return await self._service.attach_point(self._record.Id).attach()

    async def _talk(self, client: RawStream, io: ProcessIO) -> None:
        record, wanted = self._record, self._request.wanted
        once = record.Config.StdinOnce and not record.Config.Tty
        ending = await Conversation(
            io,
            client,
            Wanted(wanted.stdin and record.Config.OpenStdin, wanted.stdout, wanted.stderr),
            framed=self._framed,
            keys=self._keys if record.Config.Tty else None,
            close_stdin=once,
            patience=IMPATIENT if record.State.running else PATIENT,
        ).run()
        if wanted.stdin and once and ending is not Ending.OUTPUT:
            await io.close_stdin()
        if ending is Ending.STALLED:
            log.warning("container %s: an attached client was cut off: %s", record.Id[:12], ending.value)
        if ending is Ending.DETACHED:
            self._service.emit(record, "detach")

    async def _backlog(self) -> AsyncGenerator[bytes, None]:
        logs = self._service.ctx.find(Logs)
        if logs is None:
            return
        wanted = self._request.wanted
        query = LogQuery(stdout=wanted.stdout, stderr=wanted.stderr)
        async for entries in logs.read(self._record, query):
            yield b"".join(self._render(entry) for entry in entries)

    def _render(self, entry: LogEntry) -> bytes:
        text = entry.line if entry.partial else entry.line + b"\n"
        return frame(entry.stream, text) if self._framed else text


async def _before_gone(waiting: asyncio.Future[ProcessIO], client: RawStream) -> bool:
    """Wait for the streams; False: the client went away first."""
    gone = asyncio.ensure_future(client.gone())
    try:
        await asyncio.wait((waiting, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
    return waiting.done()


async def _let_go(waiting: asyncio.Future[ProcessIO]) -> None:
    """Wait no longer for streams, and close them if they have come."""
    waiting.cancel()
    (io,) = await asyncio.gather(waiting, return_exceptions=True)
    if not isinstance(io, BaseException):
        await io.close()


def _refuse(record: ContainerRecord) -> None:
    name = record.Name
    match record.State.Status:
        case ContainerStatus.PAUSED:
            raise Conflict(f"container {name} is paused, unpause the container before attach")
        case ContainerStatus.RESTARTING:
            raise Conflict(f"container {name} is restarting, wait until the container is running")
        case ContainerStatus.REMOVING | ContainerStatus.DEAD:
            raise Conflict(f"container {name} is being removed: there is nothing to attach to")

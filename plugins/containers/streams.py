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
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from plugin_sdk import EngineError
from plugin_sdk.api import RawStream
from plugin_sdk.runtime import STDERR, STDOUT, ProcessIO

if TYPE_CHECKING:
    pass

LIMIT = 1 << 20
"""Bytes of output that wait for one client."""
PIECE = 256 << 10
"""Bytes that are sent in one go; a client's patience is measured on them."""
PATIENT = 600.0
IMPATIENT = 30.0
END_DEADLINE = 30.0
"""Seconds that the last bytes may take once the process has ended."""
HEAD_START = 0.02
"""Seconds from the head of an answer to output that is there already: docker-py loses what comes with the head."""

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

"""Attach: a client and the streams of a container's first process, running now or started next."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from plugin_sdk import Conflict, EngineError, InvalidParameter
from plugin_sdk.api import RawStream
from plugin_sdk.containers import ContainerRecord, ContainerStatus
from plugin_sdk.logs import LogEntry, LogQuery, Logs
from plugin_sdk.runtime import ProcessIO
from plugin_sdk.stdcopy import frame

from .streams import HEAD_START, IMPATIENT, PATIENT, Conversation, Ending, OpenClient, Wanted, finish, parse_detach_keys

if TYPE_CHECKING:
    from .service import ContainerService

log = logging.getLogger("engine.containers.attach")


@dataclass(frozen=True, slots=True)
class AttachRequest:
    """Query of `POST /containers/ID/attach`.

    Attributes:
        stream: go on with what is written from now on; without a stream to carry, the end comes at once.
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
            streams = request.stream and bool(request.wanted)
            if streams and not record.State.running:
                # Asked for before the client is answered: what it does next, `start`, must find it waiting.
                waiting = asyncio.ensure_future(self._connect())
                await asyncio.sleep(0)
            client = await open_client()
            service.emit(record, "attach")
            if backlog and first is not None:
                await asyncio.sleep(HEAD_START)
                # Read anew: what was written meanwhile belongs to it, and the stream begins where it ends.
                await backlog.aclose()
                backlog = self._backlog()
                first = await anext(backlog, None)
            while backlog and first is not None:
                await client.write(first)
                first = await anext(backlog, None)
            if streams:
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

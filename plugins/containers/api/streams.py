"""Routes that talk with a container's processes: attach, resize, top."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, WebSocket
from fastapi.responses import Response

from plugin_sdk import Conflict, InvalidParameter
from plugin_sdk.api import RawStream
from plugin_sdk.http import Flag, Hijacked, api_version, hijack, reply

from ..attach import Attachment, AttachRequest
from ..service import ContainerService
from ..streams import Wanted
from ..top import DEFAULT_ARGS, top
from .websocket import WebSocketStream

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
MULTIPLEXED_SINCE = (1, 42)
CHOSEN_SINCE = (1, 42)
"""Before, a websocket had all streams, whatever was asked for."""
BINARY_SINCE = (1, 28)
"""Before, a websocket's output came in text messages."""
MAX_SIDE = 65535
"""What a terminal can have; the API takes any 32-bit number."""

Detach = Annotated[str, Query(alias="detachKeys")]


def content_type(request: Request, multiplexed: bool) -> str:
    """Of a hijacked answer: only clients that upgrade, and know of it, are told of frames."""
    told = "upgrade" in request.headers and api_version(request) >= MULTIPLEXED_SINCE
    return MULTIPLEXED if multiplexed and told else RAW


def terminal_size(h: str, w: str) -> tuple[int, int]:
    """(height, width) of a resize. Raises InvalidParameter, in the words of dockerd 27 and newer."""
    return _side("height", h), _side("width", w)


def _side(name: str, text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,20}", text):
        raise InvalidParameter(f'invalid resize {name} "{text}": invalid syntax')
    if not 0 <= int(text) < 1 << 32:
        raise InvalidParameter(f'invalid resize {name} "{text}": value out of range')
    return min(int(text), MAX_SIDE)


def router(service: ContainerService) -> APIRouter:
    """Attach, resize, top."""
    routes = APIRouter()

    @routes.post("/containers/{ref}/attach")
    async def attach(
        request: Request,
        ref: str,
        stream: Flag = False,
        logs: Flag = False,
        stdin: Flag = False,
        stdout: Flag = False,
        stderr: Flag = False,
        detach_keys: Detach = "",
    ) -> Response:
        asked = AttachRequest(Wanted(stdin, stdout, stderr), stream, logs, detach_keys)
        attachment = Attachment(service, await service.ready(ref), asked)

        async def open_client() -> RawStream:
            return await hijack(request, content_type(request, attachment.multiplexed))

        await attachment.serve(open_client)
        return Hijacked()

    @routes.websocket("/containers/{ref}/attach/ws")
    async def attach_websocket(
        websocket: WebSocket,
        ref: str,
        stream: Flag = False,
        logs: Flag = False,
        stdin: Flag = False,
        stdout: Flag = False,
        stderr: Flag = False,
        detach_keys: Detach = "",
    ) -> None:
        version = api_version(websocket)
        wanted = Wanted(stdin, stdout, stderr) if version >= CHOSEN_SINCE else Wanted(True, True, True)
        asked = AttachRequest(wanted, stream, logs, detach_keys, framed=False)
        attachment = Attachment(service, await service.ready(ref), asked)

        async def open_client() -> RawStream:
            await websocket.accept()
            return WebSocketStream(websocket, text=version < BINARY_SINCE)

        await attachment.serve(open_client)

    @routes.post("/containers/{ref}/resize")
    async def resize(ref: str, h: str = "", w: str = "") -> Response:
        height, width = terminal_size(h, w)
        record = await service.ready(ref)
        if not record.State.running:
            raise Conflict(f"container {record.Id} is not running")
        await service.runtime_of(record).resize(record.Id, height, width)
        service.emit(record, "resize", height=str(height), width=str(width))
        return Response()

    @routes.get("/containers/{ref}/top")
    async def processes(ref: str, ps_args: str = DEFAULT_ARGS) -> Any:
        return reply(await top(service, await service.ready(ref), ps_args))

    return routes

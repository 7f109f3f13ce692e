"""`GET /containers/{id}/logs` of the Docker Engine API."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from plugin_sdk import Conflict, InvalidParameter, PluginContext
from plugin_sdk.containers import ContainerRecord, Containers, ContainerStatus
from plugin_sdk.http import Flag, api_version
from plugin_sdk.logs import LogQuery
from plugin_sdk.times import parse_moment_ns

from .render import Renderer
from .service import LogService

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"


def make_router(ctx: PluginContext, logs: LogService) -> APIRouter:
    """The route."""
    router = APIRouter()

    @router.get("/containers/{ref}/logs")
    async def container_logs(
        request: Request,
        ref: str,
        stdout: Flag = False,
        stderr: Flag = False,
        follow: Flag = False,
        timestamps: Flag = False,
        details: Flag = False,
        since: str = "",
        until: str = "",
        tail: str = "",
    ) -> Response:
        if not stdout and not stderr:
            raise InvalidParameter("Bad parameters: you must choose at least one stream")
        container = ctx.require(Containers).get(ref)
        if container.State.Status in (ContainerStatus.DEAD, ContainerStatus.REMOVING):
            raise Conflict("can not get logs from container which is dead or marked for removal")
        query = LogQuery(
            stdout=stdout,
            stderr=stderr,
            since_ns=parse_moment_ns(since),
            until_ns=parse_moment_ns(until),
            tail=_tail(tail),
            follow=follow and container.State.running,
        )
        await logs.open(container)
        renderer = Renderer(
            framed=not container.Config.Tty,
            timestamps=timestamps,
            attributes=logs.attributes(container) if details else None,
        )
        framed = not container.Config.Tty and api_version(request) >= (1, 42)
        return StreamingResponse(_bytes(logs, container, query, renderer), media_type=MULTIPLEXED if framed else RAW)

    return router


async def _bytes(
    logs: LogService, container: ContainerRecord, query: LogQuery, renderer: Renderer
) -> AsyncGenerator[bytes, None]:
    async with aclosing(logs.converted(container, query, renderer.render)) as chunks:
        async for chunk in chunks:
            yield chunk


def _tail(text: str) -> int:
    # As dockerd: what is no number, or below zero, means all.
    return int(text) if text.isascii() and text.isdigit() else -1

"""Routes of exec."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from plugin_sdk import InvalidParameter, Wire
from plugin_sdk.api import RawStream
from plugin_sdk.containers import ExecSpec, StrList
from plugin_sdk.http import Hijacked, api_version, body, hijack, reply

from ..service import ContainerService
from ..streams import Wanted
from .streams import content_type, terminal_size

CONSOLE_SINCE = (1, 42)
"""Version of the API that knows ConsoleSize."""


class ExecCreate(Wire):
    """Body of `POST /containers/ID/exec`."""

    User: str = ""
    Privileged: bool = False
    Tty: bool = False
    ConsoleSize: list[int] = []
    AttachStdin: bool = False
    AttachStdout: bool = False
    AttachStderr: bool = False
    DetachKeys: str = ""
    Env: list[str] = []
    WorkingDir: str = ""
    Cmd: StrList = []


class ExecStart(Wire):
    """Body of `POST /exec/ID/start`."""

    Detach: bool = False
    Tty: bool = False
    ConsoleSize: list[int] = []


def console_size(request: Request, asked: ExecCreate | ExecStart) -> tuple[int, int]:
    """(height, width), zeros without a terminal. Raises InvalidParameter."""
    if not asked.ConsoleSize or not asked.Tty or api_version(request) < CONSOLE_SINCE:
        return (0, 0)
    if len(asked.ConsoleSize) != 2:
        raise InvalidParameter("invalid ConsoleSize: want [height, width]")
    return terminal_size(*map(str, asked.ConsoleSize))


def router(service: ContainerService) -> APIRouter:
    """Create, start, inspect, resize."""
    routes = APIRouter()
    execs = service.execs

    @routes.post("/containers/{ref}/exec")
    async def create(request: Request, ref: str) -> Response:
        asked = await body(request, ExecCreate, empty_ok=True)
        spec = ExecSpec(
            argv=asked.Cmd,
            env=asked.Env,
            user=asked.User,
            cwd=asked.WorkingDir,
            tty=asked.Tty,
            stdin=asked.AttachStdin,
            privileged=asked.Privileged,
            console=console_size(request, asked),
        )
        streams = Wanted(asked.AttachStdin, asked.AttachStdout, asked.AttachStderr)
        return reply({"Id": (await execs.create(ref, spec, streams, asked.DetachKeys)).id}, 201)

    @routes.post("/exec/{exec_id}/start")
    async def start(request: Request, exec_id: str) -> Response:
        asked = await body(request, ExecStart, empty_ok=True)
        console = console_size(request, asked)
        if asked.Detach:
            await execs.start_detached(exec_id, console)
            return Response()

        async def open_client() -> RawStream:
            return await hijack(request, content_type(request, not asked.Tty))

        await execs.start(exec_id, open_client, framed=not asked.Tty, console=console)
        return Hijacked()

    @routes.get("/exec/{exec_id}/json")
    async def inspect(exec_id: str) -> Response:
        return reply(execs.get(exec_id).describe())

    @routes.post("/exec/{exec_id}/resize")
    async def resize(exec_id: str, h: str = "", w: str = "") -> Response:
        await execs.resize(exec_id, *terminal_size(h, w))
        return Response()

    return routes

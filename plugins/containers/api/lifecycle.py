"""Routes of a container's life: create, list, inspect, start, stop, wait, update, remove."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from plugin_sdk import EngineError, InvalidParameter, NotFound
from plugin_sdk.containers import ContainerCreate, Resources, RestartRule
from plugin_sdk.http import Flag, api_version, body, reply
from plugin_sdk.images import ImageStore
from plugin_sdk.text import parse_filters

from .. import filters as known
from ..inspection import inspect
from ..listing import Listing
from ..prune import prune, remove_link

if TYPE_CHECKING:
    from ..service import ContainerService

Filters = Annotated[str, Query()]
CONDITIONS = ("not-running", "next-exit", "removed")


class UpdateRequest(Resources):
    """Body of `POST /containers/ID/update`."""

    RestartPolicy: RestartRule = RestartRule()


class WaitReply(Response):
    """Headers at once, so that a client knows that it is waited for; the exit code when there is one.

    Gives up when the client goes away.
    """

    def __init__(self, code: asyncio.Future[Any]) -> None:
        super().__init__(media_type="application/json")
        self._code = code

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        gone: asyncio.Future[Any] = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({self._code, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not self._code.done():
                self._code.cancel()
        if not self._code.cancelled():
            answer = orjson.dumps({"StatusCode": self._code.result()}) + b"\n"
            await send({"type": "http.response.body", "body": answer})


async def _gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _number(text: str | None) -> int | None:
    if text is None or text == "":
        return None
    return known.atoi(text)


def router(service: ContainerService) -> APIRouter:
    """All but streams, exec and files."""
    routes = APIRouter()
    _add_reads(routes, service)
    _add_creation(routes, service)
    _add_actions(routes, service)
    return routes


def _add_reads(routes: APIRouter, service: ContainerService) -> None:
    listing = Listing(service)

    @routes.get("/containers/json")
    async def list_containers(
        request: Request, all: Flag = False, size: Flag = False, limit: str = "", filters: Filters = ""
    ) -> Response:
        wanted = parse_filters(filters, known=known.KNOWN)
        await service.fresh()
        content = await listing.json(
            all=all, limit=_number(limit) or 0, size=size, wanted=wanted, api_version=api_version(request)
        )
        return Response(content, media_type="application/json")

    @routes.get("/containers/{ref}/json")
    async def inspect_container(request: Request, ref: str, size: Flag = False) -> Response:
        await service.fresh()
        record = service.get(ref)
        return reply(await inspect(service, record, size=size, api_version=api_version(request)))

    @routes.post("/containers/{ref}/wait")
    async def wait(ref: str, condition: str = "") -> Response:
        condition = condition or "not-running"
        if condition not in CONDITIONS:
            raise InvalidParameter(f'invalid condition: "{condition}"')
        return WaitReply(service.waiter(ref, condition))  # type: ignore[arg-type]


def _add_creation(routes: APIRouter, service: ContainerService) -> None:
    @routes.post("/containers/create")
    async def create(request: Request, name: str = "", platform: str = "") -> Response:
        asked = await body(request, ContainerCreate, strict=True)
        if asked == ContainerCreate():
            raise InvalidParameter("config cannot be empty in order to create a container")
        if platform:
            _check_platform(service, asked.Image, platform)
        record, warnings = await service.create(asked, name=name, api_version=api_version(request))
        return reply({"Id": record.Id, "Warnings": list(warnings)}, 201)

    @routes.delete("/containers/{ref:path}")
    async def remove(ref: str, v: Flag = False, force: Flag = False, link: Flag = False) -> Response:
        if link:
            await remove_link(service, ref)
        else:
            await service.remove(ref, force=force, volumes=v)
        return Response(status_code=204)

    @routes.post("/containers/prune")
    async def prune_containers(filters: Filters = "") -> Response:
        removed, freed = await prune(service, parse_filters(filters, known=known.PRUNE))
        return reply({"ContainersDeleted": removed or None, "SpaceReclaimed": freed})


def _check_platform(service: ContainerService, ref: str, platform: str) -> None:
    system, _, machine = platform.partition("/")
    if not machine and system != "linux":
        raise InvalidParameter(f'"{platform}": unknown operating system or architecture: invalid argument')
    try:
        image = service.ctx.require(ImageStore).get(ref)
    except EngineError:
        return  # create says it better
    machine, _, variant = machine.partition("/")
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
    fits = system == image.Os and machine in ("", image.Architecture) and variant in ("", image.Variant)
    if not fits and image.Architecture:
        own = "/".join(part for part in (image.Os, image.Architecture, image.Variant) if part)
        raise NotFound(
            f"image with reference {ref} was found but its platform ({own}) does not match the specified platform"
            f" ({platform})"
        )


def _add_actions(routes: APIRouter, service: ContainerService) -> None:
    done = 204

    @routes.post("/containers/{ref}/start")
    async def start(request: Request, ref: str) -> Response:
        if (await request.body()).strip() not in (b"", b"{}", b"null"):
            raise InvalidParameter(
                "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
            )
        await service.start(ref)
        return Response(status_code=done)

    @routes.post("/containers/{ref}/stop")
    async def stop(ref: str, t: str | None = None, signal: str | None = None) -> Response:
        await service.stop(ref, timeout=_number(t), signal=signal)
        return Response(status_code=done)

    @routes.post("/containers/{ref}/restart")
    async def restart(ref: str, t: str | None = None, signal: str | None = None) -> Response:
        await service.restart(ref, timeout=_number(t), signal=signal)
        return Response(status_code=done)

    @routes.post("/containers/{ref}/kill")
    async def kill(ref: str, signal: str = "KILL") -> Response:
        try:
            await service.kill(ref, signal or "KILL")
        except NotFound as error:
            raise NotFound(f"cannot kill container: {ref}: {error}") from None
        return Response(status_code=done)

    @routes.post("/containers/{ref}/pause")
    async def pause(ref: str) -> Response:
        await service.pause(ref)
        return Response(status_code=done)

    @routes.post("/containers/{ref}/unpause")
    async def unpause(ref: str) -> Response:
        await service.resume(ref)
        return Response(status_code=done)

    @routes.post("/containers/{ref}/rename")
    async def rename(ref: str, name: str = "") -> Response:
        await service.rename(ref, name)
        return Response(status_code=done)

    @routes.post("/containers/{ref}/update")
    async def update(request: Request, ref: str) -> Response:
        asked = await body(request, UpdateRequest)
        limits = Resources.model_construct(**{field: getattr(asked, field) for field in Resources.model_fields})
        warnings = await service.change_limits(ref, limits, asked.RestartPolicy)
        return reply({"Warnings": list(warnings) or None})

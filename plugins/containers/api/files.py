"""Routes over a container's file system: archive, export, changes, commit."""

from __future__ import annotations

import base64
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse

from plugin_sdk import InvalidParameter
from plugin_sdk.containers import ContainerConfig
from plugin_sdk.http import Flag, decode, reply

from .. import archive
from ..commit import CommitRequest, commit, image_name
from ..service import ContainerService

PATH_STAT = "X-Docker-Container-Path-Stat"
TAR = "application/x-tar"


class _Tar(StreamingResponse):
    """A download, closed whether or not the client takes it."""

    def __init__(self, download: archive.Download, headers: dict[str, str] | None = None) -> None:
        super().__init__(download.chunks(), headers=headers, media_type=TAR)
        self._download = download

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self.body_iterator.aclose()  # type: ignore[attr-defined]
            await self._download.close()


def _stat_header(found: archive.PathStat) -> dict[str, str]:
    return {PATH_STAT: base64.b64encode(orjson.dumps(found.wire())).decode()}


def _wanted(path: str) -> str:
    if not path:
        raise InvalidParameter("bad parameter: path cannot be empty")
    if "\0" in path:
        raise InvalidParameter(f"bad parameter: path {path!r} holds a zero byte")
    return path


def router(service: ContainerService) -> APIRouter:
    """Archive, export, changes, commit."""
    routes = APIRouter()

    @routes.head("/containers/{ref}/archive")
    async def stat(ref: str, path: str = "") -> Response:
        return Response(headers=_stat_header(await archive.path_stat(service, ref, _wanted(path))))

    @routes.get("/containers/{ref}/archive")
    async def get(ref: str, path: str = "") -> Response:
        download = await archive.download(service, ref, _wanted(path))
        assert download.stat is not None
        return _Tar(download, _stat_header(download.stat))

    @routes.put("/containers/{ref}/archive")
    async def put(
        request: Request,
        ref: str,
        path: str = "",
        keep_kind: Annotated[Flag, Query(alias="noOverwriteDirNonDir")] = False,
        as_user: Annotated[Flag, Query(alias="copyUIDGID")] = False,
    ) -> Response:
        await archive.upload(service, ref, _wanted(path), request.stream(), keep_kind=keep_kind, as_user=as_user)
        return Response()

    @routes.get("/containers/{ref}/export")
    async def export(ref: str) -> Response:
        return _Tar(await archive.export(service, ref))

    @routes.get("/containers/{ref}/changes")
    async def changes(ref: str) -> Response:
        record = await service.ready(ref)
        found = await service.storage_of(record).changes(record.Id)
        return reply([{"Path": change.path, "Kind": int(change.kind)} for change in found] or None)

    @routes.post("/commit")
    async def make_image(
        request: Request,
        container: str = "",
        repo: str = "",
        tag: str = "",
        comment: str = "",
        author: str = "",
        pause: Flag = True,
        changes: Annotated[list[str] | None, Query()] = None,
    ) -> Response:
        raw = (await request.body()).strip()
        config = None if raw in (b"", b"null") else decode(raw, ContainerConfig)
        asked = CommitRequest(image_name(repo, tag), comment, author, pause, config, changes or ())
        return reply({"Id": await commit(service, container, asked)}, 201)

    return routes

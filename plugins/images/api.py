"""Routes of images."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse

from plugin_sdk import EngineError, Event, EventBus, InvalidParameter, NotSupported
from plugin_sdk.http import Flag, Report, abandon_with_client, api_version, progress, reply, spool
from plugin_sdk.reference import parse
from plugin_sdk.storage import Storage
from plugin_sdk.streams import Outlet
from plugin_sdk.text import parse_filters

from . import importing, listing, loading, saving
from .store import Images

Names = Annotated[list[str] | None, Query()]


def router(store: Images, storage: Storage, folder: Path, events: EventBus) -> APIRouter:
    """All routes of images."""
    routes = APIRouter()
    _looking(routes, store, storage)
    _streaming(routes, store, folder)
    _changing(routes, store, events)
    return routes


def _looking(routes: APIRouter, store: Images, storage: Storage) -> None:
    @routes.get("/images/json")
    async def list_images(
        request: Request,
        filters: str = "",
        all: Flag = False,
        shared_size: Annotated[Flag, Query(alias="shared-size")] = False,
    ) -> Response:
        version = api_version(request)
        chosen = listing.selected(store, parse_filters(filters, known=listing.LIST_FILTERS), all=all)
        shared = listing.shared_sizes(store) if shared_size else {}
        return reply([listing.summary(store, image, version, shared.get(image.Id, -1), -1) for image in chosen])

    @routes.get("/images/{name:path}/json")
    async def inspect_image(request: Request, name: str) -> Response:
        image = store.get(name)
        return reply(listing.inspect(store, image, storage.default, api_version(request)))

    @routes.get("/images/{name:path}/history")
    async def image_history(name: str) -> Response:
        return reply(listing.history(store, store.get(name)))


def _streaming(routes: APIRouter, store: Images, folder: Path) -> None:
    @routes.post("/images/create")
    async def create_image(
        request: Request,
        fromImage: str = "",
        fromSrc: str = "",
        repo: str = "",
        tag: str = "",
        message: str = "",
        changes: Names = None,
        platform: str = "",
    ) -> Response:
        if fromImage:
            reference = parse(fromImage)
            wanted = reference.familiar + (f":{tag}" if tag and not reference.tag and not reference.digest else "")
            raise NotSupported(
                f"cannot pull {wanted}: no plugin of this engine talks to registries; bring the image in with `docker load`"
                " or `docker import`"
            )
        if fromSrc != "-":
            raise NotSupported(
                f"cannot import from {fromSrc or 'nothing'!r}: this engine fetches no URLs; pipe the archive in with"
                " `docker import -`"
            )
        wish = importing.wish(repo, tag, message, changes or (), platform)

        async def work(report: Report) -> None:
            image = await importing.import_image(store, request.stream(), wish)
            await report({"status": image.Id})

        return progress(work)

    @routes.post("/images/load")
    async def load_images(request: Request, quiet: Flag = False) -> Response:
        async def work(report: Report) -> None:
            async with spool(request, folder) as upload:
                await loading.load(store, folder, upload, report, quiet=quiet)

        return progress(work)

    @routes.get("/images/get")
    async def save_images(names: Names = None) -> Response:
        wanted = [name for each in names or () for name in each.split(",") if name]
        if not wanted:
            raise InvalidParameter("no images to save: want the parameter names")
        return _saved(store, folder, wanted)

    @routes.get("/images/{name:path}/get")
    async def save_image(name: str) -> Response:
        return _saved(store, folder, [name])


def _saved(store: Images, folder: Path, names: list[str]) -> Response:
    chosen = saving.select(store, names)
    saving.check(chosen, store)

    async def content() -> AsyncIterator[bytes]:
        async with Outlet() as outlet:
            task = asyncio.create_task(saving.save(store, folder, chosen, outlet))
            try:
                async for piece in outlet:
                    yield piece
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    return StreamingResponse(content(), media_type="application/x-tar")


def _changing(routes: APIRouter, store: Images, events: EventBus) -> None:
    @routes.post("/images/prune")
    async def prune_images(request: Request, filters: str = "") -> Response:
        abandon_with_client(request)
        test = listing.prunable(parse_filters(filters, known=listing.PRUNE_FILTERS))
        deleted: list[dict[str, str]] = []
        reclaimed = 0
        sizes = {layer.chain_id: layer.size for layer in store.driver.layers()}
        for image in [image for image in store.list() if test(image)]:
            if store.users(image.Id) or store.children(image.Id):
                continue
            try:
                # Without force: somebody may have begun to use it meanwhile.
                for ref in [*image.Tags, *image.Digests] or [image.Id]:
                    deleted += await store.remove(ref)
            except EngineError:
                continue
        reclaimed = sum(sizes.get(record.get("Deleted", ""), 0) for record in deleted)
        events.publish(Event("image", "prune", "", {"reclaimed": str(reclaimed)}))
        return reply({"ImagesDeleted": deleted or None, "SpaceReclaimed": reclaimed})

    @routes.post("/images/{name:path}/tag")
    async def tag_image(name: str, repo: str = "", tag: str = "") -> Response:
        if not repo:
            raise InvalidParameter("repository name must have at least one component")
        reference = parse(repo)
        target = reference.with_tag(tag) if tag else reference
        await store.tag(name, str(target))
        return Response(status_code=201)

    @routes.delete("/images/{name:path}")
    async def delete_image(name: str, force: Flag = False, noprune: Flag = False) -> Response:
        return reply(await store.remove(name, force=force, prune=not noprune))

"""`/volumes` of the Docker Engine API."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from plugin_sdk import Conflict, EngineError, Event, InvalidParameter, PluginContext, Unavailable, Wire
from plugin_sdk.http import Flag, api_version, body, reply
from plugin_sdk.text import Filters, match_labels, parse_filters
from plugin_sdk.volumes import DriverVolume, VolumeRecord

from .service import VolumeService
from .survey import Survey

_LIST_FILTERS = ("dangling", "driver", "label", "name")
_PRUNE_FILTERS = ("all", "label", "label!")


class VolumeCreate(Wire):
    """Body of `POST /volumes/create`."""

    Name: str = ""
    Driver: str = ""
    DriverOpts: dict[str, str] = {}
    Labels: dict[str, str] = {}
    ClusterVolumeSpec: dict[str, Any] | None = None


def _shape(record: VolumeRecord, volume: DriverVolume) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "CreatedAt": record.CreatedAt or volume.created_at,
        "Driver": record.Driver,
        "Labels": record.Labels or None,
        "Mountpoint": volume.mountpoint,
        "Name": record.Name,
        "Options": record.Options or None,
        "Scope": record.Scope,
    }
    if volume.status:
        shown["Status"] = dict(volume.status)
    if not shown["CreatedAt"]:
        del shown["CreatedAt"]
    return shown


def _flag(filters: Filters, name: str) -> bool | None:
    values = filters.get(name)
    if not values:
        return None
    known = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}
    if len(values) > 1 or values[0].lower() not in known:
        raise InvalidParameter(
            f"invalid filter '{name}={values}'".replace("'", "'").replace("['", "[").replace("']", "]")
        )
    return known[values[0].lower()]


def _named(patterns: Sequence[str], name: str) -> bool:
    for pattern in patterns:
        try:
            if pattern in name or re.search(pattern, name):
                return True
        except re.error:
            continue
    return not patterns


def make_router(ctx: PluginContext, volumes: VolumeService, survey: Survey) -> APIRouter:
    """The routes."""
    router = APIRouter()

    @router.get("/volumes")
    async def list_volumes(filters: str = "") -> Response:
        wanted = parse_filters(filters, known=_LIST_FILTERS)
        dangling = _flag(wanted, "dangling")
        found, warnings = await survey.all()
        shown = [
            _shape(record, volume)
            for record, volume in found
            if _named(wanted.get("name", ()), record.Name)
            and match_labels(wanted.get("label", ()), record.Labels)
            and (not wanted.get("driver") or any(volumes.is_driver(record.Driver, one) for one in wanted["driver"]))
            and (dangling is None or dangling is not bool(volumes.holders(record.Name)))
        ]
        return reply({"Volumes": shown, "Warnings": warnings or None})

    @router.post("/volumes/create")
    async def create_volume(request: Request) -> Response:
        asked = await body(request, VolumeCreate, empty_ok=True)
        if asked.ClusterVolumeSpec is not None:
            raise InvalidParameter("cluster volumes need a swarm: this node is not a swarm manager")
        record = await volumes.create(asked.Name, driver=asked.Driver, options=asked.DriverOpts, labels=asked.Labels)
        return reply(_shape(record, DriverVolume(record.Name, await volumes.path(record))), 201)

    @router.post("/volumes/prune")
    async def prune_volumes(request: Request, filters: str = "") -> Response:
        wanted = parse_filters(filters, known=_PRUNE_FILTERS)
        every = _flag(wanted, "all") or api_version(request) < (1, 42)
        deleted: list[str] = []
        reclaimed = 0
        silent: set[str] = set()
        for record in volumes.list():
            if not (every or record.Anonymous) or not _prunable(wanted, record.Labels) or volumes.holders(record.Name):
                continue
            if record.Driver in silent:
                continue
            try:
                size = await volumes.usage(record.Name)
                await volumes.remove(record.Name)
            except Conflict:
                continue
            except EngineError as error:
                if isinstance(error, Unavailable):
                    silent.add(record.Driver)
                ctx.log.warning("prune: volume %s: %s", record.Name, error)
                continue
            deleted.append(record.Name)
            reclaimed += max(0, size)
        ctx.events.publish(Event("volume", "prune", "", {"reclaimed": str(reclaimed)}))
        return reply({"VolumesDeleted": deleted, "SpaceReclaimed": reclaimed})

    @router.get("/volumes/{name}")
    async def inspect_volume(name: str) -> Response:
        return reply(_shape(*await survey.look(name)))

    @router.delete("/volumes/{name}")
    async def remove_volume(name: str, force: Flag = False) -> Response:
        try:
            await volumes.remove(name, force=force)
        except EngineError as error:
            if not force or isinstance(error, Conflict):
                raise
        return Response(status_code=204)

    return router


def _prunable(wanted: Filters, labels: dict[str, str]) -> bool:
    if not match_labels(wanted.get("label", ()), labels):
        return False
    return not any(match_labels([label], labels) for label in wanted.get("label!", ()))

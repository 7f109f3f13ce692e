"""`GET /containers/json`: a summary for each container, kept ready as JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from plugin_sdk import InvalidParameter, NotFound, Unavailable
from plugin_sdk.containers import ContainerRecord, ContainerState, ContainerStatus
from plugin_sdk.images import ImageStore
from plugin_sdk.network import EndpointRecord, Networks
from plugin_sdk.text import Filters
from plugin_sdk.times import ago, parse_ns

from . import endpoints, filters, links

if TYPE_CHECKING:
    from .service import ContainerService

ANNOTATIONS_SINCE = (1, 46)


class Shape(NamedTuple):
    """What in a summary depends on the API's version."""

    annotations: bool
    gateway_priority: bool


@dataclass(slots=True)
class _Ready:
    """A summary without what changes with time: valid while record, endpoints and image name are the same.

    Attributes:
        names: its own and those of links.
        epoch: of the networks, when the endpoints were asked for.
    """

    record: ContainerRecord
    names: list[str]
    endpoints: Sequence[EndpointRecord]
    epoch: object
    image: str
    head: bytes
    status: str
    since_ns: int


class Listing:
    """Answers ps, and keeps what it made for the next time."""

    def __init__(self, service: ContainerService) -> None:
        self._service = service
        self._ready: dict[tuple[str, Shape], _Ready] = {}
        self._epoch: object = object()
        self._networks: Networks | None = None
        self._watching: asyncio.Task[None] | None = None

    async def json(
        self,
        *,
        all: bool = False,
        limit: int = 0,
        size: bool = False,
        wanted: Filters,
        api_version: tuple[int, int] = (1, 51),
    ) -> bytes:
        """The JSON list, newest first. Raises like `filters.build`."""
        if self._watching is None or self._watching.done():
            self._watching = self._service.ctx.spawn(self._watch(), name="listing")
        networks = self._service.ctx.find(Networks)
        if networks is not self._networks:
            self._networks, self._epoch = networks, object()
        tests, stopped_too = filters.build(self._service, wanted)
        records = self._service.list()
        if not (all or limit > 0 or stopped_too):
            active = (ContainerStatus.RUNNING, ContainerStatus.PAUSED, ContainerStatus.RESTARTING)
            records = [record for record in records if record.State.Status in active]
        if tests:
            records = [record for record in records if all_pass(tests, record)]
        if limit > 0:
            records = records[:limit]
        sizes = await self._sizes(records) if size else None
        images: dict[str, str] = {}
        shape = Shape(api_version >= ANNOTATIONS_SINCE, api_version >= endpoints.GW_PRIORITY_SINCE)
        linked = links.names(self._service)
        found = [self._summary(record, shape, linked.get(record.Id, ()), images, sizes) for record in records]
        if len(self._ready) > 4 * len(self._service.records.all()) + 64:
            self._ready.clear()
        return b"[" + b",".join(found) + b"]\n"

    async def _watch(self) -> None:
        """The endpoints of a stopped container change with an event of the networks only."""
        while True:
            self._epoch = object()
            try:
                async for event in self._service.ctx.events.subscribe():
                    if event.type == "network":
                        self._epoch = object()
                return
            except Unavailable:
                continue  # so much happened that the subscription was cut off

    def _summary(
        self,
        record: ContainerRecord,
        shape: Shape,
        linked: Sequence[str],
        images: dict[str, str],
        sizes: dict[str, tuple[int, int]] | None,
    ) -> bytes:
        image = self._image_name(record, images)
        names = sorted((f"/{record.Name}", *linked)) if linked else [f"/{record.Name}"]
        ready = self._ready.get((record.Id, shape))
        if ready is not None and (ready.record is not record or ready.image != image or ready.names != names):
            ready = None
        if ready is None or record.State.running or ready.epoch is not self._epoch:
            found = endpoints.of(self._service, record)
            if ready is not None and _same(ready.endpoints, found):
                ready.epoch = self._epoch
            else:
                ready = self._ready[record.Id, shape] = self._make(record, shape, names, found, image)
        status = ready.status.format(ago(ready.since_ns)) if ready.since_ns else ready.status
        tail = b',"Status":' + orjson.dumps(status)
        if sizes is not None:
            written, whole = sizes.get(record.Id, (0, 0))
            tail += (b',"SizeRw":%d' % written if written else b"") + b',"SizeRootFs":%d' % whole
        return ready.head + tail + b"}"

    def _image_name(self, record: ContainerRecord, images: dict[str, str]) -> str:
        """The reference that the client gave, while it still means the same image; else the image's ID."""
        if record.ImageRef == record.ImageID:
            return record.ImageID
        current = images.get(record.ImageRef)
        if current is None:
            try:
                current = self._service.ctx.require(ImageStore).get(record.ImageRef).Id
            except (NotFound, InvalidParameter):
                current = ""
            images[record.ImageRef] = current
        return record.ImageRef if current == record.ImageID else record.ImageID

    def _make(
        self, record: ContainerRecord, shape: Shape, names: list[str], found: Sequence[EndpointRecord], image: str
    ) -> _Ready:
        host: dict[str, Any] = {"NetworkMode": record.HostConfig.NetworkMode}
        if record.HostConfig.Annotations and shape.annotations:
            host["Annotations"] = record.HostConfig.Annotations
        networks = endpoints.shown(self._service, found, full=False, priority=shape.gateway_priority)
        summary = {
            "Id": record.Id,
            "Names": names,
            "Image": image,
            "ImageID": record.ImageID,
            "Command": command(record),
            "Created": parse_ns(record.Created) // 10**9,
            "Ports": endpoints.port_list(record, found),
            "Labels": record.Config.Labels,
            "State": record.State.Status,
            "HostConfig": host,
            "NetworkSettings": {"Networks": networks},
            "Mounts": [mount_view(mount.model_dump()) for mount in record.Mounts],
        }
        status, since = status_words(record.State)
        return _Ready(record, names, found, self._epoch, image, orjson.dumps(summary)[:-1], status, since)

    async def _sizes(self, records: Sequence[ContainerRecord]) -> dict[str, tuple[int, int]]:
        found = await asyncio.gather(*map(self._service.sizes.of, records))
        return dict(zip((record.Id for record in records), found, strict=True))


def all_pass(tests: Sequence[filters.Test], record: ContainerRecord) -> bool:
    """Whether a container passes all filters."""
    return all(test(record) for test in tests)


def command(record: ContainerRecord) -> str:
    """The command line as ps shows it: arguments with a space stand in quotes."""
    quoted = [f"'{argument}'" if " " in argument else argument for argument in record.Args]
    return " ".join([record.Path, *quoted])


def mount_view(mount: dict[str, Any]) -> dict[str, Any]:
    """A mount without what only its owner needs."""
    keys = ("Type", "Name", "Source", "Destination", "Driver", "Mode", "RW", "Propagation")
    return {key: mount[key] for key in keys if mount[key] != "" or key not in ("Name", "Driver")}


def status_words(state: ContainerState) -> tuple[str, int]:
    """`Status` of ps with `{}` for how long ago, and the moment that is meant (0: it depends on none)."""
    began, ended = (parse_ns(text) if text else 0 for text in (state.StartedAt, state.FinishedAt))
    match state.Status:
        case ContainerStatus.RUNNING:
            health = (state.Health or {}).get("Status", "")
            shown = "health: starting" if health == "starting" else health
            return (f"Up {{}} ({shown})" if health not in ("", "none") else "Up {}"), began
        case ContainerStatus.PAUSED:
            return "Up {} (Paused)", began
        case ContainerStatus.RESTARTING:
            return f"Restarting ({state.ExitCode}) {{}} ago", ended
        case ContainerStatus.DEAD:
            return "Dead", 0
        case ContainerStatus.REMOVING:
            return "Removal In Progress", 0
    if not began:
        return "Created", 0
    return (f"Exited ({state.ExitCode}) {{}} ago", ended) if ended else ("", 0)


def _same(old: Sequence[EndpointRecord], new: Sequence[EndpointRecord]) -> bool:
    return len(old) == len(new) and all(
        before is after or before == after for before, after in zip(old, new, strict=True)
    )

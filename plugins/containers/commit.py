"""`docker commit`: an image of what a container's file system holds now."""

from __future__ import annotations

import logging
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from plugin_sdk import Conflict, EngineError, InvalidParameter, NotFound
from plugin_sdk.changes import apply_changes
from plugin_sdk.containers import ContainerConfig, ContainerRecord, ContainerStatus
from plugin_sdk.images import Image, ImageStore
from plugin_sdk.reference import DEFAULT_TAG, parse
from plugin_sdk.storage import StorageDriver
from plugin_sdk.times import now

from .merge import with_image

if TYPE_CHECKING:
    from .service import ContainerService

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}

log = logging.getLogger("engine.containers.commit")


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """Query and body of `POST /commit`.

    Attributes:
        name: the reference to give the image; "" leaves it without.
        config: what the client overrides of the container's configuration; the rest is the container's. None: nothing.
        changes: Dockerfile instructions, applied to `config`, or to the container's without one.
    """

    name: str = ""
    comment: str = ""
    author: str = ""
    pause: bool = True
    config: ContainerConfig | None = None
    changes: Sequence[str] = ()


def image_name(repo: str, tag: str) -> str:
    """The reference of `repo` and `tag` in its familiar form, "" for none. Raises InvalidParameter."""
    if not repo:
        return ""
    reference = parse(repo)
    if tag or not reference.tag:
        reference = reference.with_tag(tag or DEFAULT_TAG)
    return reference.familiar


async def commit(service: ContainerService, ref: str, request: CommitRequest) -> str:
    """Make the image; gives its ID.

    Raises:
        NotFound: no such container.
        InvalidParameter: a bad instruction.
        Conflict: the container is being removed.
    """
    if not ref:
        raise InvalidParameter('invalid name or ID supplied: ""')
    record = await service.ready(ref)
    if record.State.Status in (ContainerStatus.REMOVING, ContainerStatus.DEAD):
        raise Conflict(f"container {record.Id} is being removed: it cannot be committed")
    given = with_image(ContainerConfig(), record.Config) if request.config is None else request.config
    config = with_image(apply_changes(given, request.changes), record.Config)
    images = service.ctx.require(ImageStore)
    storage = service.storage_of(record)
    layers, base = _base(images, storage, record)
    layer = await _layer(service, record, storage, request.pause)
    if layer:
        layers.append(layer)
    document = _document(record, base, config, request, empty=not layer)
    image = await images.add(document, layers, parent=base.Id if base else "")
    if request.name:
        await images.tag(image.Id, request.name)
    service.emit(record, "commit", comment=request.comment, imageID=image.Id, imageRef=request.name)
    return image.Id


async def _layer(service: ContainerService, record: ContainerRecord, storage: StorageDriver, pause: bool) -> str:
    """Diff ID of the writable layer as it is, "" when the container has changed nothing."""
    paused = pause and record.State.Status is ContainerStatus.RUNNING
    if paused:
        await service.pause(record.Id)
    try:
        if not await storage.changes(record.Id):
            return ""
        return (await storage.commit(record.Id)).diff_id
    finally:
        if paused:
            await _resume(service, record)


async def _resume(service: ContainerService, record: ContainerRecord) -> None:
    try:
        await service.resume(record.Id)
    except (Conflict, NotFound) as error:
        # It was stopped, removed or resumed meanwhile, by someone who may.
        log.debug("container %s was not resumed after its commit: %s", record.Id, error)
    except EngineError:
        log.error("container %s stays paused after its commit", record.Id)
        raise


def _base(images: ImageStore, storage: StorageDriver, record: ContainerRecord) -> tuple[list[str], Image | None]:
    """Diff IDs below the writable layer, and the image they came from if it is still there."""
    try:
        image = images.get(record.ImageID)
    except NotFound:
        layers: list[str] = []
        chain = record.ChainID
        while chain:
            layer = storage.layer(chain)
            layers.insert(0, layer.diff_id)
            chain = layer.parent
        return layers, None
    return list(image.DiffIDs), image


def _document(
    record: ContainerRecord, base: Image | None, config: ContainerConfig, request: CommitRequest, *, empty: bool
) -> dict[str, Any]:
    created = now()
    machine = platform.machine()
    history = [step.model_dump(exclude_defaults=True) for step in base.History] if base else []
    step: dict[str, Any] = {"created": created, "created_by": " ".join(record.Config.Cmd or [])}
    for key, value in (("author", request.author), ("comment", request.comment), ("empty_layer", empty)):
        if value:
            step[key] = value
    document: dict[str, Any] = {
        "architecture": base.Architecture if base else _ARCHITECTURES.get(machine, machine),
        "author": request.author,
        "comment": request.comment,
        "config": config.model_dump(exclude_none=True),
        "container": record.Id,
        "container_config": record.Config.model_dump(exclude_none=True),
        "created": created,
        "history": [*history, step],
        "os": base.Os if base else "linux",
    }
    if base and base.Variant:
        document["variant"] = base.Variant
    return document

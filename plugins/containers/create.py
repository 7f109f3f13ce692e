"""Making a container: nothing runs yet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from plugin_sdk import EngineError, InvalidParameter, NotFound
from plugin_sdk.aio import blocking
from plugin_sdk.containers import (
    ContainerConfig,
    ContainerCreate,
    ContainerDraft,
    ContainerRecord,
    HostConfig,
    RestartRule,
)
from plugin_sdk.images import Image, ImageStore
from plugin_sdk.runtime import Runtime, Runtimes
from plugin_sdk.storage import Storage
from plugin_sdk.text import NAME, new_id
from plugin_sdk.times import now

from . import merge
from .names import random_name
from .store import name_conflict
from .workdir import make_working_dir

if TYPE_CHECKING:
    from .service import ContainerService


async def create(
    service: ContainerService, request: ContainerCreate, name: str, api_version: tuple[int, int]
) -> tuple[ContainerRecord, Sequence[str]]:
    """See `Containers.create`."""
    draft = _draft(service, request, name, api_version)
    service.drafts[draft.id] = draft
    try:
        await service.ctx.hooks.all("engine_container_validate", draft=draft)
        draft.config = _completed(draft.config, draft)
        draft.host = _donors_by_id(service, draft.host)
        await _check_runtime(service, draft.host.Runtime)
        return await _make(service, draft), draft.warnings
    finally:
        del service.drafts[draft.id]


def _donors_by_id(service: ContainerService, host: HostConfig) -> HostConfig:
    """Containers whose namespaces are to be joined, by their IDs. Raises InvalidParameter: a 404 would mean the image."""
    changes: dict[str, str] = {}
    for field in ("PidMode", "IpcMode"):
        kind, colon, ref = getattr(host, field).partition(":")
        if kind == "container" and colon:
            try:
                changes[field] = f"container:{service.get(ref).Id}"
            except EngineError as error:
                raise InvalidParameter(str(error)) from None
    return host.model_copy(update=changes) if changes else host


async def _check_runtime(service: ContainerService, name: str) -> None:
    try:
        runtime = await service.ctx.drivers.find(Runtime, name)
    except NotFound as error:
        raise InvalidParameter(f"unknown or invalid runtime name: {name}: {error}") from None
    # `docker run` starts what it creates.
    runtime.expect()


def _draft(
    service: ContainerService, request: ContainerCreate, name: str, api_version: tuple[int, int]
) -> ContainerDraft:
    name = _free_name(service, name)
    image = _image(service, request.Image)
    asked = ContainerConfig.model_construct(
        **{field: getattr(request, field) for field in ContainerConfig.model_fields}
    )
    config = merge.with_image(asked, image.Config)
    merge.command_line(config)
    merge.check_config(config)
    merge.check_host(request.HostConfig, config)
    container_id = new_id()
    storage = service.ctx.require(Storage)

    async def rootfs() -> Path:
        driver = storage.driver()
        return await (driver.mount(container_id, ids=draft.ids) if draft.ids else driver.mount(container_id))

    draft = ContainerDraft(
        id=container_id,
        name=name,
        config=config,
        host=_host_defaults(service, merge.for_version(request.HostConfig, api_version)),
        networking=request.NetworkingConfig,
        image=image,
        api_version=api_version,
        rootfs=rootfs,
    )
    return draft


def _free_name(service: ContainerService, asked: str) -> str:
    taken = {draft.name: draft.id for draft in service.drafts.values()}
    if not asked:
        return random_name(_Taken(service, taken))
    name = asked.removeprefix("/")
    check_name(asked)
    if holder := service.records.name_taken(name) or taken.get(name):
        raise name_conflict(name, holder)
    return name


def check_name(name: str) -> None:
    """Raises InvalidParameter, in Docker's words."""
    if not NAME.match(name.removeprefix("/")):
        raise InvalidParameter(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")


class _Taken:
    def __init__(self, service: ContainerService, drafts: dict[str, str]) -> None:
        self._service, self._drafts = service, drafts

    def __contains__(self, name: object) -> bool:
        return name in self._drafts or self._service.records.name_taken(str(name)) is not None


def _image(service: ContainerService, ref: str) -> Image:
    if not ref:
        raise InvalidParameter("no image specified: name the image in the field Image")
    try:
        return service.ctx.require(ImageStore).get(ref)
    except NotFound:
        # The docker CLI looks for this very sentence before it tries to pull.
        raise NotFound(f"No such image: {_with_tag(ref)}") from None


def _with_tag(ref: str) -> str:
    plain = "@" not in ref and ":" not in ref.rpartition("/")[2]
    return f"{ref}:latest" if plain else ref


def _host_defaults(service: ContainerService, host: HostConfig) -> HostConfig:
    changes: dict[str, object] = {}
    if not host.Runtime:
        changes["Runtime"] = service.ctx.require(Runtimes).default
    if host.NetworkMode in ("", "default"):
        changes["NetworkMode"] = "bridge"
    if not host.RestartPolicy.Name:
        changes["RestartPolicy"] = RestartRule(Name="no")
    return host.model_copy(update=changes) if changes else host


def _completed(config: ContainerConfig, draft: ContainerDraft) -> ContainerConfig:
    # After validation: a plugin may have changed the network mode.
    if config.Hostname or draft.host.NetworkMode.startswith("container:"):
        return config
    hostname = os.uname().nodename if draft.host.NetworkMode == "host" else draft.id[:12]
    return config.model_copy(update={"Hostname": hostname})


async def _make(service: ContainerService, draft: ContainerDraft) -> ContainerRecord:
    storage = service.ctx.require(Storage)
    if any(end.IPAMConfig is not None for end in draft.networking.EndpointsConfig.values()):
        # The address asked for may be that of a container whose removal is not yet over.
        await service.settled()
    try:
        await storage.driver().create(draft.id, draft.image.ChainID, options=draft.host.StorageOpt or None)
        await service.ctx.hooks.all("engine_container_create", draft=draft)
        if draft.config.WorkingDir not in ("", "/", draft.image.Config.WorkingDir):
            await blocking(make_working_dir, await draft.rootfs(), draft.config.WorkingDir, draft.mounts, draft.ids)
        record = _record(draft, storage.default)
        await service.records.insert(record)
    except BaseException as failure:
        # A cancelled client included: what was begun is taken back before anybody hears of it.
        service.settle(draft.id, undo(service, _record(draft, storage.default)))
        if isinstance(failure, EngineError):
            await service.settled(draft.id)
        raise
    service.emit(record, "create")
    return record


def _record(draft: ContainerDraft, driver: str) -> ContainerRecord:
    path, arguments = merge.command_line(draft.config)
    return ContainerRecord.model_construct(
        Id=draft.id,
        Name=draft.name,
        Created=now(),
        ImageID=draft.image.Id,
        ImageRef=draft.config.Image,
        ChainID=draft.image.ChainID,
        Driver=driver,
        Runtime=draft.host.Runtime,
        Path=path,
        Args=arguments,
        Config=draft.config,
        HostConfig=draft.host,
        Networking=draft.networking,
        Mounts=list(draft.mounts),
        LogPath=draft.log_path,
        Ids=draft.ids,
    )


async def undo(service: ContainerService, record: ContainerRecord) -> None:
    """Take back what the creation of a container without a record has made."""
    await service.ctx.hooks.each("engine_container_remove", container=record, volumes=True)
    await service.storage_of(record).remove(record.Id)

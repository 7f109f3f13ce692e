"""A container's mounts through its life: checked, created, mounted for a run, given back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from plugin_sdk import (
    Conflict,
    EngineError,
    Event,
    InvalidParameter,
    NotFound,
    NotSupported,
    PluginContext,
    Unavailable,
    Wire,
)
from plugin_sdk.containers import ContainerDraft, ContainerRecord, Containers, MountPoint, Preparation
from plugin_sdk.rootfs import open_in_root
from plugin_sdk.runtime import OciMount, OciSpec
from plugin_sdk.text import new_id
from plugin_sdk.volumes import VolumeRecord

from . import sysmount
from .copyup import copy_up, is_empty
from .local import LocalDriver
from .modes import tmpfs_options
from .plan import Planned, plan, tmpfs_mounts
from .service import VolumeService

T = TypeVar("T")

_RECURSIVE_READ_ONLY_KERNEL = (5, 12)


class HeldVolume(Wire):
    """One volume that a driver mounted."""

    Name: str
    Driver: str


class MountRun(Wire):
    """Volumes mounted through their drivers for one run of a container; written before they are.

    Attributes:
        Id: the container's.
        Request: what the drivers count by.
    """

    Id: str
    Request: str
    Volumes: list[HeldVolume] = []


class ContainerMounts:
    """Implements the hooks of a container's life; knows nothing of plugins."""

    def __init__(self, ctx: PluginContext, volumes: VolumeService, local: LocalDriver) -> None:
        self._ctx = ctx
        self._volumes = volumes
        self._local = local
        self._runs = ctx.state.collection("runs", MountRun, key=lambda run: run.Id)
        self._mounted: set[str] = set()
        # Of its own: the host paths of bind mounts may be on a dead server.
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="volumes")

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def validate(self, draft: ContainerDraft) -> None:
        """See `engine_container_validate`."""
        if not _wants_mounts(draft):
            return
        planned = self._plan(draft)
        checked = [mount.source for mount in planned if mount.type == "bind" and mount.must_exist]
        if checked and (missing := await self._thread(_first_missing, checked)):
            raise InvalidParameter(f'invalid mount config for type "bind": bind source path does not exist: {missing}')
        if any(mount.options.get("ReadOnlyForceRecursive") for mount in planned) and not _can_recurse():
            raise NotSupported("recursively read-only mounts need Linux 5.12 or later")

    def _plan(self, draft: ContainerDraft) -> list[Planned]:
        return plan(draft.config, draft.host, draft.api_version, self._container)

    def _container(self, ref: str) -> ContainerRecord:
        containers = self._ctx.find(Containers)
        if containers is None:
            raise Unavailable("the plugin that keeps the containers is not running")
        return containers.get(ref)

    async def create(self, draft: ContainerDraft) -> None:
        """See `engine_container_create`."""
        if not _wants_mounts(draft):
            return
        for mount in self._plan(draft):
            if mount.type == "volume":
                draft.mounts.append(await self._create_volume(draft, mount))
            else:
                draft.mounts.append(
                    MountPoint(
                        Type=mount.type,
                        Source=mount.source,
                        Destination=mount.target,
                        Mode=mount.mode,
                        RW=not mount.read_only,
                        Propagation=mount.propagation,
                        Options=mount.options | ({"MustExist": True} if mount.must_exist else {}),
                    )
                )

    async def _create_volume(self, draft: ContainerDraft, mount: Planned) -> MountPoint:
        if mount.source:
            self._volumes.reserve(mount.source, draft.id)
        record, fresh = await self._volumes.ensure(
            mount.source,
            driver=mount.driver,
            options=mount.driver_options,
            labels=mount.labels,
            owner="" if mount.source else draft.id,
        )
        self._volumes.reserve(record.Name, draft.id)
        if not mount.nocopy and not mount.subpath:
            await self._copy_up(draft, mount.target, record, fresh)
        inherited = mount.inherited
        return MountPoint(
            Type="volume",
            Name=record.Name,
            Source=await self._volumes.path(record),
            Destination=mount.target,
            Driver=record.Driver,
            Mode=mount.mode,
            RW=not mount.read_only,
            Subpath=mount.subpath,
            Anonymous=inherited.Anonymous if inherited else not mount.source,
            NoCopy=mount.nocopy,
        )

    async def _copy_up(self, draft: ContainerDraft, target: str, record: VolumeRecord, fresh: bool) -> None:
        plain = self._plain(record)
        if plain:
            path = str(self._local.data(record.Name))
            if not fresh and not await self._thread(is_empty, path):
                return
            await self._thread(copy_up, await draft.rootfs(), target, path, fresh=fresh)
            return
        driver = await self._volumes.driver_of(record)
        request = new_id()
        try:
            path = _checked(await driver.mount(record.Name, request), record)
            if await self._thread(is_empty, path):
                await self._thread(copy_up, await draft.rootfs(), target, path, fresh=False)
        finally:
            await driver.unmount(record.Name, request)

    def _plain(self, record: VolumeRecord) -> bool:
        """A folder of ours: nothing to mount."""
        return record.Driver == "local" and not record.Options

    async def prepare(self, container: ContainerRecord, preparation: Preparation) -> None:
        """See `engine_container_prepare`."""
        self._volumes.unreserve(container.Id)
        for target, options in tmpfs_mounts(container.HostConfig):
            preparation.mounts.append(OciMount(target, "tmpfs", "tmpfs", options))
        if not container.Mounts:
            return
        sources = await self._mount_volumes(container)
        self._mounted.add(container.Id)
        for number, mount in enumerate(container.Mounts):
            match mount.Type:
                case "tmpfs":
                    options = tmpfs_options(mount.Options.get("Words", ()))
                    preparation.mounts.append(OciMount(mount.Destination, "tmpfs", "tmpfs", options))
                    continue
                case "volume":
                    source = sources[mount.Name]
                    if mount.Subpath:
                        source = await self._thread(self._pin, source, mount.Subpath, container.Id, number)
                case _:
                    source = await self._thread(_bind_source, mount)
            preparation.mounts.append(OciMount(mount.Destination, source, "bind", _bind_options(mount)))
            if mount.Type == "volume":
                self._tell_mounted(container, mount)

    async def _mount_volumes(self, container: ContainerRecord) -> dict[str, str]:
        """Volume names to paths on the host."""
        if (left := self._runs.get(container.Id)) is not None:
            await self._give_back(left)
        paths: dict[str, str] = {}
        held: list[VolumeRecord] = []
        for mount in container.Mounts:
            if mount.Type != "volume" or mount.Name in paths:
                continue
            record = self._volumes.get(mount.Name)
            paths[record.Name] = str(self._local.data(record.Name))
            if not self._plain(record):
                held.append(record)
            elif not os.path.isdir(paths[record.Name]):
                raise NotFound(f"volume {record.Name}: its folder {paths[record.Name]} is gone")
        if held:
            run = MountRun(
                Id=container.Id,
                Request=new_id(),
                Volumes=[HeldVolume(Name=record.Name, Driver=record.Driver) for record in held],
            )
            await self._runs.put(run)
            for record in held:
                driver = await self._volumes.driver_of(record)
                paths[record.Name] = _checked(await driver.mount(record.Name, run.Request), record)
        return paths

    def _pin(self, source: str, subpath: str, container_id: str, number: int) -> str:
        """Hold a folder or file within a volume by a bind mount, so that no link can lead elsewhere afterwards."""
        try:
            found = open_in_root(source, subpath)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise InvalidParameter(f"cannot access path {source}/{subpath}: {reason}") from None
        try:
            origin = f"/proc/self/fd/{found}"
            place = self._ctx.run / container_id
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            target = place / str(number)
            if os.path.isdir(origin):
                target.mkdir(exist_ok=True)
            else:
                target.touch()
            sysmount.mount(origin, str(target), "", sysmount.MS_BIND | sysmount.MS_REC)
            sysmount.mount("", str(target), "", sysmount.MS_PRIVATE | sysmount.MS_REC)
            return str(target)
        finally:
            os.close(found)

    def _tell_mounted(self, container: ContainerRecord, mount: MountPoint) -> None:
        facts = {
            "container": container.Id,
            "destination": mount.Destination,
            "driver": mount.Driver,
            "propagation": mount.Propagation,
            "read/write": "true" if mount.RW else "false",
        }
        self._ctx.events.publish(Event("volume", "mount", mount.Name, facts))

    def shape(self, container: ContainerRecord, spec: OciSpec) -> None:
        """See `engine_oci_spec`: mounts that travel need a root file system that lets them."""
        kinds = {mount.Propagation.removeprefix("r") for mount in container.Mounts if mount.Type == "bind"}
        if "shared" in kinds:
            spec["linux"]["rootfsPropagation"] = "rshared"
        elif "slave" in kinds:
            spec["linux"]["rootfsPropagation"] = "rslave"

    async def release(self, container: ContainerRecord) -> None:
        """See `engine_container_release`."""
        if any(mount.Subpath for mount in container.Mounts):
            await self._thread(_unpin, self._ctx.run / container.Id)
        if (run := self._runs.get(container.Id)) is not None:
            await self._give_back(run)
        if container.Id in self._mounted:
            self._mounted.discard(container.Id)
            for mount in container.Mounts:
                if mount.Type == "volume":
                    facts = {"container": container.Id, "driver": mount.Driver}
                    self._ctx.events.publish(Event("volume", "unmount", mount.Name, facts))

    async def _give_back(self, run: MountRun) -> None:
        for held in run.Volumes:
            try:
                record = self._volumes.get(held.Name)
                driver = await self._volumes.driver_of(record)
            except NotFound as error:
                # Nobody is left who could unmount it: waiting would keep the container for ever.
                self._ctx.log.warning("container %s: volume %s: %s", run.Id[:12], held.Name, error)
                continue
            await driver.unmount(held.Name, run.Request)
        await self._runs.delete(run.Id)

    async def remove(self, container: ContainerRecord, volumes: bool) -> None:
        """See `engine_container_remove`."""
        self._volumes.unreserve(container.Id)
        if not volumes:
            await self._volumes.disown(container.Id)
            return
        names = {mount.Name for mount in container.Mounts if mount.Type == "volume" and mount.Anonymous}
        names |= {record.Name for record in self._volumes.owned(container.Id)}
        for name in sorted(names):
            try:
                await self._volumes.remove(name)
            except NotFound:
                continue
            except Conflict as error:
                self._ctx.log.debug("container %s: %s", container.Id[:12], error)

    def resume(self) -> None:
        """At a start of the daemon, before anything is mounted: count what still is."""
        for run in self._runs.values():
            for held in run.Volumes:
                if held.Driver == "local":
                    self._local.resume(held.Name, run.Request)

    def restore(self) -> None:
        """Containers that run already will be released one day."""
        containers = self._ctx.find(Containers)
        if containers is not None:
            self._mounted |= {record.Id for record in containers.list() if record.State.running and record.Mounts}

    async def _thread(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: function(*args, **kwargs))


def _wants_mounts(draft: ContainerDraft) -> bool:
    host = draft.host
    return bool(host.Binds or host.Mounts or host.Tmpfs or host.VolumesFrom or draft.config.Volumes)


def _first_missing(paths: list[str]) -> str:
    return next((path for path in paths if not os.path.lexists(path)), "")


def _checked(path: str, record: VolumeRecord) -> str:
    if not path.startswith("/"):
        raise EngineError(f"volume driver {record.Driver} gave no mount point for volume {record.Name}: {path!r}")
    return path


def _bind_source(mount: MountPoint) -> str:
    """Blocking. Makes a missing source folder for `-v`; raises InvalidParameter for `--mount`."""
    if not os.path.lexists(mount.Source):
        if mount.Options.get("MustExist"):
            raise InvalidParameter(
                f'invalid mount config for type "bind": bind source path does not exist: {mount.Source}'
            )
        try:
            Path(mount.Source).mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise EngineError(f"error while creating mount source path '{mount.Source}': mkdir: {reason}") from None
    if mount.Propagation.removeprefix("r") in ("shared", "slave"):
        _check_propagation(mount)
    return mount.Source


def _check_propagation(mount: MountPoint) -> None:
    place, facts = sysmount.mount_of(mount.Source)
    wanted = mount.Propagation.removeprefix("r")
    if "shared" in facts or (wanted == "slave" and "master" in facts):
        return
    kind = "shared mount" if wanted == "shared" else "shared or slave mount"
    raise EngineError(f"path {mount.Source} is mounted on {place} but it is not a {kind}")


def _bind_options(mount: MountPoint) -> tuple[str, ...]:
    recursive = not mount.Options.get("NonRecursive")
    options = ["rbind" if recursive else "bind", mount.Propagation or "rprivate"]
    if not mount.RW:
        options.append("ro")
        if recursive and not mount.Options.get("ReadOnlyNonRecursive") and _can_recurse():
            options.append("rro")
    return tuple(options)


def _can_recurse() -> bool:
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int("".join(filter(str.isdigit, minor)) or 0)) >= _RECURSIVE_READ_ONLY_KERNEL


def _unpin(place: Path) -> None:
    if not place.is_dir():
        return
    for target in place.iterdir():
        sysmount.unmount(str(target))
        if target.is_dir():
            target.rmdir()
        else:
            target.unlink()
    place.rmdir()

"""A container's mounts through its life: checked, created, mounted for a run, given back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from plugin_sdk import (
    Conflict,
    DeadlineExceeded,
    EngineError,
    Event,
    InvalidParameter,
    NotFound,
    NotSupported,
    PluginContext,
    PluginRefusal,
    Unavailable,
    Wire,
)
from plugin_sdk.containers import ContainerDraft, ContainerRecord, Containers, MountPoint, Preparation
from plugin_sdk.runtime import OciMount, OciSpec
from plugin_sdk.text import new_id
from plugin_sdk.volumes import VolumeRecord

from .binds import alone, bind_options, bind_source, can_recurse, first_missing, pin, unpin
from .copyup import copy_up, give_to_root, is_empty
from .local import LocalDriver
from .modes import tmpfs_options
from .owed import BOOT, OwedUnmounts, owed
from .plan import Planned, plan, tmpfs_mounts
from .service import VolumeService

T = TypeVar("T")

QUIET_PATIENCE = 60.0
"""Seconds that a mount waits for an unmount of the same volume that is on its way."""
TOUCH_DEADLINE = 30.0
"""Seconds within which a file system that a plugin mounted has to answer."""
THREADS = 4


class HeldVolume(Wire):
    """One volume that a driver mounted."""

    Name: str
    Driver: str


class MountRun(Wire):
    """Volumes mounted through their drivers for one run of a container; written before they are.

    Attributes:
        Id: the container's, or the request's own while an image's files are copied.
        Request: what the drivers count by.
        Boot: of the machine, when they were mounted.
    """

    Id: str
    Request: str
    Boot: str = ""
    Volumes: list[HeldVolume] = []


class ContainerMounts:
    """Implements the hooks of a container's life; knows nothing of plugins."""

    def __init__(self, ctx: PluginContext, volumes: VolumeService, local: LocalDriver, unmounts: OwedUnmounts) -> None:
        self._ctx = ctx
        self._volumes = volumes
        self._local = local
        self._owed = unmounts
        self._runs = ctx.state.collection("runs", MountRun, key=lambda run: run.Id)
        self._mounted: set[str] = set()
        self._before: list[MountRun] = []
        # By driver, since what one mounted may hang; "" for the rest: the host paths of bind mounts may be on a dead server.
        self._threads: dict[str, ThreadPoolExecutor] = {}

    def close(self) -> None:
        """Let go of the threads."""
        for pool in self._threads.values():
            pool.shutdown(wait=False, cancel_futures=True)

    async def validate(self, draft: ContainerDraft) -> None:
        """See `engine_container_validate`."""
        if not _wants_mounts(draft):
            return
        planned = self._plan(draft)
        checked = [mount.source for mount in planned if mount.type == "bind" and mount.must_exist]
        if checked and (missing := await self._thread(first_missing, checked)):
            raise InvalidParameter(f'invalid mount config for type "bind": bind source path does not exist: {missing}')
        if any(mount.options.get("ReadOnlyForceRecursive") for mount in planned) and not can_recurse():
            raise NotSupported("recursively read-only mounts need Linux 5.12 or later")

    def _plan(self, draft: ContainerDraft) -> list[Planned]:
        return plan(draft.config, draft.host, draft.api_version, self._container)

    def _container(self, ref: str) -> ContainerRecord:
        containers = self._ctx.find(Containers)
        if containers is None:
            raise Unavailable("the plugin that keeps the containers is not running")
        try:
            return containers.get(ref)
        except NotFound as error:
            # No 404: clients would take it for the image's, and pull.
            raise InvalidParameter(str(error)) from None

    async def create(self, draft: ContainerDraft) -> None:
        """See `engine_container_create`."""
        if not _wants_mounts(draft):
            return
        made: list[str] = []
        try:
            await self._create(draft, made)
        except BaseException:
            self._volumes.unreserve(draft.id)
            for name in made:
                with suppress(EngineError):
                    await self._volumes.remove(name)
            raise

    async def _create(self, draft: ContainerDraft, made: list[str]) -> None:
        for mount in self._plan(draft):
            if mount.type == "volume":
                draft.mounts.append(await self._create_volume(draft, mount, made))
            elif mount.type != "image":
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

    async def _create_volume(self, draft: ContainerDraft, mount: Planned, made: list[str]) -> MountPoint:
        if mount.source:
            self._volumes.reserve(mount.source, draft.id)
        try:
            record, fresh = await self._volumes.ensure(
                mount.source,
                driver=mount.driver,
                options=mount.driver_options,
                labels=mount.labels,
                owner="" if mount.source else draft.id,
            )
        except NotFound as error:
            raise InvalidParameter(str(error)) from None
        self._volumes.reserve(record.Name, draft.id)
        if fresh:
            made.append(record.Name)
        if not mount.nocopy and not mount.subpath:
            await self._copy_up(draft, mount.target, record, fresh)
        if draft.ids is not None and self._plain(record):
            # Some runtimes go to the volume as the namespace's root.
            await self._thread(os.chown, self._ctx.root, -1, draft.ids.root[1])
            await self._thread(give_to_root, str(self._local.data(record.Name)), draft.ids)
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
        async with self._mounted_for_copy(record) as path:
            if await self._touch(record, is_empty, path):
                await self._thread(copy_up, await draft.rootfs(), target, path, fresh=False, pool=record.Driver)

    @asynccontextmanager
    async def _mounted_for_copy(self, record: VolumeRecord) -> AsyncIterator[str]:
        request = new_id()
        run = await self._intend(request, request, [record])
        try:
            yield (await self._mount_each(run, [record]))[record.Name]
        finally:
            if (left := self._runs.get(run.Id)) is not None:
                await self._give_back(left)

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
                case "image":
                    continue
                case "tmpfs":
                    options = tmpfs_options(mount.Options.get("Words", ()))
                    preparation.mounts.append(OciMount(mount.Destination, "tmpfs", "tmpfs", options))
                    continue
                case "volume":
                    source = sources[mount.Name]
                    if mount.Subpath:
                        record = self._volumes.get(mount.Name)
                        place = self._ctx.run / container.Id
                        source = await self._touch(record, pin, source, mount.Subpath, place, number)
                case _:
                    source = await self._thread(bind_source, mount, container.Ids)
                    if mount.Options.get("NonRecursive") and await self._thread(os.path.isdir, source):
                        source = await self._thread(alone, mount, self._ctx.run / container.Id, number)
            preparation.mounts.append(OciMount(mount.Destination, source, "bind", bind_options(mount)))
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
            run = await self._intend(container.Id, new_id(), held)
            paths |= await self._mount_each(run, held)
        return paths

    async def _intend(self, run_id: str, request: str, records: list[VolumeRecord]) -> MountRun:
        volumes = [HeldVolume(Name=record.Name, Driver=record.Driver) for record in records]
        run = MountRun(Id=run_id, Request=request, Boot=BOOT, Volumes=volumes)
        await self._runs.put(run)
        return run

    async def _mount_each(self, run: MountRun, records: list[VolumeRecord]) -> dict[str, str]:
        """Volume names to paths on the host. After a failure the run says which of them have to be unmounted."""
        paths: dict[str, str] = {}
        mounted = 0
        try:
            for record in records:
                await self._owed.quiet(record.Name, QUIET_PATIENCE)
                driver = await self._volumes.driver_of(record)
                mounted += 1
                try:
                    path = _checked(await driver.mount(record.Name, run.Request), record)
                except PluginRefusal:
                    # It has mounted nothing, and may count by calls; who does not answer may have mounted it all the same.
                    mounted -= 1
                    raise
                if record.Driver != "local" and not await self._touch(record, os.path.isdir, path):
                    raise EngineError(
                        f"volume driver {record.Driver} gave {path} as mount point of volume {record.Name}, and there is"
                        f" no such directory"
                    )
                paths[record.Name] = path
        except BaseException:
            await self._runs.put(run.model_copy(update={"Volumes": run.Volumes[:mounted]}))
            raise
        return paths

    async def _touch(self, record: VolumeRecord, function: Callable[..., T], path: str, *args: Any) -> T:
        """Look at what a volume's driver has mounted, which need not answer."""
        try:
            async with asyncio.timeout(TOUCH_DEADLINE):
                return await self._thread(function, path, *args, pool=record.Driver)
        except TimeoutError:
            raise DeadlineExceeded(
                f"volume driver {record.Driver}: the mount point {path} of volume {record.Name} did not answer within"
                f" {TOUCH_DEADLINE:g} s"
            ) from None

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
        pinned = [mount for mount in container.Mounts if mount.Type in ("bind", "volume")]
        if any(mount.Subpath or mount.Options.get("NonRecursive") for mount in pinned):
            await self._thread(unpin, self._ctx.run / container.Id)
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
            if held.Driver == "local":
                await self._local.unmount(held.Name, run.Request)
        others = [owed(one.Name, one.Driver, run.Request, run.Boot) for one in run.Volumes if one.Driver != "local"]
        await self._owed.take(others, instead=(self._runs, run.Id))

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
        self._before = [*self._runs.values()]
        for run in self._before:
            for held in run.Volumes:
                if held.Driver == "local":
                    self._local.resume(held.Name, run.Request)

    def restore(self) -> None:
        """Containers that run already will be released one day; what was mounted for others is given back."""
        self._owed.resume()
        containers = self._ctx.find(Containers)
        if containers is None:
            return
        known = containers.list()
        self._mounted |= {record.Id for record in known if record.State.running and record.Mounts}
        before, self._before = self._before, []
        for run in before:
            if run.Id not in {record.Id for record in known}:
                self._ctx.spawn(self._give_back(run), name=f"unmount for {run.Id[:12]}")

    async def _thread(self, function: Callable[..., T], *args: Any, pool: str = "", **kwargs: Any) -> T:
        threads = self._threads.get(pool)
        if threads is None:
            threads = self._threads[pool] = ThreadPoolExecutor(THREADS, thread_name_prefix=f"volumes {pool}".rstrip())
        return await asyncio.get_running_loop().run_in_executor(threads, lambda: function(*args, **kwargs))


def _wants_mounts(draft: ContainerDraft) -> bool:
    host = draft.host
    return bool(host.Binds or host.Mounts or host.Tmpfs or host.VolumesFrom or draft.config.Volumes)


def _checked(path: str, record: VolumeRecord) -> str:
    if not path.startswith("/"):
        raise EngineError(f"volume driver {record.Driver} gave no mount point for volume {record.Name}: {path!r}")
    return path

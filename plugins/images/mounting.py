"""Images mounted into containers (`--mount type=image`): read-only views of an image's files.

Each is a bare writable layer of the storage driver, mounted for a run and bound read-only, that lives as long as its
container: so its layers stay when the image is removed by force, as those of the container's own image do.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence

from plugin_sdk import EngineError, Holder, InvalidParameter, NotFound, PluginContext
from plugin_sdk.aio import blocking
from plugin_sdk.containers import ContainerDraft, ContainerRecord, Containers, Mount, MountPoint, Preparation
from plugin_sdk.images import Image
from plugin_sdk.rootfs import open_in_root
from plugin_sdk.runtime import OciMount
from plugin_sdk.storage import Storage, StorageDriver

from .store import Images

_LAYER = re.compile(r"image\.([0-9a-f]{64})\.\d+\Z")
_OPTIONS = ("rbind", "rprivate", "ro")


class ImageMounts:
    """Implements the hooks of a container's life; knows nothing of plugins."""

    def __init__(self, ctx: PluginContext, store: Images, storage: Storage, found: Iterable[str]) -> None:
        """`found`: names of the writable layers that an earlier daemon left."""
        self._ctx = ctx
        self._store = store
        self._storage = storage
        self._found = [name for name in found if _LAYER.match(name)]
        self._drafts: dict[str, set[str]] = {}

    def validate(self, draft: ContainerDraft) -> None:
        """See `engine_container_validate`."""
        for mount in _wanted(draft):
            self._image(mount)
            _subpath(mount)

    def _image(self, mount: Mount) -> Image:
        try:
            return self._store.get(mount.Source)
        except NotFound as error:
            # No 404: clients would take it for the container's own image, and pull that.
            raise InvalidParameter(f'invalid mount config for type "image": {error}; pull it first') from None

    async def create(self, draft: ContainerDraft) -> None:
        """See `engine_container_create`."""
        for number, mount in enumerate(_wanted(draft)):
            image = self._image(mount)
            self._drafts.setdefault(draft.id, set()).add(image.Id)
            layer = f"image.{draft.id}.{number}"
            facts = {"ImageID": image.Id, "Layer": layer}
            point = MountPoint(
                Type="image",
                Name=mount.Source,
                Destination="/" + posixpath.normpath(mount.Target).lstrip("/"),
                RW=False,
                Subpath=_subpath(mount),
                Options=facts,
            )
            draft.mounts.append(point)  # first: a removal takes back what is listed here
            driver = self._storage.driver()
            await driver.create(layer, image.ChainID, bare=True)
            source = driver.metadata(layer).get("MergedDir", "")
            draft.mounts[draft.mounts.index(point)] = point.model_copy(update={"Source": source})

    async def prepare(self, container: ContainerRecord, preparation: Preparation) -> None:
        """See `engine_container_prepare`."""
        self._drafts.pop(container.Id, None)
        for mount, layer in _mounts(container):
            driver = self._driver(container)
            mounted = driver.mount(layer, ids=container.Ids) if container.Ids else driver.mount(layer)
            root = str(await mounted)
            source = await blocking(_place, root, mount.Subpath, mount.Name) if mount.Subpath else root
            preparation.mounts.append(OciMount(mount.Destination, source, "bind", _OPTIONS))

    async def release(self, container: ContainerRecord) -> None:
        """See `engine_container_release`."""
        for _, layer in _mounts(container):
            await self._driver(container).unmount(layer)

    async def remove(self, container: ContainerRecord) -> None:
        """See `engine_container_remove`."""
        for _, layer in _mounts(container):
            await self._driver(container).remove(layer)
        self._drafts.pop(container.Id, None)

    def holders(self, image_id: str) -> Sequence[Holder]:
        """Containers that mount an image."""
        found = [Holder("container", owner, owner[:12]) for owner, images in self._drafts.items() if image_id in images]
        containers = self._ctx.find(Containers)
        for record in containers.list() if containers is not None else ():
            if any(mount.Options["ImageID"] == image_id for mount, _ in _mounts(record)):
                found.append(Holder("container", record.Id, record.Name, str(record.State.Status)))
        return found

    async def restore(self) -> None:
        """Remove the layers of containers whose creation was cut off."""
        containers = self._ctx.find(Containers)
        if containers is None:
            return
        known = {record.Id for record in containers.list()}
        for name in self._found:
            owner = _LAYER.match(name)
            if owner is not None and owner[1] not in known:
                try:
                    await self._storage.driver().remove(name)
                except EngineError as error:
                    self._ctx.log.warning("cannot remove layer %s, which no container has: %s", name, error)

    def _driver(self, container: ContainerRecord) -> StorageDriver:
        return self._storage.driver(container.Driver)


def _wanted(draft: ContainerDraft) -> list[Mount]:
    return [mount for mount in draft.host.Mounts if mount.Type == "image"]


def _mounts(container: ContainerRecord) -> Iterator[tuple[MountPoint, str]]:
    """The image mounts of a container, each with its layer's name."""
    return ((mount, str(mount.Options["Layer"])) for mount in container.Mounts if mount.Type == "image")


def _subpath(mount: Mount) -> str:
    path = (mount.ImageOptions or {}).get("Subpath") or ""
    if not isinstance(path, str) or "\0" in path or path.startswith("/") or ".." in path.split("/"):
        raise InvalidParameter(
            'invalid mount config for type "image": subpath must be a relative path within the image'
        )
    return path


def _place(root: str, subpath: str, name: str) -> str:
    """Where a path within an image's files is; links lead nowhere outside of them. Blocking.

    The path stays good: nothing can change these files while they are mounted.
    """
    try:
        found = open_in_root(root, subpath)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InvalidParameter(f"cannot access path {subpath} of image {name}: {reason}") from None
    try:
        return os.readlink(f"/proc/self/fd/{found}")
    finally:
        os.close(found)

"""Wires images into the engine, and says which storage driver is meant."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import cached_property
from typing import Any

from pydantic import BaseModel

from plugin_sdk import (
    Drivers,
    EngineError,
    Event,
    Holder,
    InvalidParameter,
    Plugin,
    PluginContext,
    PluginMeta,
    hookimpl,
    setting,
)
from plugin_sdk.api import RouterSpec
from plugin_sdk.containers import ContainerDraft, ContainerRecord, Preparation
from plugin_sdk.images import ImageStore
from plugin_sdk.runtime import Exit
from plugin_sdk.storage import Storage, StorageDriver

from .mounting import ImageMounts
from .store import Images

SWEEP_AFTER = (0.1, 0.5, 2.0, 10.0, 60.0)
"""Seconds between the tries to remove a layer after a container was destroyed: its files go a little later."""


class Settings(BaseModel):
    """Settings of this plugin."""

    storage_driver: str = setting(
        "overlay2", "Storage driver to use", flag="--storage-driver", short="-s", metavar="NAME"
    )


class ChosenStorage:
    """Fulfils `Storage`."""

    def __init__(self, default: str, drivers: Drivers) -> None:
        self.default = default
        self._drivers = drivers

    def driver(self, name: str = "") -> StorageDriver:
        """See `Storage`."""
        return self._drivers.get(StorageDriver, name or self.default)

    def present(self) -> list[StorageDriver]:
        """The default driver, if it is there."""
        found = self._drivers.all(StorageDriver).get(self.default)
        return [found] if found is not None else []


class ImagesPlugin(Plugin):
    """Images and their store."""

    meta = PluginMeta(
        name="images",
        description="Images: import, load, save, tag, inspect, remove",
        provides=(ImageStore, Storage),
        requires=(StorageDriver,),
        settings=Settings,
    )

    async def start(self, ctx: PluginContext) -> None:
        """Open the store."""
        self._ctx = ctx
        self._sweeping: asyncio.Task[None] | None = None
        self._storage = ChosenStorage(ctx.settings.storage_driver or "overlay2", ctx.drivers)
        self._store = Images(ctx.state, self._storage, ctx.events, self._holders, ctx.log)
        if not self._storage.present():
            known = ", ".join(ctx.drivers.all(StorageDriver))
            raise InvalidParameter(
                f"--storage-driver: no driver is named {self._storage.default!r} (there are: {known})"
            )
        # Only what an earlier daemon left may go at the restore: what is made from now on may still get its image.
        self._found = [layer.chain_id for driver in self._storage.present() for layer in driver.layers()]
        left = [name for driver in self._storage.present() for name in driver.writable()]
        self._mounts = ImageMounts(ctx, self._store, self._storage, left)
        ctx.provide(Storage, self._storage)
        ctx.provide(ImageStore, self._store)

    async def restore(self) -> None:
        """Remove layers that nothing needs, and report images that lack one."""
        try:
            self._storage.driver()
        except EngineError as error:
            self._ctx.log.error("no image can be used: %s", error)
            return
        for image in self._store.damaged():
            names = ", ".join(image.Tags) or "no name"
            self._ctx.log.error("image %s (%s) lacks layers: load or pull it again, or remove it", image.Id, names)
        await self._mounts.restore()
        await self._store.sweep(self._found)

    @hookimpl
    def engine_holders(self, kind: str, key: str) -> Iterable[Holder]:
        """Images that a layer belongs to; containers that an image is mounted into."""
        if kind == "image":
            return self._mounts.holders(key)
        return self._store.holders_of_layer(key) if kind == "layer" else ()

    @hookimpl(order=25)
    async def engine_container_validate(self, draft: ContainerDraft) -> None:
        """Check the images to be mounted."""
        self._mounts.validate(draft)

    @hookimpl(order=25)
    async def engine_container_create(self, draft: ContainerDraft) -> None:
        """Make the layers of image mounts."""
        await self._mounts.create(draft)

    @hookimpl(order=25)
    async def engine_container_prepare(self, container: ContainerRecord, preparation: Preparation) -> None:
        """Mount images."""
        await self._mounts.prepare(container, preparation)

    @hookimpl(order=25)
    async def engine_container_release(self, container: ContainerRecord, exit: Exit | None) -> None:
        """Unmount them."""
        await self._mounts.release(container)

    @hookimpl(order=25)
    async def engine_container_remove(self, container: ContainerRecord, volumes: bool) -> None:
        """Remove their layers."""
        await self._mounts.remove(container)

    def _holders(self, image_id: str) -> Iterable[Holder]:
        for _, found in self._ctx.hooks.sync("engine_holders", kind="image", key=image_id):
            yield from found

    @cached_property
    def _routers(self) -> list[RouterSpec]:
        from . import api

        return [RouterSpec(api.router(self._store, self._storage, self._ctx.root, self._ctx.events))]

    @hookimpl
    def engine_api_routers(self) -> Iterable[RouterSpec]:
        """`/images`."""
        return self._routers

    @hookimpl
    async def engine_event(self, event: Event) -> None:
        """A container goes: layers whose image went before it may be free soon."""
        if event.type == "container" and event.action == "destroy" and self._store.orphans:
            if self._sweeping is not None:
                self._sweeping.cancel()
            self._sweeping = self._ctx.spawn(self._sweep_orphans(), name="remove layers without an image")

    async def _sweep_orphans(self) -> None:
        for delay in SWEEP_AFTER:
            await asyncio.sleep(delay)
            if orphans := self._store.orphans:
                await self._store.sweep(orphans)

    @hookimpl
    def engine_info(self) -> dict[str, Any]:
        """Images, Driver, DriverStatus."""
        info: dict[str, Any] = {"Images": len(self._store.list()), "Driver": self._storage.default, "DriverStatus": []}
        try:
            info["DriverStatus"] = [list(pair) for pair in self._storage.driver().status()]
        except EngineError as error:
            info["Warnings"] = [f"WARNING: no image can be used: {error}"]
        return info

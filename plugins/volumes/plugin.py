"""Wires volumes into the engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from plugin_sdk import DriverSpec, Holder, Plugin, PluginContext, PluginMeta, hookimpl
from plugin_sdk.api import RouterSpec
from plugin_sdk.containers import ContainerDraft, ContainerRecord, Preparation
from plugin_sdk.managed import InterfaceAdapter
from plugin_sdk.runtime import Exit, OciSpec
from plugin_sdk.volumes import VolumeDriver, Volumes

from .local import LocalDriver
from .mounts import ContainerMounts
from .owed import PATIENCE, OwedUnmounts
from .remote import INTERFACE, VolumeInterface
from .service import VolumeService
from .survey import Survey


class VolumesPlugin(Plugin):
    """Provides `Volumes` and the driver "local"; gives containers their volumes, bind mounts and tmpfs."""

    meta = PluginMeta(
        name="volumes",
        description="named and anonymous volumes, bind mounts, tmpfs; the driver local",
        provides=(Volumes,),
        drivers=(VolumeDriver,),
    )

    async def start(self, ctx: PluginContext) -> None:
        """See `Plugin.start`."""
        self._ctx = ctx
        ctx.root.mkdir(parents=True, exist_ok=True)
        # What containers make may be set-user-ID root's, and is for no other user of the host to run.
        ctx.root.chmod(0o710)
        self._local = LocalDriver(ctx.root)
        self._interface = VolumeInterface()
        self._unmounts = OwedUnmounts(ctx)
        self._volumes = VolumeService(ctx, self._local, self._unmounts)
        self._survey = Survey(ctx, self._volumes, self._local)
        self._mounts = ContainerMounts(ctx, self._volumes, self._local, self._unmounts)
        self._mounts.resume()
        ctx.provide(Volumes, self._volumes)

    async def restore(self) -> None:
        """See `Plugin.restore`."""
        self._mounts.restore()
        await self._volumes.restore()

    async def stop(self) -> None:
        """See `Plugin.stop`."""
        for part in ("_mounts", "_local"):
            if hasattr(self, part):
                getattr(self, part).close()

    @hookimpl
    def engine_drivers(self) -> Iterable[DriverSpec]:
        """The driver "local"."""
        return [DriverSpec(VolumeDriver, "local", self._local, deadline=60.0)]

    @hookimpl
    def engine_managed_interfaces(self) -> Mapping[str, InterfaceAdapter]:
        """Volume drivers on sockets."""
        return {INTERFACE: self._interface}

    @hookimpl
    async def engine_ready(self, addresses: list[str]) -> None:
        """All is restored: from now on, the end of a container may wait for its volumes."""
        self._unmounts.patience = PATIENCE

    @hookimpl
    def engine_holders(self, kind: str, key: str) -> Iterable[Holder]:
        """Volumes need the plugin of their driver."""
        return self._volumes.kept_by(key) if kind == "plugin" else ()

    @cached_property
    def _routers(self) -> list[RouterSpec]:
        from .api import make_router

        return [RouterSpec(make_router(self._ctx, self._volumes, self._survey))]

    @hookimpl
    def engine_api_routers(self) -> Iterable[RouterSpec]:
        """`/volumes`."""
        return self._routers

    @hookimpl
    def engine_info(self) -> dict[str, Any]:
        """`Plugins.Volume`."""
        return {"Plugins": {"Volume": [*self._ctx.drivers.all(VolumeDriver)]}}

    @hookimpl(order=20)
    async def engine_container_validate(self, draft: ContainerDraft) -> None:
        """Check what shall be mounted."""
        await self._mounts.validate(draft)

    @hookimpl(order=20)
    async def engine_container_create(self, draft: ContainerDraft) -> None:
        """Make the volumes."""
        await self._mounts.create(draft)

    @hookimpl(order=20)
    async def engine_container_prepare(self, container: ContainerRecord, preparation: Preparation) -> None:
        """Mount."""
        await self._mounts.prepare(container, preparation)

    @hookimpl(order=20)
    def engine_oci_spec(self, container: ContainerRecord, spec: OciSpec) -> None:
        """Propagation of the root file system."""
        self._mounts.shape(container, spec)

    @hookimpl(order=20)
    async def engine_container_release(self, container: ContainerRecord, exit: Exit | None) -> None:
        """Unmount."""
        await self._mounts.release(container)

    @hookimpl(order=20)
    async def engine_container_remove(self, container: ContainerRecord, volumes: bool) -> None:
        """Remove the container's anonymous volumes."""
        await self._mounts.remove(container, volumes)

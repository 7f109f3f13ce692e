"""Wires the driver "overlay2" into the engine."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel

from plugin_sdk import DriverSpec, InvalidParameter, Plugin, PluginContext, PluginMeta, hookimpl, setting
from plugin_sdk.aio import blocking
from plugin_sdk.storage import StorageDriver

from .driver import Overlay2
from .quota.choice import size_of

NAME = "overlay2"


class Settings(BaseModel):
    """Settings of this plugin."""

    storage_opts: list[str] = setting(
        [], "Option of the storage driver, KEY=VALUE", flag="--storage-opt", key="storage-opts", metavar="KEY=VALUE"
    )


class StorageOverlay2Plugin(Plugin):
    """The storage driver "overlay2"."""

    meta = PluginMeta(
        name="storage_overlay2",
        description="Image layers and container file systems on overlayfs",
        drivers=(StorageDriver,),
        settings=Settings,
    )

    async def start(self, ctx: PluginContext) -> None:
        """Check the options and the backing file system."""
        size = default_size(ctx.settings.storage_opts)
        self._driver = Overlay2(ctx.root, ctx.log, lambda work, name: ctx.spawn(work, name=name), size=size)
        await blocking(self._driver.open)

    async def restore(self) -> None:
        """Settle what a crash left behind."""
        await self._driver.recover()

    @hookimpl
    def engine_drivers(self) -> Iterable[DriverSpec]:
        """The driver."""
        return [DriverSpec(StorageDriver, NAME, self._driver)]


def default_size(options: Iterable[str]) -> int:
    """Bytes of `overlay2.size`, 0 without. Options of other drivers (`btrfs.x=...`) are not ours to judge.

    Raises InvalidParameter for what cannot be fulfilled, naming the option.
    """
    size = 0
    for option in options:
        key, equals, value = option.partition("=")
        driver, _, name = key.strip().lower().rpartition(".")
        if not equals:
            raise InvalidParameter(f"--storage-opt {option!r}: want KEY=VALUE, for example overlay2.size=10G")
        if driver not in ("", NAME):
            continue
        if name == "size":
            size = size_of(value)
        elif name != "override_kernel_check":
            raise InvalidParameter(f"--storage-opt {key}={value}: unknown option for overlay2")
    return size

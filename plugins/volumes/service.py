"""The volumes of all drivers: their records, and who uses them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

from plugin_sdk import (
    Conflict,
    EngineError,
    Event,
    Holder,
    NotFound,
    PluginContext,
    PluginError,
    PluginRefusal,
    Unavailable,
)
from plugin_sdk.containers import Containers
from plugin_sdk.managed import ManagedPlugins
from plugin_sdk.reference import DEFAULT_TAG
from plugin_sdk.text import new_id
from plugin_sdk.times import now
from plugin_sdk.volumes import VolumeDriver, VolumeRecord

from .local import LocalDriver
from .owed import OwedUnmounts

ANONYMOUS_LABEL = "com.docker.volume.anonymous"

PATH_DEADLINE = 2.0
"""Seconds that a driver may take to tell a mount point that is only shown."""
FORCE_DEADLINE = 10.0
"""Seconds that a forced removal gives the driver before the volume is forgotten without it."""
RESERVED_FOR = 600.0
"""Seconds after which a container that never came to be no longer keeps its volumes."""


class VolumeService:
    """Fulfils `plugin_sdk.volumes.Volumes`."""

    def __init__(self, ctx: PluginContext, local: LocalDriver, owed: OwedUnmounts) -> None:
        self._ctx = ctx
        self._local = local
        self._owed = owed
        self._records = ctx.state.collection(
            "volumes",
            VolumeRecord,
            key=lambda volume: volume.Name,
            index={"owner": lambda volume: volume.Owner or None},
        )
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}
        self._reserved: dict[str, dict[str, float]] = {}

    def get(self, name: str) -> VolumeRecord:
        """See `Volumes.get`."""
        record = self.find(name)
        if record is None:
            raise NotFound(f"get {name}: no such volume")
        return record

    def find(self, name: str) -> VolumeRecord | None:
        """A volume of ours, or None."""
        return self._records.get(name)

    def list(self) -> Sequence[VolumeRecord]:
        """See `Volumes.list`."""
        return self._records.values()

    def owned(self, container_id: str) -> Sequence[VolumeRecord]:
        """Anonymous volumes that were made for a container."""
        return self._records.by("owner", container_id)

    async def create(
        self,
        name: str = "",
        *,
        driver: str = "local",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        anonymous: bool = False,
        owner: str = "",
    ) -> VolumeRecord:
        """See `Volumes.create`. Driver "": that of an existing volume, else "local".

        Args:
            anonymous: nobody chose its name: pruned by default, and removed with its container.
            owner: ID of the container that it is for.
        """
        record, _ = await self.ensure(
            name, driver=driver, options=options, labels=labels, anonymous=anonymous, owner=owner
        )
        return record

    async def ensure(
        self,
        name: str,
        *,
        driver: str = "",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        anonymous: bool = False,
        owner: str = "",
    ) -> tuple[VolumeRecord, bool]:
        """Like `create`; tells also whether it is new."""
        named = bool(name)
        name = name or new_id()
        async with self._lock(name):
            existing = self._records.get(name)
            if existing is not None:
                if driver and not self.is_driver(existing.Driver, driver):
                    raise Conflict(
                        f"create {name}: conflict: volume name must be unique: it exists with the driver "
                        f"{existing.Driver}"
                    )
                return existing, False
            driver = driver or "local"
            try:
                found = await self.driver(driver)
            except NotFound as error:
                raise NotFound(f"create {name}: error looking up volume plugin {driver}: {error}") from None
            anonymous = anonymous or not named
            record = VolumeRecord(
                Name=name,
                Driver=self._ctx.drivers.canonical(VolumeDriver, driver),
                CreatedAt=now().partition(".")[0] + "Z",
                Labels={**(labels or {}), **({ANONYMOUS_LABEL: ""} if anonymous else {})},
                Options=dict(options or {}),
                Scope=found.scope(),
                Anonymous=anonymous,
                Owner=owner,
            )
            await self._make(found, record)
        self._publish("create", record)
        return record, True

    async def _make(self, driver: VolumeDriver, record: VolumeRecord) -> None:
        # Record first: what a crash leaves behind is then known, listed and removable.
        await self._records.put(record)
        try:
            await driver.create(record.Name, record.Options)
        except BaseException as error:
            await self._records.delete(record.Name)
            # Those of plugins tell the plugin and the call already.
            if isinstance(error, EngineError) and not isinstance(error, PluginError | PluginRefusal):
                raise type(error)(f"create {record.Name}: {error}") from None
            raise

    async def driver(self, name: str) -> VolumeDriver:
        """The driver of that name, which may have to be started or activated first.

        Raises:
            NotFound: there is none; says so when its plugin is disabled.
            EngineError: the reason why its plugin cannot be used.
        """
        try:
            return await self._ctx.drivers.find(VolumeDriver, name)
        except NotFound:
            raise NotFound(self._absent(name)) from None

    def _absent(self, name: str) -> str:
        managed = self._ctx.find(ManagedPlugins)
        if managed is not None:
            try:
                plugin = managed.get(name)
            except NotFound:
                return f'plugin "{name}" not found'
            if not plugin.Enabled:
                return f'plugin "{plugin.Name}" is disabled; enable it to use its volumes'
            return f'plugin "{plugin.Name}" is enabled, and offers no volume driver'
        return f'plugin "{name}" not found'

    async def driver_of(self, record: VolumeRecord) -> VolumeDriver:
        """The driver that keeps a volume. Raises Unavailable when no plugin offers it now."""
        try:
            return await self.driver(record.Driver)
        except NotFound as error:
            raise Unavailable(f"volume {record.Name} cannot be used: its driver is missing: {error}") from None

    def is_driver(self, stored: str, name: str) -> bool:
        """Whether people may call the driver of a record by that name."""
        if stored in (name, f"{name}:{DEFAULT_TAG}"):
            return True
        try:
            return self._ctx.drivers.canonical(VolumeDriver, name) == stored
        except NotFound:
            return False

    async def remove(self, name: str, *, force: bool = False) -> None:
        """See `Volumes.remove`. With `force`, the record goes even when the driver is gone or fails."""
        async with self._lock(name):
            record = self.get(name)
            holders = self.holders(name)
            if holders:
                ids = ", ".join(holder.id for holder in holders)
                raise Conflict(f"remove {name}: volume is in use - [{ids}]")
            try:
                async with asyncio.timeout(FORCE_DEADLINE if force and record.Driver != "local" else None):
                    await self._owed.quiet(name, FORCE_DEADLINE)
                    await (await self.driver_of(record)).remove(name)
            except (EngineError, TimeoutError) as error:
                if isinstance(error, Unavailable) and not force:
                    raise type(error)(f"remove {name}: {error}; to forget it without its driver, use force") from None
                if not force:
                    raise
                reason = str(error) or f"no answer within {FORCE_DEADLINE:g} s"
                self._ctx.log.warning("volume %s is forgotten, though its driver did not remove it: %s", name, reason)
            await self._records.delete(name)
            await self._owed.forget(name)
        self._reserved.pop(name, None)
        self._publish("destroy", record)

    def holders(self, name: str) -> Sequence[Holder]:
        """Who keeps a volume in use: containers, and those about to be."""
        found = self._ctx.hooks.sync("engine_holders", kind="volume", key=name)
        holders = [holder for _, several in found for holder in several]
        known = {holder.id for holder in holders}
        waiting = self._reserved.get(name, {})
        return holders + [
            Holder("container", owner, "", "being created")
            for owner, since in waiting.items()
            if owner not in known and time.monotonic() - since < RESERVED_FOR
        ]

    def kept_by(self, plugin: str) -> Sequence[Holder]:
        """Volumes that could not be used without a plugin, whether its drivers are there now or not."""
        return [
            Holder("volume", record.Name, record.Name, _users(self.holders(record.Name)))
            for record in self.list()
            if record.Driver == plugin or self._owner(record.Driver) == plugin
        ]

    def _owner(self, driver: str) -> str:
        try:
            return self._ctx.drivers.owner(VolumeDriver, driver)
        except NotFound:
            return ""

    def reserve(self, name: str, container_id: str) -> None:
        """A container that has no record yet will use the volume."""
        self._reserved.setdefault(name, {})[container_id] = time.monotonic()

    def unreserve(self, container_id: str) -> None:
        """The container has a record now, or never will."""
        for name, waiting in [*self._reserved.items()]:
            waiting.pop(container_id, None)
            if not waiting:
                del self._reserved[name]

    async def disown(self, container_id: str) -> None:
        """The container goes and its anonymous volumes stay."""
        for record in self.owned(container_id):
            await self._records.put(record.model_copy(update={"Owner": ""}))

    async def path(self, record: VolumeRecord) -> str:
        """Mount point as far as it is known without waiting for other machines."""
        if record.Driver == "local":
            return str(self._local.data(record.Name))
        with suppress(EngineError, TimeoutError):
            async with asyncio.timeout(PATH_DEADLINE):
                return await (await self.driver_of(record)).path(record.Name)
        return ""

    async def usage(self, name: str) -> int:
        """Bytes that a local volume holds; -1 for those of other drivers. Raises NotFound."""
        record = self.get(name)
        return await self._local.usage(name) if record.Driver == "local" else -1

    async def restore(self) -> None:
        """After a start of the daemon: folders of volumes that a crash kept from being made, volumes nobody will own.

        Waits for no other plugin: what one of them has to remove is removed in the background.
        """
        await asyncio.to_thread(self._local.clean)
        containers = self._ctx.find(Containers)
        known = {record.Id for record in containers.list()} if containers is not None else None
        for record in self.list():
            try:
                if record.Driver == "local" and not self._local.data(record.Name).is_dir():
                    await self._local.create(record.Name, record.Options)
                if record.Owner and known is not None and record.Owner not in known and not self.holders(record.Name):
                    if record.Driver == "local":
                        await self.remove(record.Name)
                    else:
                        self._ctx.spawn(self._remove_unowned(record.Name), name=f"remove {record.Name}")
            except (EngineError, OSError) as error:
                self._ctx.log.warning("volume %s could not be restored: %s", record.Name, error)

    async def _remove_unowned(self, name: str) -> None:
        try:
            await self.remove(name)
        except EngineError as error:
            self._ctx.log.warning("volume %s, whose container is gone, stays: %s", name, error)

    def _publish(self, action: str, record: VolumeRecord) -> None:
        self._ctx.events.publish(Event("volume", action, record.Name, {"driver": record.Driver}))

    @asynccontextmanager
    async def _lock(self, name: str) -> AsyncIterator[None]:
        lock, users = self._locks.get(name, (asyncio.Lock(), 0))
        self._locks[name] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[name]
            if users == 1:
                del self._locks[name]
            else:
                self._locks[name] = (lock, users - 1)


def _users(holders: Sequence[Holder]) -> str:
    return f"used by {', '.join(map(str, holders))}" if holders else ""

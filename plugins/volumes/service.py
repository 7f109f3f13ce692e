"""The volumes of all drivers: their records, and who uses them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

from plugin_sdk import Conflict, EngineError, Event, Holder, NotFound, PluginContext, PluginError
from plugin_sdk.containers import Containers
from plugin_sdk.text import new_id
from plugin_sdk.times import now
from plugin_sdk.volumes import DriverVolume, VolumeDriver, VolumeRecord

from .local import LocalDriver

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
Seen = tuple[list[tuple[VolumeRecord, DriverVolume]], list[str]]

LOOK_DEADLINE = 2.0
"""Seconds that one driver may take to tell of its volumes before a listing goes on without it."""
RESERVED_FOR = 600.0
"""Seconds after which a container that never came to be no longer keeps its volumes."""


class VolumeService:
    """Fulfils `plugin_sdk.volumes.Volumes`."""

    def __init__(self, ctx: PluginContext, local: LocalDriver) -> None:
        self._ctx = ctx
        self._local = local
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
        record = self._records.get(name)
        if record is None:
            raise NotFound(f"get {name}: no such volume")
        return record

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
                if driver and existing.Driver != driver:
                    raise Conflict(
                        f"create {name}: conflict: volume name must be unique: it exists with the driver "
                        f"{existing.Driver}"
                    )
                return existing, False
            found = await self._driver(name, driver or "local")
            anonymous = anonymous or not named
            record = VolumeRecord(
                Name=name,
                Driver=driver or "local",
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
            if isinstance(error, EngineError) and not isinstance(error, PluginError):
                raise type(error)(f"create {record.Name}: {error}") from None
            raise

    async def _driver(self, name: str, driver: str) -> VolumeDriver:
        try:
            return await self._ctx.drivers.find(VolumeDriver, driver)
        except NotFound:
            raise NotFound(
                f'create {name}: error looking up volume plugin {driver}: plugin "{driver}" not found'
            ) from None

    async def driver_of(self, record: VolumeRecord) -> VolumeDriver:
        """The driver that keeps a volume. Raises NotFound when no plugin offers it now."""
        return await self._ctx.drivers.find(VolumeDriver, record.Driver)

    async def remove(self, name: str, *, force: bool = False) -> None:
        """See `Volumes.remove`. With `force`, the record goes even when the driver is gone or fails."""
        async with self._lock(name):
            record = self.get(name)
            holders = self.holders(name)
            if holders:
                ids = ", ".join(holder.id for holder in holders)
                raise Conflict(f"remove {name}: volume is in use - [{ids}]")
            try:
                await (await self.driver_of(record)).remove(name)
            except EngineError as error:
                if not force:
                    raise
                self._ctx.log.warning("volume %s is forgotten, though its driver did not remove it: %s", name, error)
            await self._records.delete(name)
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
            async with asyncio.timeout(LOOK_DEADLINE):
                return await (await self.driver_of(record)).path(record.Name)
        return ""

    async def look(self, name: str) -> tuple[VolumeRecord, DriverVolume]:
        """A volume with what its driver says of it; one that only a driver knows is found too.

        Raises NotFound, or Unavailable / PluginError when the driver does not answer.
        """
        record = self._records.get(name)
        if record is not None:
            if record.Driver == "local":
                return record, DriverVolume(name, await self.path(record), record.CreatedAt)
            return record, await (await self.driver_of(record)).get(name)
        for driver_name in self._foreign():
            with suppress(EngineError, TimeoutError):
                async with asyncio.timeout(LOOK_DEADLINE):
                    volume = await self._ctx.drivers.get(VolumeDriver, driver_name).get(name)
                return self._stranger(driver_name, volume), volume
        raise NotFound(f"get {name}: no such volume")

    async def survey(self) -> Seen:
        """All volumes of all drivers, and a warning for each driver that did not answer in time."""
        own = {record.Name: record for record in self.list()}
        names = self._foreign()
        answers = await asyncio.gather(*(self._ask(name) for name in names))
        warnings: list[str] = []
        told: dict[str, dict[str, DriverVolume]] = {}
        for name, (volumes, problem) in zip(names, answers, strict=True):
            told[name] = {volume.name: volume for volume in volumes}
            if problem:
                warnings.append(problem)
        found: list[tuple[VolumeRecord, DriverVolume]] = []
        for record in own.values():
            if record.Driver == "local":
                found.append((record, DriverVolume(record.Name, str(self._local.data(record.Name)))))
            else:
                found.append((record, told.get(record.Driver, {}).get(record.Name, DriverVolume(record.Name))))
        for driver, theirs in told.items():
            found += [(self._stranger(driver, volume), volume) for name, volume in theirs.items() if name not in own]
        return sorted(found, key=lambda pair: pair[0].Name), warnings

    async def _ask(self, driver: str) -> tuple[Sequence[DriverVolume], str]:
        try:
            async with asyncio.timeout(LOOK_DEADLINE):
                return await self._ctx.drivers.get(VolumeDriver, driver).list(), ""
        except TimeoutError:
            return (), f"volume driver {driver} did not answer within {LOOK_DEADLINE:g} s: its volumes may be missing"
        except EngineError as error:
            return (), f"volume driver {driver}: {error}"

    def _foreign(self) -> Iterable[str]:
        return [name for name in self._ctx.drivers.all(VolumeDriver) if name != "local"]

    def _stranger(self, driver: str, volume: DriverVolume) -> VolumeRecord:
        scope = self._ctx.drivers.get(VolumeDriver, driver).scope()
        return VolumeRecord(Name=volume.name, Driver=driver, CreatedAt=volume.created_at, Scope=scope)

    async def usage(self, name: str) -> int:
        """Bytes that a local volume holds; -1 for those of other drivers. Raises NotFound."""
        record = self.get(name)
        return await self._local.usage(name) if record.Driver == "local" else -1

    async def restore(self) -> None:
        """After a start of the daemon: folders of volumes that a crash kept from being made, volumes nobody will own."""
        await asyncio.to_thread(self._local.clean)
        containers = self._ctx.find(Containers)
        known = {record.Id for record in containers.list()} if containers is not None else None
        for record in self.list():
            try:
                if record.Driver == "local" and not self._local.data(record.Name).is_dir():
                    await self._local.create(record.Name, record.Options)
                if record.Owner and known is not None and record.Owner not in known and not self.holders(record.Name):
                    await self.remove(record.Name)
            except (EngineError, OSError) as error:
                self._ctx.log.warning("volume %s could not be restored: %s", record.Name, error)

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

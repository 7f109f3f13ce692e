"""The logs of all containers; fulfils `plugin_sdk.logs.Logs`."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import TypeVar

from plugin_sdk import EngineError, Holder, InvalidParameter, NotFound, NotSupported, PluginContext, Unavailable
from plugin_sdk.containers import ContainerDraft, ContainerRecord, Containers, LogChoice, Preparation
from plugin_sdk.logoptions import check_common
from plugin_sdk.logs import LogDriver, LogEntry, LogInfo, LogQuery
from plugin_sdk.runtime import LogTarget

from .batch import Batch, to_entries
from .channel import Channel
from .options import attributes
from .outlet import known
from .reading import Reader
from .spool import LIVE
from .watch import Watcher

T = TypeVar("T")

NONE = "none"
UNREADABLE = "configured logging driver does not support reading"
MEET_DEADLINE = 5.0
"""Seconds that a start, or a reader, waits for a plugin that is being started or activated."""
_THREADS = 4


class LogService:
    """Fulfils `plugin_sdk.logs.Logs`, and implements the hooks of a container's life."""

    def __init__(self, ctx: PluginContext, default: LogChoice) -> None:
        self._ctx = ctx
        self.default = default
        self._channels: dict[str, Channel] = {}
        self._leaving: set[Channel] = set()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="logs")
        self._watcher = Watcher(LIVE, watched(self._channels), self._changed)

    async def stop(self) -> None:
        """Close the sinks; what they have not taken stays buffered, and containers go on writing."""
        await asyncio.gather(*(channel.halt() for channel in [*self._channels.values(), *self._leaving]))
        self._watcher.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _changed(self, container_id: str) -> None:
        channel = self._channels.get(container_id)
        if channel is not None:
            channel.changed()

    # The hooks of a container's life.

    async def validate(self, draft: ContainerDraft) -> None:
        """See `engine_container_validate`."""
        choice = self._completed(draft.host.LogConfig)
        driver = await self._driver(choice.Type)
        driver.validate(choice.Config)
        check_common(choice.Config)
        if choice != draft.host.LogConfig:
            draft.host = draft.host.model_copy(update={"LogConfig": choice})
        draft.log_path = driver.log_path(self._info(_before(draft)))

    def _completed(self, choice: LogChoice) -> LogChoice:
        name = choice.Type or self.default.Type
        if name != self.default.Type:
            return choice
        return LogChoice(Type=name, Config={**self.default.Config, **choice.Config})

    async def _driver(self, name: str) -> LogDriver:
        """Waits while its plugin is being started. Raises InvalidParameter when there is none."""
        try:
            return await self._ctx.drivers.find(LogDriver, name)
        except NotFound as error:
            text = f'error looking up logging plugin {name}: plugin "{name}" not found: {error}'
            raise InvalidParameter(text) from None

    async def _met(self, name: str) -> LogDriver | None:
        """The driver; None when its plugin does not answer, or is not there within some seconds.

        Raises:
            InvalidParameter: there is no such plugin, or it is disabled.
        """
        try:
            async with asyncio.timeout(MEET_DEADLINE):
                return await self._driver(name)
        except (Unavailable, TimeoutError) as error:
            self._ctx.log.warning("log driver %s: %s", name, str(error) or f"not there within {MEET_DEADLINE:g} s")
            return None

    async def prepare(self, container: ContainerRecord, preparation: Preparation) -> None:
        """See `engine_container_prepare`. A plugin that is there and does not answer keeps no container from running:
        what it writes is buffered."""
        if container.HostConfig.LogConfig.Type == NONE:
            return
        try:
            channel = self._channel(container, await self._met(container.HostConfig.LogConfig.Type))
            await channel.begin()
            await channel.greet()
        except EngineError as error:
            raise InvalidParameter(f"failed to initialize logging driver: {error}") from error
        preparation.log = LogTarget(channel.spool.live, channel.segment_size)

    def release(self, container: ContainerRecord) -> None:
        """See `engine_container_release`. What is left in the buffer is moved behind the answer."""
        channel = self._channels.get(container.Id)
        if channel is None:
            return
        if channel.idle:
            channel.end(drain=False)
            self._retire(channel)
            return
        kept_here = channel.outlet.raw or channel.outlet.buffered
        channel.end(drain=not (container.HostConfig.AutoRemove and kept_here))

    async def remove(self, container: ContainerRecord) -> None:
        """See `engine_container_remove`."""
        if container.HostConfig.LogConfig.Type == NONE:
            return
        channel = self._channel(container)
        self._channels.pop(container.Id, None)
        if channel.outlet.raw or channel.outlet.buffered:
            await channel.remove()
            return
        # Nobody waits for a plugin; what a stop of the daemon leaves of it is an orphan at the next start.
        self._leaving.add(channel)
        self._ctx.spawn(self._leave(channel), name=f"log of removed container {container.Id[:12]}")

    async def _leave(self, channel: Channel) -> None:
        try:
            await channel.remove()
        finally:
            self._leaving.discard(channel)

    async def restore(self) -> None:
        """After a start of the daemon: go on with what was not yet moved; drop what belongs to nobody."""
        containers = self._ctx.find(Containers)
        if containers is None:
            return
        records = {record.Id: record for record in containers.list()}
        for folder in [*self._ctx.root.iterdir()] if self._ctx.root.is_dir() else []:
            record = records.get(folder.name)
            try:
                if record is None:
                    await self._orphan(containers, folder.name)
                elif folder.name not in self._channels:
                    self._resume(record)
            except Exception as error:  # noqa: BLE001 - one container's log must not keep the others'
                self._ctx.log.warning("container %s: its log could not be taken up: %s", folder.name[:12], error)

    def _resume(self, record: ContainerRecord) -> None:
        channel = self._channel(record)
        if record.State.running:
            channel.resume()
        elif channel.spool.written() and not channel.outlet.buffered:
            channel.end(drain=True)
        else:
            self._retire(channel)

    async def _orphan(self, containers: Containers, container_id: str) -> None:
        try:
            containers.get(container_id)
        except NotFound:
            await asyncio.to_thread(shutil.rmtree, self._ctx.root / container_id, ignore_errors=True)

    # Channels.

    def _info(self, container: ContainerRecord) -> LogInfo:
        return LogInfo(container, container.HostConfig.LogConfig.Config, self._ctx.root / container.Id)

    def _channel(self, container: ContainerRecord, driver: LogDriver | None = None) -> Channel:
        """The container's channel; kept while it runs or has something to move. The plugin of its driver need not be
        there: the channel finds it when there is something to move."""
        channel = self._channels.get(container.Id)
        if channel is None:
            channel = self._channels[container.Id] = self._open(container, driver)
        channel.outlet.meet(driver)
        return channel

    def _open(self, container: ContainerRecord, driver: LogDriver | None) -> Channel:
        driver = driver or known(self._ctx, container.HostConfig.LogConfig.Type)
        channel = Channel(self._ctx, self._threads, self._watcher, self._info(container), driver)
        channel.on_settled = self._retire
        return channel

    def _retire(self, channel: Channel) -> None:
        if self._channels.get(channel.id) is channel and not channel.running:
            del self._channels[channel.id]
            self._watcher.forget(channel.id)

    def users_of(self, plugin: str) -> Sequence[Holder]:
        """`engine_holders` for plugins: running containers that log to one of its drivers, whether it is there or not."""
        containers = self._ctx.find(Containers)
        return [
            Holder("container", record.Id, record.Name, "running")
            for record in (containers.list() if containers is not None else ())
            if record.State.running and plugin in self._owners(record.HostConfig.LogConfig.Type)
        ]

    def _owners(self, name: str) -> Sequence[str]:
        """Name of the plugin that has the log driver `name`, or names that it would have; none for this plugin's own."""
        try:
            owner = self._ctx.drivers.owner(LogDriver, name)
        except NotFound:
            return name, f"{name}:latest"
        return () if owner == self._ctx.name else (owner,)

    # Reading.

    async def open(self, container: ContainerRecord) -> Channel:
        """What a reader reads from.

        Raises:
            NotSupported: the driver is "none", or cannot read back and `cache-disabled` is set.
            Unavailable: the driver's plugin is not there, and nothing is buffered.
        """
        if container.HostConfig.LogConfig.Type == NONE:
            raise NotSupported(UNREADABLE)
        existing = self._channels.get(container.Id)
        if existing is not None and existing.outlet.driver is not None:
            return _readable(existing)
        missing = ""
        try:
            driver = await self._met(container.HostConfig.LogConfig.Type)
        except InvalidParameter as error:
            driver, missing = None, str(error)
        if container.State.running:
            # After a start of the daemon, asked before `restore` came to it.
            channel = self._channel(container, driver)
            if not channel.running:
                channel.resume()
            return _readable(channel)
        channel = self._channels.get(container.Id) or self._open(container, driver)
        if channel.outlet.driver is None and not await channel.work(channel.spool.written):
            raise Unavailable(
                missing or f"log driver {channel.outlet.name} does not answer; its logs cannot be read now"
            )
        return _readable(channel)

    def attributes(self, container: ContainerRecord) -> Mapping[str, str]:
        """What `--details` shows."""
        choice = container.HostConfig.LogConfig
        return attributes(self._info(container)) if choice.Type == "json-file" else {}

    async def converted(
        self, container: ContainerRecord, query: LogQuery, convert: Callable[[Batch], T]
    ) -> AsyncGenerator[T, None]:
        """`read`, with batches turned by `convert` (in a thread) into what the client wants."""
        reader = Reader(await self.open(container), query, convert)
        async with aclosing(reader.read()) as found:
            async for item in found:
                yield item

    async def read(self, container: ContainerRecord, query: LogQuery) -> AsyncGenerator[Sequence[LogEntry], None]:
        """See `Logs.read`."""
        extra = self.attributes(container)
        async with aclosing(self.converted(container, query, lambda batch: to_entries(batch, extra))) as found:
            async for entries in found:
                yield entries


def _readable(channel: Channel) -> Channel:
    driver = channel.outlet.driver
    if not channel.outlet.retained and (driver is None or not driver.readable):
        raise NotSupported(UNREADABLE)
    return channel


def _before(draft: ContainerDraft) -> ContainerRecord:
    """What a driver may look at before there is a record."""
    return ContainerRecord(
        Id=draft.id,
        Name=draft.name,
        Created="",
        ImageID=draft.image.Id,
        ImageRef=draft.config.Image,
        Driver="",
        Runtime=draft.host.Runtime,
        Config=draft.config,
        HostConfig=draft.host,
    )


def watched(channels: Mapping[str, Channel]) -> Callable[[str, int], None]:
    """What the watcher's thread does when a buffer began anew."""

    def linked(key: str, count: int) -> None:
        channel = channels.get(key)
        if channel is not None:
            channel.spool.note()
            if count > 1:
                channel.lost(count - 1)

    return linked

"""What the plugin stores: networks with what was asked of them, and containers' attachments."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from plugin_sdk import Collection, StateStore, Wire
from plugin_sdk.containers import EndpointConfig
from plugin_sdk.network import EndpointRecord, IpamPool, NetworkRecord

_FLUSH_AFTER = 0.1


class StoredNetwork(NetworkRecord):
    """A network as this plugin keeps it.

    Attributes:
        Predefined: contributed by a plugin; clients cannot remove it.
        Contributed: what the plugin contributed, to see a change at the next start.
        AskedPools: the pools that were asked for, before addresses were decided.
        ConfigFrom: name of the network whose configuration it took.
    """

    Predefined: bool = False
    Contributed: dict[str, Any] = {}
    AskedPools: list[IpamPool] = []
    ConfigFrom: str = ""


class Attachment(Wire):
    """A container's places on networks.

    Attributes:
        Wanted: network (name or ID, as asked) to what was asked, in the order of connection.
        Endpoints: while it runs, what it has.
        Sandbox: path of its own network namespace while it runs, "" when it has none of its own.
        Files: folder with its hosts, hostname and resolv.conf while it runs.
        Guest: it is no container, but something else that networks were lent to: a managed plugin.
    """

    ContainerID: str
    ContainerName: str = ""
    Wanted: dict[str, EndpointConfig] = {}
    Endpoints: list[EndpointRecord] = []
    Sandbox: str = ""
    Files: str = ""
    Guest: bool = False

    @property
    def plugged(self) -> bool:
        """It holds something that a release gives back."""
        return bool(self.Endpoints or self.Sandbox or self.Files)


class Attachments:
    """All attachments in memory, and behind them the store.

    A container that was never started, connected or disconnected is not stored at all: what it wants follows from its
    own record. What a start takes is stored before the start goes on (`save`); what an end gives back is stored a
    moment later (`settle`), since a restore finds and settles it again.
    """

    def __init__(self, state: StateStore) -> None:
        self._store: Collection[Attachment] = state.collection(
            "attachments", Attachment, key=lambda attachment: attachment.ContainerID
        )
        self._memory = {attachment.ContainerID: attachment for attachment in self._store.values()}
        self._stored = set(self._memory)
        self._dirty: set[str] = set()
        self._woken = asyncio.Event()

    def get(self, container_id: str) -> Attachment | None:
        """The attachment, from memory."""
        return self._memory.get(container_id)

    def all(self) -> Sequence[Attachment]:
        """A snapshot."""
        return tuple(self._memory.values())

    def keep(self, attachment: Attachment) -> None:
        """In memory alone."""
        self._memory[attachment.ContainerID] = attachment

    async def save(self, attachment: Attachment) -> None:
        """In memory at once; returns when it is durable."""
        self._memory[attachment.ContainerID] = attachment
        self._stored.add(attachment.ContainerID)
        await self._store.put(attachment)

    def settle(self, attachment: Attachment) -> None:
        """In memory at once, durable soon."""
        self._memory[attachment.ContainerID] = attachment
        self._mark([attachment.ContainerID])

    def forget(self, container_id: str) -> None:
        """Gone from memory at once, from the store soon."""
        self._memory.pop(container_id, None)
        self._mark([container_id])

    async def keep_flushed(self) -> None:
        """Background work: make durable what `settle` and `forget` left."""
        while True:
            await self._woken.wait()
            await asyncio.sleep(_FLUSH_AFTER)
            await self.flush()

    async def flush(self) -> None:
        """Make it durable now."""
        self._woken.clear()
        dirty, self._dirty = self._dirty, set()
        for container_id in dirty:
            attachment = self._memory.get(container_id)
            if attachment is not None:
                await self._store.put(attachment)
            else:
                self._stored.discard(container_id)
                await self._store.delete(container_id)

    def _mark(self, container_ids: Iterable[str]) -> None:
        marked = {container_id for container_id in container_ids if container_id in self._stored}
        if marked:
            self._dirty |= marked
            self._woken.set()

"""The containers' records: found by ID, name or prefix, and written in one way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from plugin_sdk import Collection, Conflict, NotFound, StateStore
from plugin_sdk.containers import ContainerRecord, ContainerState, ContainerStatus
from plugin_sdk.text import by_prefix

from .live import Live

Change = Callable[[ContainerRecord], ContainerRecord]


def with_state(record: ContainerRecord, **fields: object) -> ContainerRecord:
    """The record with some fields of its state replaced."""
    return record.model_copy(update={"State": record.State.model_copy(update=fields)})


def _name(record: ContainerRecord) -> str | None:
    return None if record.State.Status is ContainerStatus.REMOVING else record.Name


class Records:
    """Records and, beside each, what memory alone knows of the container.

    A container that is being removed is hidden at once: its name and ID are free, only the removal itself still sees it.
    """

    def __init__(self, state: StateStore) -> None:
        self._stored: Collection[ContainerRecord] = state.collection(
            "containers", ContainerRecord, key=lambda record: record.Id, unique={"name": _name}
        )
        self._live: dict[str, Live] = {}
        self._quarantine: dict[str, ContainerRecord] = {}

    def live(self, container_id: str) -> Live:
        """The container's memory."""
        found = self._live.get(container_id)
        if found is None:
            found = self._live[container_id] = Live()
        return found

    def all(self) -> Sequence[ContainerRecord]:
        """Every record as stored, those being removed included."""
        return self._stored.values()

    def shown(self) -> list[ContainerRecord]:
        """Those that are there for clients, newest first."""
        removing = ContainerStatus.REMOVING
        if self._quarantine:
            return [
                self._quarantine.get(record.Id, record)
                for record in reversed(self._stored.values())
                if record.State.Status is not removing
            ]
        return [record for record in reversed(self._stored.values()) if record.State.Status is not removing]

    def stored(self, container_id: str) -> ContainerRecord | None:
        """By full ID, whatever its state."""
        return self._stored.get(container_id)

    def name_taken(self, name: str) -> str | None:
        """ID of the container of that name."""
        holders = self._stored.by("name", name)
        return holders[0].Id if holders else None

    def get(self, ref: str) -> ContainerRecord:
        """See `Containers.get`; a leading slash of a name is fine."""
        record = self._stored.get(ref)
        if record is None:
            named = self._stored.by("name", ref.removeprefix("/"))
            record = named[0] if named else None
        if record is None and ref:
            record = by_prefix(ref, self.shown(), lambda item: item.Id)
        if record is None or record.State.Status is ContainerStatus.REMOVING:
            raise NotFound(f"No such container: {ref}")
        return self._quarantine.get(record.Id, record) if self._quarantine else record

    async def insert(self, record: ContainerRecord) -> None:
        """Store a new one. Raises Conflict, in Docker's words, when its name is taken."""
        try:
            await self._stored.put(record)
        except Conflict:
            raise name_conflict(record.Name, self.name_taken(record.Name) or "") from None

    async def update(self, container_id: str, change: Change) -> ContainerRecord:
        """The one way to write a new version: `change` is given the present one; returns when the next is durable.

        Raises:
            NotFound: it is gone.
            Conflict: its new name is taken.
        """
        async with self.live(container_id).writing:
            present = self._stored.get(container_id)
            if present is None:
                raise NotFound(f"No such container: {container_id}")
            changed = change(present)
            if changed is not present:
                await self._stored.put(changed)
            return changed

    async def delete(self, container_id: str) -> None:
        """Forget it."""
        await self._stored.delete(container_id)
        self._live.pop(container_id, None)
        self._quarantine.pop(container_id, None)

    def quarantine(self, record: ContainerRecord, reason: str) -> None:
        """Show it as dead, with the reason, for as long as this daemon runs; what is stored stays as it is."""
        state = ContainerState(
            Status=ContainerStatus.DEAD,
            ExitCode=record.State.ExitCode,
            StartedAt=record.State.StartedAt,
            FinishedAt=record.State.FinishedAt,
            Error=reason,
        )
        self._quarantine[record.Id] = record.model_copy(update={"State": state})

    def quarantined(self, container_id: str) -> bool:
        """Whether it is shown as dead although its record says otherwise."""
        return container_id in self._quarantine


def name_conflict(name: str, holder: str) -> Conflict:
    """What a client is told whose name is taken."""
    return Conflict(
        f'Conflict. The container name "/{name}" is already in use by container "{holder}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )

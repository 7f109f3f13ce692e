"""The durable store, as plugins see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel

M = TypeVar("M", bound=BaseModel)

Migration = Callable[[dict[str, Any]], dict[str, Any]]
"""Turns one stored document into the next version's."""


class Collection(Protocol[M]):
    """Documents of one kind, by ID. Reads come from memory and never wait; writes return when they are durable.

    Models are frozen: what a reader got never changes under it.
    """

    name: str

    def get(self, key: str) -> M | None:
        """The document, or None."""

    def values(self) -> Sequence[M]:
        """All documents in insertion order; a snapshot."""

    def by(self, index: str, value: str) -> Sequence[M]:
        """Documents whose indexed value is `value`; a unique index gives at most one."""

    def __len__(self) -> int: ...

    async def put(self, document: M) -> None:
        """Insert or replace. Raises Conflict when a unique index is taken; then nothing changed."""

    async def delete(self, key: str) -> None:
        """Remove; removing what is not there is fine."""


Write = tuple[Collection[Any], BaseModel | str]
"""One write of a transaction: (collection, document to put) or (collection, ID to delete)."""


class StateStore(Protocol):
    """Typed collections in one database."""

    def collection(
        self,
        name: str,
        model: type[M],
        *,
        key: Callable[[M], str],
        unique: Mapping[str, Callable[[M], str | None]] | None = None,
        index: Mapping[str, Callable[[M], str | None]] | None = None,
        migrations: Iterable[Migration] = (),
    ) -> Collection[M]:
        """Open a collection; its version is the number of its migrations.

        Args:
            name: unique per engine; plugins get theirs prefixed with their own name.
            key: gives a document's ID.
            unique: indexes held unique by the database, for example `{"name": lambda c: c.name}`; None is not indexed.
            index: indexes that are not unique.
            migrations: what to do to documents of version 0, 1, ... in turn.

        Raises:
            EngineError: the stored collection is newer than this code, or a document does not fit its model.
        """

    async def commit(self, writes: Sequence[Write]) -> None:
        """Make several writes durable at once, all or none. Raises Conflict like `put`."""

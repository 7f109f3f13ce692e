"""Typed collections over the database; reads come from memory."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from pydantic import BaseModel, ValidationError

from kernel.contracts.state import Collection, Migration, Write
from kernel.errors import Conflict, EngineError
from kernel.state.database import Database, Outcome, Statement

M = TypeVar("M", bound=BaseModel)

_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*\Z")

log = logging.getLogger("engine.state")


class Store:
    """All collections of one engine."""

    def __init__(self, path: Path) -> None:
        self._database = Database.open(path)
        self._collections: dict[str, StoredCollection[Any]] = {}
        self.quarantined: list[str] = []
        """One sentence for each document that could not be read at the start and was set aside."""

    def collection(
        self,
        name: str,
        model: type[M],
        *,
        key: Callable[[M], str],
        unique: Mapping[str, Callable[[M], str | None]] | None = None,
        index: Mapping[str, Callable[[M], str | None]] | None = None,
        migrations: Iterable[Migration] = (),
    ) -> StoredCollection[M]:
        """See `StateStore.collection`. A plugin that was stopped and started again gets the same collection."""
        if not _NAME.match(name):
            raise EngineError(f"bad collection name {name!r}: want lower case, digits, _ and .")
        if name in self._collections:
            return self._collections[name]
        made = StoredCollection(self._database, name, model, key, dict(unique or {}), dict(index or {}))
        self._migrate(made, list(migrations))
        self.quarantined += made.load()
        self._collections[name] = made
        return made

    async def commit(self, writes: Sequence[Write]) -> None:
        """See `StateStore.commit`."""
        steps: list[tuple[StoredCollection[Any], Statement, _Token[Any]]] = []
        try:
            for collection, what in writes:
                stored = cast(StoredCollection[Any], collection)
                steps.append((stored, *stored.plan(what)))
        except Conflict as error:
            _settle(steps, error)
            raise
        await self._database.write([statement for _, statement, _ in steps], partial(_settle, steps))

    def close(self) -> None:
        """Finish pending writes and close the file."""
        self._database.close()

    def _migrate(self, made: StoredCollection[Any], migrations: list[Migration]) -> None:
        newest = len(migrations)
        rows = self._database.read("SELECT version FROM collections WHERE name = ?", made.name)
        if not rows:
            self._database.execute(made.schema)
            self._database.execute("INSERT INTO collections VALUES (?, ?)", made.name, newest)
        elif (version := int(rows[0][0])) > newest:
            raise EngineError(
                f"collection {made.name!r} was written by newer code (version {version}, this code knows {newest});"
                f" install that version again"
            )
        elif version < newest:
            self._database.execute("BEGIN IMMEDIATE")
            for row_key, text in self._database.read(f"SELECT key, document FROM {made.table}"):
                document = json.loads(text)
                for migration in migrations[version:]:
                    document = migration(document)
                self._database.execute(
                    f"UPDATE {made.table} SET document = ? WHERE key = ?", json.dumps(document), row_key
                )
            self._database.execute("UPDATE collections SET version = ? WHERE name = ?", newest, made.name)
            self._database.execute("COMMIT")
        for statement in made.indexes:
            self._database.execute(statement)


class _Token(Generic[M]):
    """One planned write: what will be in memory once it is durable."""

    def __init__(self, key: str, document: M | None, reserved: list[tuple[str, str]]) -> None:
        self.key, self.document, self.reserved = key, document, reserved


class StoredCollection(Generic[M]):
    """Fulfils `contracts.state.Collection`."""

    def __init__(
        self,
        database: Database,
        name: str,
        model: type[M],
        key: Callable[[M], str],
        unique: dict[str, Callable[[M], str | None]],
        index: dict[str, Callable[[M], str | None]],
    ) -> None:
        self.name = name
        self._database = database
        self._model, self._key = model, key
        self._unique, self._index = unique, index
        self._documents: dict[str, M] = {}
        self._snapshot: tuple[M, ...] | None = None
        self._by: dict[str, dict[str, dict[str, M]]] = {field: {} for field in (*unique, *index)}
        self._reserved: dict[tuple[str, str], str] = {}
        self.table = '"c_' + name + '"'

    @property
    def schema(self) -> str:
        """Statement that makes the table; unique values lie in columns of their own."""
        columns = "".join(f', "u_{field}" TEXT' for field in self._unique)
        return f"CREATE TABLE {self.table} (key TEXT PRIMARY KEY, document TEXT NOT NULL{columns})"

    @property
    def indexes(self) -> list[str]:
        """Statements that make the unique indexes."""
        return [
            f'CREATE UNIQUE INDEX IF NOT EXISTS "i_{self.name}_{field}" ON {self.table} ("u_{field}")'
            for field in self._unique
        ]

    def load(self) -> list[str]:
        """Read all documents into memory; unreadable ones go to the quarantine. Gives a sentence for each of those."""
        sentences = []
        for key, text in self._database.read(f"SELECT key, document FROM {self.table} ORDER BY rowid"):
            try:
                document = self._model.model_validate_json(text)
            except (ValidationError, ValueError) as error:
                reason = str(error).splitlines()[0]
                self._database.execute(
                    "INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?, ?)", self.name, key, text, reason
                )
                self._database.execute(f"DELETE FROM {self.table} WHERE key = ?", key)
                sentences.append(f"{self.name} {key[:12]} cannot be read and was set aside: {reason}")
                log.error("%s", sentences[-1])
                continue
            self._place(key, document)
        return sentences

    def get(self, key: str) -> M | None:
        """See `Collection.get`."""
        return self._documents.get(key)

    def values(self) -> Sequence[M]:
        """See `Collection.values`."""
        if self._snapshot is None:
            self._snapshot = tuple(self._documents.values())
        return self._snapshot

    def by(self, index: str, value: str) -> Sequence[M]:
        """See `Collection.by`."""
        return tuple(self._by[index].get(value, {}).values())

    def __len__(self) -> int:
        return len(self._documents)

    async def put(self, document: M) -> None:
        """See `Collection.put`."""
        await self._write(document)

    async def delete(self, key: str) -> None:
        """See `Collection.delete`."""
        await self._write(key)

    async def _write(self, what: M | str) -> None:
        statement, token = self.plan(what)
        await self._database.write([statement], partial(_settle, [(self, statement, token)]))

    def plan(self, what: M | str) -> tuple[Statement, _Token[M]]:
        """The statement of a write, with unique values reserved until `settle`. Raises Conflict."""
        if isinstance(what, str):
            return (f"DELETE FROM {self.table} WHERE key = ?", (what,)), _Token(what, None, [])
        key = self._key(what)
        values = [field_of(what) for field_of in self._unique.values()]
        reserved: list[tuple[str, str]] = []
        for field, value in zip(self._unique, values, strict=True):
            if value is None:
                continue
            holder = next(iter(self._by[field].get(value, ())), None) or self._reserved.get((field, value))
            if holder is not None and holder != key:
                for taken in reserved:
                    self._reserved.pop(taken, None)
                raise Conflict(f"{self.name}: {field} {value!r} is already in use by {holder}")
            if (field, value) not in self._reserved:
                self._reserved[field, value] = key
                reserved.append((field, value))
        columns = "".join(f', "u_{field}"' for field in self._unique)
        marks = ", ?" * len(values)
        updates = "".join(f', "u_{field}" = excluded."u_{field}"' for field in self._unique)
        sql = (
            f"INSERT INTO {self.table} (key, document{columns}) VALUES (?, ?{marks})"
            f" ON CONFLICT (key) DO UPDATE SET document = excluded.document{updates}"
        )
        return (sql, (key, what.model_dump_json(), *values)), _Token(key, what, reserved)

    def settle(self, token: _Token[M], outcome: Outcome) -> None:
        """The planned write is durable: show it to readers. Or it failed: let its reserved values go."""
        self._release(token)
        if outcome is not None:
            return
        self._displace(token.key)
        if token.document is None:
            self._documents.pop(token.key, None)
        else:
            self._place(token.key, token.document)
        self._snapshot = None

    def _release(self, token: _Token[M]) -> None:
        for taken in token.reserved:
            self._reserved.pop(taken, None)

    def _place(self, key: str, document: M) -> None:
        self._documents[key] = document
        self._snapshot = None
        for field, value_of in (*self._unique.items(), *self._index.items()):
            if (value := value_of(document)) is not None:
                self._by[field].setdefault(value, {})[key] = document

    def _displace(self, key: str) -> None:
        old = self._documents.get(key)
        if old is None:
            return
        for field, value_of in (*self._unique.items(), *self._index.items()):
            value = value_of(old)
            holders = self._by[field].get(value) if value is not None else None
            if holders is not None and value is not None:
                holders.pop(key, None)
                if not holders:
                    del self._by[field][value]


def _settle(steps: list[tuple[StoredCollection[Any], Statement, _Token[Any]]], outcome: Outcome) -> None:
    for stored, _, token in steps:
        stored.settle(token, outcome)


class PluginStore:
    """One plugin's view: its collections carry its name."""

    def __init__(self, store: Store, plugin: str) -> None:
        self._store, self._plugin = store, plugin

    def collection(self, name: str, model: type[M], **options: Any) -> Collection[M]:
        """See `StateStore.collection`."""
        return self._store.collection(f"{self._plugin}.{name}", model, **options)

    async def commit(self, writes: Sequence[Write]) -> None:
        """See `StateStore.commit`."""
        await self._store.commit(writes)

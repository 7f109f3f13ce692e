"""The durable store."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from kernel.state import Store
from plugin_sdk import Conflict, EngineError


class Thing(BaseModel):
    model_config = ConfigDict(frozen=True)
    id: str
    name: str = ""
    size: int = 0


def things(store: Store, **options: object):
    return store.collection(
        "test.things",
        Thing,
        key=lambda thing: thing.id,
        unique={"name": lambda thing: thing.name or None},
        index={"size": lambda thing: str(thing.size)},
        **options,
    )


async def test_documents_survive_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.db")
    collection = things(store)
    for number in range(3):
        await collection.put(Thing(id=str(number), name=f"n{number}", size=number % 2))
    await collection.put(Thing(id="1", name="renamed", size=5))
    await collection.delete("0")
    await collection.delete("never there")
    store.close()

    again = things(Store(tmp_path / "state.db"))
    assert [thing.id for thing in again.values()] == ["1", "2"]
    assert again.by("name", "renamed") == (Thing(id="1", name="renamed", size=5),)
    assert again.by("name", "n1") == ()
    assert len(again.by("size", "0")) == 1


async def test_unique_names_hold_among_parallel_writers(tmp_path: Path) -> None:
    collection = things(Store(tmp_path / "state.db"))
    outcomes = await asyncio.gather(
        *(collection.put(Thing(id=str(number), name="same")) for number in range(20)), return_exceptions=True
    )
    assert sum(outcome is None for outcome in outcomes) == 1
    assert all(isinstance(outcome, Conflict) for outcome in outcomes if outcome is not None)
    (winner,) = collection.values()
    await collection.delete(winner.id)
    await collection.put(Thing(id="next", name="same"))


async def test_a_commit_is_all_or_none(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.db")
    collection = things(store)
    await collection.put(Thing(id="a", name="taken"))
    with pytest.raises(Conflict, match="'taken' is already in use by a"):
        await store.commit([(collection, Thing(id="b", name="free")), (collection, Thing(id="c", name="taken"))])
    assert collection.get("b") is None
    await store.commit([(collection, "a"), (collection, Thing(id="b", name="free"))])
    assert [thing.id for thing in collection.values()] == ["b"]


async def test_a_cancelled_writer_leaves_memory_and_file_alike(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.db")
    collection = things(store)
    writing = asyncio.create_task(collection.put(Thing(id="a", name="x")))
    await asyncio.sleep(0)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    await collection.put(Thing(id="b"))
    known = {thing.id for thing in collection.values()}
    store.close()
    assert {thing.id for thing in things(Store(tmp_path / "state.db")).values()} == known


async def test_migrations_run_once_and_newer_data_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = Store(path)
    await things(store).put(Thing(id="a", size=1))
    store.close()

    def grow(document: dict) -> dict:
        return {**document, "size": document["size"] * 10}

    for _ in range(2):
        store = Store(path)
        assert things(store, migrations=[grow]).get("a") == Thing(id="a", size=10)
        store.close()
    with pytest.raises(EngineError, match="written by newer code \\(version 1, this code knows 0\\)"):
        things(Store(path))


async def test_an_unreadable_document_is_set_aside_and_does_not_block(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = Store(path)
    await things(store).put(Thing(id="good"))
    await things(store).put(Thing(id="bad"))
    store.close()
    raw = sqlite3.connect(path)
    raw.execute("""UPDATE "c_test.things" SET document = '{"id": 5' WHERE key = 'bad'""")
    raw.commit()
    raw.close()
    store = Store(path)
    assert [thing.id for thing in things(store).values()] == ["good"]
    assert "test.things bad cannot be read" in store.quarantined[0]
    store.close()
    assert sqlite3.connect(path).execute("SELECT key FROM quarantine").fetchall() == [("bad",)]


@pytest.mark.parametrize("damage", ["rubbish", "torn", "newer"])
def test_a_database_that_cannot_be_used_is_refused_and_not_touched(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "state.db"
    if damage == "rubbish":
        path.write_bytes(b"hello " * 1000)
    else:
        raw = sqlite3.connect(path)
        raw.execute("CREATE TABLE t (a)")
        raw.executemany("INSERT INTO t VALUES (?)", [("x" * 500,)] * 200)
        if damage == "newer":
            raw.execute("PRAGMA user_version=99")
        raw.commit()
        raw.close()
        if damage == "torn":
            content = bytearray(path.read_bytes())
            content[4096:12288] = b"\xff" * 8192
            path.write_bytes(content)
    before = path.read_bytes()
    expected = {"rubbish": "not a state database", "torn": "corrupt", "newer": "written by a newer engine"}[damage]
    with pytest.raises(EngineError, match=expected):
        Store(path)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["state.db"]

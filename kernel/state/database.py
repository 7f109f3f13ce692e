"""One SQLite file and the one thread that writes to it.

WAL with `synchronous=NORMAL`: a commit survives any death of the daemon; a power cut may lose the last moments and corrupts
nothing. Writes that wait together share one transaction, each in a savepoint of its own.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from kernel.errors import Conflict, EngineError

SCHEMA = 1
"""`PRAGMA user_version` of the file; a file with a higher one was written by a newer engine."""

_MAGIC = b"SQLite format 3\x00"
_BATCH = 256

Statement = tuple[str, tuple[str | bytes | int | None, ...]]
Outcome = BaseException | None
Settle = Callable[[Outcome], None]
_Job = tuple[Sequence[Statement], asyncio.AbstractEventLoop, asyncio.Future[None], Settle]


class Database:
    """Opened by `open`, which touches nothing of a file that it refuses."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="state-writer", daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, path: Path) -> Database:
        """Open or create.

        Raises:
            EngineError: no database, a corrupt one, or one of a newer engine; the message says how to mend.
        """
        if path.exists() and path.stat().st_size:
            _inspect(path)
        connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA user_version={SCHEMA}")
        connection.execute("CREATE TABLE IF NOT EXISTS collections (name TEXT PRIMARY KEY, version INTEGER NOT NULL)")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS quarantine (collection TEXT, key TEXT, document TEXT, reason TEXT, PRIMARY KEY (collection, key))"
        )
        path.chmod(0o600)
        return cls(connection)

    def read(self, sql: str, *parameters: str | int) -> list[tuple[str, ...]]:
        """Rows; only before the first `write` (start-up), on the calling thread."""
        return self._connection.execute(sql, parameters).fetchall()

    def execute(self, sql: str, *parameters: str | int) -> None:
        """Write at once; only at start-up, on the calling thread."""
        self._connection.execute(sql, parameters)

    async def write(self, statements: Sequence[Statement], settle: Settle) -> None:
        """All or none; returns when they are durable. Raises Conflict when a unique index forbids it.

        `settle` is told the outcome on the event loop, in the order of the writes and whether or not the caller still waits:
        a cancelled caller does not undo its write, and memory has to stay in step.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._jobs.put((statements, loop, done, settle))
        await done

    def close(self) -> None:
        """Finish what was asked for, and close."""
        self._jobs.put(None)
        self._thread.join()
        self._connection.close()

    def _work(self) -> None:
        while True:
            first = self._jobs.get()
            if first is None:
                return
            batch = [first]
            while len(batch) < _BATCH:
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if job is None:
                    self._jobs.put(None)
                    break
                batch.append(job)
            self._commit(batch)

    def _commit(self, batch: list[_Job]) -> None:
        outcomes: list[Outcome] = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            outcomes = [self._apply(statements) for statements, *_ in batch]
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            failure = EngineError(f"the state database cannot be written: {error}")
            outcomes = [failure] * len(batch)
        for (_, loop, done, settle), outcome in zip(batch, outcomes, strict=True):
            loop.call_soon_threadsafe(_finish, done, settle, outcome)

    def _apply(self, statements: Sequence[Statement]) -> Outcome:
        self._connection.execute("SAVEPOINT job")
        try:
            for sql, parameters in statements:
                self._connection.execute(sql, parameters)
        except sqlite3.IntegrityError as error:
            self._connection.execute("ROLLBACK TO job")
            return Conflict(f"already exists: {error}")
        finally:
            self._connection.execute("RELEASE job")
        return None


def _finish(done: asyncio.Future[None], settle: Settle, outcome: Outcome) -> None:
    settle(outcome)
    if done.done():
        return
    if outcome is None:
        done.set_result(None)
    else:
        done.set_exception(outcome)


def _inspect(path: Path) -> None:
    mend = f"move {path} away, or restore it from a backup"
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise EngineError(f"{path} is not a state database; {mend}")
    try:
        reader = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            (version,) = reader.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA:
                raise EngineError(
                    f"{path} was written by a newer engine (format {version}, this one knows {SCHEMA}); install that engine"
                )
            (health,) = reader.execute("PRAGMA quick_check(1)").fetchone()
        finally:
            reader.close()
    except sqlite3.Error as error:
        raise EngineError(f"the state database {path} is corrupt ({error}); {mend}") from error
    if health != "ok":
        raise EngineError(f"the state database {path} is corrupt ({health}); {mend}")

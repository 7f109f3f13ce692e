"""Many containers, one after the other and many at a time: nothing may be left, and the daemon may not grow."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import Engine, eventually

from plugin_sdk.testing.engine import leftovers

pytestmark = pytest.mark.real

WARM_UP = 60
"""Runs before the first count: pools and prepared sandboxes are full, and what is imported late is imported."""
IN_TURN = 1000
AT_ONCE = 200
IN_FLIGHT = 20
THREADS = 12
"""More threads than before: pools grow to their bounds when chance will have it."""
GROWTH = 20 << 20
"""Bytes by which the daemon's memory may grow."""


def counted(engine: Engine) -> dict[str, int]:
    """All that a run might leave behind, by kind."""
    process = Path("/proc") / str(engine.pid)
    with sqlite3.connect(f"file:{engine.root}/data/state.db?mode=ro", uri=True) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = sum(database.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0] for table in tables)
    files = sum(len(names) + len(folders) for _, folders, names in os.walk(engine.root))
    born = engine.docker(
        "events", "--since", "1", "--until", "0s", "--format", "{{.Actor.ID}}", *CREATED
    ).stdout.split()
    return engine.census() | {
        "file descriptors": len(list((process / "fd").iterdir())),
        "threads": len(list((process / "task").iterdir())),
        "processes": len(leftovers.processes(engine.root, engine.netns, born)),
        "control groups": len(leftovers.cgroups(born)),
        "state rows": rows,
        "files": files,
    }


CREATED = ("--filter", "type=container", "--filter", "event=create")


def resident(engine: Engine) -> int:
    """Bytes of memory that the daemon holds."""
    status = (Path("/proc") / str(engine.pid) / "status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) << 10


def run(engine: Engine, number: int) -> None:
    """One of a few kinds of run, by its number."""
    kind = number % 4
    options = (
        ("--network", "none"),
        ("-p", "80"),
        ("-v", "/data", "-e", f"NUMBER={number}"),
        ("--read-only", "--tmpfs", "/tmp", "-m", "64m"),
    )[kind]
    shown = engine.docker("run", "--rm", *options, engine.image, "echo", str(number), timeout=120)
    assert shown.stdout == f"{number}\n"


def test_nothing_is_left_and_the_daemon_does_not_grow(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine()
    many = ThreadPoolExecutor(IN_FLIGHT)
    # As many at a time as later: the threads that this takes are there when the counting begins.
    list(many.map(lambda number: run(engine, number), range(WARM_UP)))
    settled = eventually(lambda: (first := counted(engine)) == counted(engine) and first, timeout=20)
    memory = resident(engine)

    for number in range(IN_TURN):
        run(engine, number)
    list(many.map(lambda number: run(engine, number), range(AT_ONCE)))

    def difference() -> dict[str, tuple[int, int]]:
        now = counted(engine)
        room = {"threads": THREADS}
        return {kind: (n, now[kind]) for kind, n in settled.items() if now[kind] > n + room.get(kind, 0)}

    def same() -> bool:
        different = difference()
        assert not different, f"before and after: {different}"
        return True

    eventually(same, timeout=30)
    grown = resident(engine) - memory
    print(f"memory: {memory >> 10} KiB before, {grown >> 10} KiB more after {IN_TURN + AT_ONCE} runs")
    assert grown < GROWTH, f"the daemon has grown by {grown >> 20} MiB"

"""Bounds and rotation: numbered lines, counted, while there are readers, slow readers, and a daemon that is killed."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Client, Engine, eventually

pytestmark = pytest.mark.real

MIB = 1 << 20


@pytest.fixture
def run(engine: Client) -> Iterator[Callable[..., str]]:
    """`run(script, *log options)` starts a script, detached; gives the container's name."""
    made: list[str] = []

    def start(script: str, *options: str, driver: str = "json-file") -> str:
        made.append(engine.name())
        words = [word for option in options for word in ("--log-opt", option)]
        where = ["--network", "none", "--name", made[-1], "--log-driver", driver]
        engine.docker("run", "-d", *where, *words, engine.image, "sh", "-c", script)
        return made[-1]

    yield start
    engine.docker("rm", "-f", *made)


def folder_of(engine: Engine, name: str) -> Path:
    return next(engine.root.rglob(f"logging/{engine.inspect(name)['Id']}"))


def used(folder: Path) -> int:
    """Bytes on the disk; a file with two names counts once."""
    found = {}
    for path in folder.iterdir():
        try:
            facts = path.stat()
        except FileNotFoundError:
            continue
        found[facts.st_ino] = facts.st_blocks * 512
    return sum(found.values())


def followed(engine: Client, name: str, *options: str) -> list[int]:
    done = engine.docker("logs", "-f", *options, name, timeout=120)
    return [int(line) for line in done.stdout.split()]


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_a_container_that_writes_without_end_leaves_a_hundred_megabytes(
    engine: Engine, run: Callable[..., str], driver: str
) -> None:
    """230 MB without any option; 5 x 20 MB stay, and these are the newest."""
    name = run(f"yes {'x' * 99} | head -n 2300000; seq 1 200000", driver=driver)
    folder = folder_of(engine, name)
    most = 0
    while engine.inspect(name)["State"]["Running"]:
        most = max(most, used(folder))
        time.sleep(0.1)
    assert eventually(lambda: 60 * MIB < used(folder) <= 101 * MIB, timeout=60)
    # On the way, what waits for the driver comes on top: see README.md.
    assert most < 350 * MIB
    text = engine.docker("logs", "-n", "200001", name).stdout.split()
    assert text == ["x" * 99, *(str(number) for number in range(1, 200_001))]


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_many_readers_follow_through_rotations(engine: Engine, run: Callable[..., str], driver: str) -> None:
    """Files of 100 KB each rotate some forty times a second; nobody misses or sees twice a single line."""
    name = run(
        "sleep 1; for k in $(seq 0 39); do seq $((k*5000+1)) $((k*5000+5000)); sleep 0.1; done",
        "max-size=2m",
        "max-file=3",
        driver=driver,
    )
    results: list[list[int]] = []
    threads = [threading.Thread(target=lambda: results.append(followed(engine, name))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(results) == 8
    for seen in results:
        assert seen == list(range(1, 200_001))


def test_a_reader_that_comes_late_sees_the_newest_and_goes_on(engine: Engine, run: Callable[..., str]) -> None:
    name = run(
        "for k in $(seq 0 39); do seq $((k*5000+1)) $((k*5000+5000)); sleep 0.1; done", "max-size=500k", "max-file=3"
    )
    time.sleep(1)
    for options in ([], ["-n", "1000"]):
        seen = followed(engine, name, *options)
        assert seen == list(range(seen[0], 200_001))


def test_killed_daemon_and_rotation(own_engine: Callable[..., Engine]) -> None:
    """Three kills, whole rotations in every step: what is kept is without gap and without double."""
    engine = own_engine()
    script = "for k in $(seq 0 29); do seq $((k*20000+1)) $((k*20000+20000)); sleep 0.1; done"
    bounds = ["--log-opt", "max-size=100k", "--log-opt", "max-file=4"]
    engine.docker("run", "-d", "--network", "none", "--name", "busy", *bounds, engine.image, "sh", "-c", script)
    for pause in (0.55, 0.35, 0.75):
        time.sleep(pause)
        engine.kill9()
        time.sleep(0.2)
        engine.start()
        kept = [int(line) for line in engine.docker("logs", "busy").stdout.split()]
        assert kept == list(range(kept[0], kept[-1] + 1))
    assert eventually(lambda: engine.docker("wait", "busy", check=False).stdout == "0\n", timeout=30)
    assert eventually(lambda: [*folder_of(engine, "busy").glob("buffer*")] == [], timeout=30)
    kept = [int(line) for line in engine.docker("logs", "busy").stdout.split()]
    assert kept == list(range(kept[0], 600_001))
    assert len(kept) > 3000


def test_a_reader_that_does_not_read_holds_no_memory(engine: Engine, run: Callable[..., str]) -> None:
    name = run(f"sleep 0.5; yes {'x' * 99} | head -n 1000000; echo end; sleep 600")
    with engine.connect() as connection:
        connection.sendall(f"GET /v1.45/containers/{name}/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert connection.recv(10)
        before = resident(engine)
        assert eventually(lambda: engine.docker("logs", "-n", "1", name).stdout == "end\n", timeout=60)
        assert resident(engine) - before < 40 * MIB
        assert engine.docker("ps", timeout=5).returncode == 0


def resident(engine: Engine) -> int:
    status = Path(f"/proc/{engine.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def test_options_are_checked_when_the_container_is_made(engine: Engine) -> None:
    """In dockerd's words; it refuses some of them at the start only."""
    wrong = {
        "foo=1": "unknown log opt 'foo' for json-file log driver",
        "cache-foo=1": "unknown log opt 'cache-foo' for json-file log driver",
        "mode=perhaps": "logger: logging mode not supported: perhaps",
        "max-buffer-size=4m": "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        "max-size=x": "invalid size: 'x'",
        "max-file=0": "max-file cannot be less than 1",
        "max-file=x": 'parsing "x": invalid syntax',
        "compress=perhaps": 'strconv.ParseBool: parsing "perhaps": invalid syntax',
        "labels-regex=(": "error parsing regexp",
        "env-regex=[": "error parsing regexp",
        "tag={{.Nope}}": "can't evaluate field Nope",
        "tag={{.Name": "unclosed action",
        "cache-disabled=perhaps": "invalid value for option cache-disabled: perhaps",
        "cache-max-size=x": "invalid size: 'x'",
        "cache-max-file=0": "cache-max-file cannot be less than 1",
        "cache-compress=perhaps": "cache-compress",
    }
    for option, words in wrong.items():
        made = engine.docker("create", "--log-opt", option, engine.image, "true", check=False)
        assert made.returncode == 1, option
        assert words in made.stderr, option
    made = engine.docker("create", "--log-driver", "nosuch", engine.image, "true", check=False)
    assert 'error looking up logging plugin nosuch: plugin "nosuch" not found' in made.stderr


def test_compressed_files_are_rotated_and_read(engine: Engine, run: Callable[..., str]) -> None:
    name = run(
        "for k in $(seq 0 4); do seq $((k*3000+1)) $((k*3000+3000)); sleep 0.7; done",
        "max-size=300k",
        "max-file=9",
        "compress=true",
    )
    engine.docker("wait", name)
    folder = folder_of(engine, name)
    assert eventually(lambda: len([*folder.glob("*.gz")]) >= 2, timeout=20)
    assert subprocess.run(["gzip", "-t", *folder.glob("*.gz")], check=False).returncode == 0
    assert [int(line) for line in engine.docker("logs", name).stdout.split()] == list(range(1, 15_001))

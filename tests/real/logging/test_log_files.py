"""Logs of real containers: files, bounds, speed, and a daemon that is killed meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Client, Engine, eventually

pytestmark = pytest.mark.real


@pytest.fixture
def container(engine: Client) -> Iterator[Callable[..., str]]:
    """`container(script, *options)` runs a script to its end, or with "-d" starts it; removed in the end."""
    made: list[str] = []

    def make(script: str, *options: str) -> str:
        made.append(engine.name())
        engine.docker("run", "--network", "none", "--name", made[-1], *options, engine.image, "sh", "-c", script)
        return made[-1]

    yield make
    engine.docker("rm", "-f", *made)


def numbers(text: str) -> list[int]:
    return [int(line) for line in text.split()]


def test_json_file_has_dockers_format(engine: Client, container: Callable[..., str], host_dir: Path) -> None:
    options = ["--log-opt", "labels=colour", "--log-opt", "env=SIZE", "--log-opt", "tag={{.Name}}"]
    name = container("echo 'say \"hi\"'; echo oops >&2; printf end", "-l", "colour=red", "-e", "SIZE=9", *options)
    path = Path(engine.inspect(name)["LogPath"])
    assert path.name == engine.inspect(name)["Id"] + "-json.log"
    eventually(lambda: path.exists() and len(path.read_text().splitlines()) == 3)
    rows = {row["log"]: row for row in map(json.loads, path.read_text().splitlines())}
    assert {text: row["stream"] for text, row in rows.items()} == {
        'say "hi"\n': "stdout",
        "oops\n": "stderr",
        "end": "stdout",
    }
    assert rows["end"]["attrs"] == {"colour": "red", "SIZE": "9", "tag": name}
    shown = engine.docker("logs", "--details", "-n", "1", name).stdout + engine.docker("logs", "--details", name).stdout
    assert f"SIZE=9,colour=red,tag={name} " in shown


def test_logs_right_after_the_end_are_whole(engine: Client, container: Callable[..., str]) -> None:
    for driver in ("json-file", "local"):
        name = container("seq 1 100000", "--log-driver", driver)
        assert numbers(engine.docker("logs", name).stdout) == list(range(1, 100_001))
        assert numbers(engine.docker("logs", "-n", "3", name).stdout) == [99_998, 99_999, 100_000]


def test_following_a_fast_writer_misses_nothing(engine: Client, container: Callable[..., str]) -> None:
    for driver in ("json-file", "local"):
        name = container("seq 1 1000000", "-d", "--log-driver", driver)
        assert numbers(engine.docker("logs", "-f", name).stdout) == list(range(1, 1_000_001))


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_bounds_hold(engine: Client, container: Callable[..., str], driver: str, host_dir: Path) -> None:
    bounds = ["--log-opt", "max-size=1m", "--log-opt", "max-file=3"]
    name = container("seq 1 1000000; sleep 600", "-d", "--log-driver", driver, *bounds)
    folder = Path(engine.inspect(container("true"))["LogPath"]).parent.parent / engine.inspect(name)["Id"]

    def used() -> int:
        found: dict[int, int] = {}
        for entry in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # rotated away meanwhile
                facts = os.lstat(entry)
                found[facts.st_ino] = facts.st_blocks * 512
        return sum(found.values())

    eventually(lambda: numbers(engine.docker("logs", "-n", "1", name).stdout) == [1_000_000])
    eventually(lambda: used() < 4.5 * (1 << 20), timeout=20)
    kept = numbers(engine.docker("logs", name).stdout)
    assert kept == list(range(kept[0], 1_000_001))
    assert len(kept) > 10_000


def test_pieces_of_lines(engine: Client, container: Callable[..., str]) -> None:
    script = "printf prompt; sleep 1; echo ' answered'; head -c 50000 /dev/zero | tr '\\0' y; echo; printf end"
    name = container(script, "-d")
    eventually(lambda: engine.docker("logs", name).stdout == "prompt")
    engine.docker("wait", name)
    whole = "prompt answered\n" + "y" * 50_000 + "\nend"
    assert engine.docker("logs", name).stdout == whole
    stamped = engine.docker("logs", "-t", name).stdout
    assert stamped.count("Z ") == 3
    assert engine.docker("logs", "-n", "1", name).stdout == "end"


def test_driver_none_keeps_nothing(engine: Client, container: Callable[..., str]) -> None:
    name = container("echo hi", "--log-driver", "none")
    refused = engine.docker("logs", name, check=False)
    assert refused.returncode == 1
    assert "configured logging driver does not support reading" in refused.stderr


def test_answers_on_the_wire(engine: Client, container: Callable[..., str]) -> None:
    name = container("echo hi")
    assert engine.http("GET", f"/v1.45/containers/{name}/logs").status == 400
    message = "Bad parameters: you must choose at least one stream"
    assert engine.http("GET", f"/v1.45/containers/{name}/logs").message == message
    new = engine.http("GET", f"/v1.45/containers/{name}/logs?stdout=1")
    assert new.headers["Content-Type"] == "application/vnd.docker.multiplexed-stream"
    assert new.body == b"\1\0\0\0\0\0\0\3hi\n"
    old = engine.http("GET", f"/v1.41/containers/{name}/logs?stdout=1")
    assert old.headers["Content-Type"] == "application/vnd.docker.raw-stream"
    tty = container("echo hi", "-t")
    raw = engine.http("GET", f"/v1.45/containers/{tty}/logs?stdout=1")
    assert (raw.headers["Content-Type"], raw.body) == ("application/vnd.docker.raw-stream", b"hi\r\n")
    assert engine.http("GET", f"/v1.45/containers/{name}/logs?stderr=1").body == b""


def test_a_client_that_leaves_ends_its_stream(engine: Client, container: Callable[..., str]) -> None:
    name = container("while true; do echo x; sleep 0.05; done", "-d")
    for _ in range(5):
        with engine.connect() as connection:
            request = f"GET /v1.45/containers/{name}/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: x\r\n\r\n"
            connection.sendall(request.encode())
            assert connection.recv(100)
    engine.docker("kill", name)
    assert set(engine.docker("logs", name).stdout.split()) == {"x"}


def test_killed_daemon_loses_and_doubles_nothing(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine()
    script = "for k in $(seq 0 29); do seq $((k*20000+1)) $((k*20000+20000)); sleep 0.1; done"
    options = ["--network", "none", "--name", "busy", "--log-opt", "max-size=100m"]
    engine.docker("run", "-d", *options, engine.image, "sh", "-c", script)
    for _ in range(2):
        time.sleep(0.7)
        engine.kill9()
        time.sleep(0.3)
        engine.start()
    eventually(lambda: engine.docker("wait", "busy", check=False).stdout == "0\n", timeout=30)
    assert numbers(engine.docker("logs", "busy").stdout) == list(range(1, 600_001))
    path = Path(engine.inspect("busy")["LogPath"])
    eventually(lambda: sorted(entry.name for entry in path.parent.iterdir()) == [path.name, "position"], timeout=30)
    assert [int(json.loads(row)["log"]) for row in path.open()] == list(range(1, 600_001))
    engine.docker("rm", "busy")
    assert eventually(lambda: not path.parent.exists())


def test_default_driver_and_options_of_the_daemon(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine("--log-driver", "local", "--log-opt", "max-size=5m")
    assert engine.http("GET", "/v1.45/info").json()["LoggingDriver"] == "local"
    engine.docker("run", "--network", "none", "--name", "one", engine.image, "echo", "hi")
    assert engine.inspect("one")["HostConfig"]["LogConfig"] == {"Type": "local", "Config": {"max-size": "5m"}}
    assert engine.docker("logs", "one").stdout == "hi\n"
    engine.docker("run", "--network", "none", "--name", "two", "--log-driver", "json-file", engine.image, "echo", "ho")
    assert engine.inspect("two")["HostConfig"]["LogConfig"] == {"Type": "json-file", "Config": {}}

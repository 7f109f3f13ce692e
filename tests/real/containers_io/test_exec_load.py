"""Thousands of execs, a daemon that is killed in between, and a client that reads nothing."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import Client, Engine, eventually

pytestmark = pytest.mark.real

EXECS = 2000
AT_ONCE = 16


def exec_of(engine: Client, name: str, **fields: object) -> str:
    body = {"Cmd": ["true"], "AttachStdout": True, "AttachStderr": True} | fields
    return str(engine.http("POST", f"/containers/{name}/exec", body).json()["Id"])


def sleeper(engine: Client) -> str:
    name = engine.name()
    engine.docker("run", "-d", "--name", name, "--network", "none", engine.image, "sleep", "6000")
    return name


def attach(engine: Client, name: str, query: str) -> socket.socket:
    connection = engine.connect(timeout=20)
    connection.sendall(
        f"POST /containers/{name}/attach?stream=1&{query} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        "Content-Length: 0\r\n\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    assert b" 101 " in head
    return connection


def holdings(engine: Engine) -> dict[str, int]:
    """What the daemon has: descriptors, threads, children, files under the exec root, kilobytes."""
    status = Path(f"/proc/{engine.pid}/status").read_text()
    number = {name: int(value) for name, value in re.findall(r"^(Threads|VmRSS):\s+(\d+)", status, re.MULTILINE)}
    children = Path(f"/proc/{engine.pid}/task/{engine.pid}/children").read_text().split()
    return {
        "descriptors": len(os.listdir(f"/proc/{engine.pid}/fd")),
        "threads": number["Threads"],
        "children": len(children),
        "files": sum(len(files) for _, _, files in os.walk(engine.root / "run")),
        "memory": number["VmRSS"],
    }


@pytest.fixture(scope="module")
def stalled(engine: Client) -> Iterator[tuple[str, socket.socket]]:
    """A container with more output than fits anywhere, and a client that joined it and does not read."""
    name = engine.name()
    script = "read x; head -c 30000000 /dev/zero; touch /written; sleep 600"
    options = ["--name", name, "--network", "none", "--log-driver", "none"]
    engine.docker("run", "-di", *options, engine.image, "sh", "-c", script)
    try:
        with attach(engine, name, "stdout=1") as lazy, attach(engine, name, "stdin=1") as typist:
            typist.sendall(b"go\n")
            time.sleep(1)
            assert engine.docker("exec", name, "test", "-e", "/written", check=False).returncode == 1
            yield name, lazy
    finally:
        engine.docker("rm", "-f", name)


@pytest.mark.usefixtures("stalled")  # for its half a minute to pass meanwhile
def test_two_thousand_execs(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine()
    name = sleeper(engine)

    def run(number: int) -> tuple[int, bool, bool]:
        tty = number % 5 == 0
        made = exec_of(engine, name, Cmd=["echo", str(number)], Tty=tty, AttachStdin=number % 3 == 0)
        output = engine.http("POST", f"/exec/{made}/start", {"Tty": tty}).body
        found = engine.http("GET", f"/exec/{made}/json").json()
        return found["ExitCode"], found["Running"], str(number).encode() in output

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(run, range(100)))
        time.sleep(0.5)
        before = holdings(engine)
        assert Counter(pool.map(run, range(EXECS))) == {(0, False, True): EXECS}
    settled: dict[str, int] = {}

    def is_settled() -> bool:
        settled.update(holdings(engine))
        return all(settled[kind] <= before[kind] for kind in ("descriptors", "children", "files"))

    eventually(is_settled, timeout=5)
    assert settled["threads"] <= before["threads"] + 2
    # The last five minutes' execs can be inspected: some 4 KB each, with their events.
    assert settled["memory"] <= before["memory"] + (20 << 10)
    assert engine.inspect(name)["ExecIDs"] is None
    assert engine.docker("top", name).stdout.count("\n") == 2


def test_execs_of_a_daemon_that_is_killed(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine()
    name = sleeper(engine)
    quiet = exec_of(engine, name, Cmd=["sh", "-c", "sleep 3; touch /quiet-went-on"])
    assert engine.http("POST", f"/exec/{quiet}/start", {"Detach": True}).status == 200
    attached = engine.popen("exec", "-i", name, "sh", "-c", "cat; touch /input-ended")
    crowd = [engine.popen("exec", name, "true") for _ in range(8)]  # some of them are just being started
    time.sleep(0.3)
    engine.kill9()
    assert attached.wait(10) != 0
    for client in [attached, *crowd]:
        client.communicate(timeout=10)
    engine.start()
    # An exec's record dies with the daemon; what it runs ends its input and goes on.
    assert engine.http("GET", f"/exec/{quiet}/json").message == f"No such exec instance: {quiet}"
    assert engine.docker("exec", name, "echo", "new").stdout == "new\n"
    eventually(lambda: engine.docker("exec", name, "ls", "/").stdout.count("input-ended") == 1)
    eventually(lambda: engine.docker("exec", name, "ls", "/").stdout.count("quiet-went-on") == 1)
    eventually(lambda: engine.docker("top", name).stdout.count("\n") == 2)
    assert os.listdir(engine.root / "run/runtime_oci/execs") == []


def test_a_client_that_reads_nothing_is_cut_off(engine: Client, stalled: tuple[str, socket.socket]) -> None:
    name, lazy = stalled
    eventually(lambda: engine.docker("exec", name, "ls", "/").stdout.count("written") == 1, timeout=45)
    got = 0
    while data := lazy.recv(1 << 20):
        got += len(data)
    assert got < 10_000_000


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_short_commands_on_terminals(engine: Client, runtime: str) -> None:
    name = engine.name()
    engine.docker("run", "-d", "--name", name, "--network", "none", "--runtime", runtime, engine.image, "sleep", "600")
    try:
        command = ["docker", "exec", "-t", name, "echo", "seen"]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            jobs = [
                pool.submit(subprocess.run, command, env=engine.env(), capture_output=True, timeout=60, check=False)
                for _ in range(48)
            ]
        seen = Counter((job.result().returncode, job.result().stdout) for job in jobs)
        assert seen == {(0, b"seen\r\n"): 48}
    finally:
        engine.docker("rm", "-f", name)

"""attach and exec over real connections: framing, half-close, detaching, clients that vanish or do not read."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Client, Engine, eventually

from plugin_sdk.stdcopy import Unframer

pytestmark = pytest.mark.real

ALL = "stream=1&stdin=1&stdout=1&stderr=1"


@pytest.fixture
def create(engine: Client) -> Iterator[Callable[..., str]]:
    """Makes containers that go with the test; fields are those of the API's body."""
    made: list[str] = []

    def make(*command: str, start: bool = False, **fields: Any) -> str:
        body = {"Image": engine.image, "Cmd": command, "HostConfig": {"NetworkMode": "none"}} | fields
        made.append(engine.http("POST", "/containers/create", body).json()["Id"])
        if start:
            assert engine.http("POST", f"/containers/{made[-1]}/start").status == 204
        return made[-1]

    yield make
    for name in made:
        engine.http("DELETE", f"/containers/{name}?force=1&v=1")


class Hijacked:
    """A connection that the engine has handed over."""

    def __init__(self, engine: Client, path: str, body: dict[str, Any] | None = None, *, upgrade: bool = True) -> None:
        self.socket = engine.connect(timeout=20)
        data = b"" if body is None else json.dumps(body).encode()
        lines = [f"POST {path} HTTP/1.1", "Host: d", f"Content-Length: {len(data)}", "Content-Type: application/json"]
        lines += ["Connection: Upgrade", "Upgrade: tcp"] if upgrade else []
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode() + data)
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.socket.recv(1)
        self.head = head.decode().lower()

    def __enter__(self) -> Hijacked:
        return self

    def __exit__(self, *failure: object) -> None:
        self.socket.close()

    def read(self) -> bytes:
        """To the end."""
        parts = []
        while data := self.socket.recv(1 << 20):
            parts.append(data)
        return b"".join(parts)

    def read_until(self, wanted: bytes) -> bytes:
        data = b""
        while wanted not in data:
            more = self.socket.recv(65536)
            assert more, f"the connection ended after {data!r}"
            data += more
        return data


def streams(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for stream, payload in Unframer().feed(data):
        found[stream] = found.get(stream, b"") + payload
    return found


def state(engine: Client, name: str) -> str:
    return str(engine.http("GET", f"/containers/{name}/json").json()["State"]["Status"])


def actions(engine: Client, name: str) -> list[str]:
    lines = engine.docker(
        "events", "--since", "30s", "--until", "0s", "--filter", f"container={name}", "--format", "{{.Action}}"
    ).stdout
    return lines.splitlines()


@pytest.mark.parametrize(
    ("version", "upgrade", "status", "kind"),
    [
        ("/v1.41", True, "101 upgraded", "raw-stream"),
        ("/v1.42", True, "101 upgraded", "multiplexed-stream"),
        ("/v1.42", False, "200 ok", "raw-stream"),
    ],
)
def test_frames_and_content_type(
    engine: Client, create: Callable[..., str], version: str, upgrade: bool, status: str, kind: str
) -> None:
    name = create("sh", "-c", "echo out; echo err >&2")
    path = f"{version}/containers/{name}/attach?stream=1&stdout=1&stderr=1"
    with Hijacked(engine, path, upgrade=upgrade) as client:
        assert client.head.startswith(f"http/1.1 {status}")
        assert f"content-type: application/vnd.docker.{kind}\r\n" in client.head
        engine.http("POST", f"/containers/{name}/start")
        assert streams(client.read()) == {1: b"out\n", 2: b"err\n"}


def test_nothing_is_missed_between_attach_and_start(engine: Client, create: Callable[..., str]) -> None:
    for _ in range(10):
        name = create("echo", "first")
        with Hijacked(engine, f"/containers/{name}/attach?stream=1&stdout=1") as client:
            engine.http("POST", f"/containers/{name}/start")
            assert streams(client.read()) == {1: b"first\n"}


@pytest.mark.parametrize(("query", "keys"), [("", b"\x10\x11"), ("&detachKeys=ctrl-a,d", b"\x01d")])
def test_detach_keys_are_the_servers_too(engine: Client, create: Callable[..., str], query: str, keys: bytes) -> None:
    name = create("sh", Tty=True, OpenStdin=True, start=True)
    with Hijacked(engine, f"/containers/{name}/attach?{ALL}{query}") as client:
        client.socket.sendall(b"echo he''re\n")
        client.read_until(b"\nhere")
        client.socket.sendall(keys[:1])
        time.sleep(0.1)
        client.socket.sendall(keys[1:])
        client.read()
    assert state(engine, name) == "running"
    eventually(lambda: actions(engine, name)[-2:] == ["attach", "detach"])


def test_half_close_and_what_comes_after(engine: Client, create: Callable[..., str]) -> None:
    name = create("sh", "-c", "cat; echo after", OpenStdin=True, StdinOnce=True)
    with Hijacked(engine, f"/containers/{name}/attach?{ALL}") as client:
        client.socket.sendall(b"early ")
        engine.http("POST", f"/containers/{name}/start")
        client.socket.sendall(b"late\n")
        client.socket.shutdown(1)
        assert streams(client.read()) == {1: b"early late\nafter\n"}


def test_the_input_of_a_client_that_dies_ends(engine: Client, create: Callable[..., str]) -> None:
    name = create("cat", OpenStdin=True, StdinOnce=True)
    with Hijacked(engine, f"/containers/{name}/attach?{ALL}") as client:
        engine.http("POST", f"/containers/{name}/start")
        client.socket.sendall(b"x")
        client.read_until(b"x")
    eventually(lambda: state(engine, name) == "exited")


def test_a_service_keeps_its_input_when_a_client_leaves(engine: Client, create: Callable[..., str]) -> None:
    name = create("cat", OpenStdin=True, start=True)
    for word in (b"one", b"two"):
        with Hijacked(engine, f"/containers/{name}/attach?{ALL}") as client:
            client.socket.sendall(word)
            client.read_until(word)
            client.socket.shutdown(1)
            assert client.read() == b""
    assert state(engine, name) == "running"


def test_a_client_that_does_not_read_holds_nobody_once_it_left(engine: Client, create: Callable[..., str]) -> None:
    name = create("sh", "-c", "read x; head -c 30000000 /dev/zero; echo over >&2", OpenStdin=True, start=True)
    with Hijacked(engine, f"/containers/{name}/attach?stream=1&stdout=1&stderr=1") as reader:
        lazy = Hijacked(engine, f"/containers/{name}/attach?stream=1&stdout=1&stderr=1")
        with lazy, Hijacked(engine, f"/containers/{name}/attach?stream=1&stdin=1") as typist:
            typist.socket.sendall(b"go\n")
            time.sleep(0.5)
        assert len(streams(reader.read())[1]) == 30_000_000


def test_logs_before_the_stream(engine: Client, create: Callable[..., str]) -> None:
    name = create("sh", "-c", "echo early; read x; echo late", OpenStdin=True, start=True)
    eventually(lambda: "early" in engine.docker("logs", name).stdout)
    with Hijacked(engine, f"/containers/{name}/attach?{ALL}&logs=1") as client:
        client.read_until(b"early\n")
        client.socket.sendall(b"go\n")
        client.read_until(b"late\n")
    with Hijacked(engine, f"/containers/{name}/attach?stdout=1&logs=1") as client:
        assert streams(client.read()) == {1: b"early\nlate\n"}


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/containers/nope/attach?stream=1", 404, "No such container: nope"),
        ("/containers/{name}/attach?stream=1&detachKeys=zzz", 400, "Invalid detach keys (zzz) provided"),
        ("/containers/{name}/resize?h=a&w=1", 400, 'invalid resize height "a": invalid syntax'),
        ("/containers/{name}/resize?h=1&w=1", 409, "container {name} is not running"),
        ("/exec/nope/start", 404, "No such exec instance: nope"),
        ("/exec/nope/resize?h=1&w=1", 404, "No such exec instance: nope"),
    ],
)
def test_refusals(engine: Client, create: Callable[..., str], path: str, status: int, message: str) -> None:
    name = create("true")
    answer = engine.http("POST", path.format(name=name), {})
    assert (answer.status, answer.message) == (status, message.format(name=name))


def test_paused(engine: Client, create: Callable[..., str]) -> None:
    name = create("sleep", "600", start=True)
    called = engine.http("GET", f"/containers/{name}/json").json()["Name"].lstrip("/")
    engine.http("POST", f"/containers/{name}/pause")
    try:
        for path, message in (
            ("attach?stream=1", f"container {called} is paused, unpause the container before attach"),
            ("exec", f"Container {name} is paused, unpause the container before exec"),
        ):
            answer = engine.http("POST", f"/containers/{name}/{path}", {"Cmd": ["true"]})
            assert (answer.status, answer.message) == (409, message)
    finally:
        engine.http("POST", f"/containers/{name}/unpause")


def test_exec_life(engine: Client, create: Callable[..., str]) -> None:
    name = create("sleep", "600", start=True)
    body = {
        "Cmd": ["sh", "-c", "cat; echo err >&2; exit 9"],
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
    }
    exec_id = engine.http("POST", f"/containers/{name}/exec", body).json()["Id"]
    fresh = engine.http("GET", f"/exec/{exec_id}/json").json()
    assert (fresh["Running"], fresh["ExitCode"], fresh["Pid"], fresh["OpenStdin"]) == (False, None, 0, True)
    assert fresh["ProcessConfig"]["arguments"] == ["-c", "cat; echo err >&2; exit 9"]
    with Hijacked(engine, f"/exec/{exec_id}/start", {}) as client:
        client.socket.sendall(b"in")
        client.read_until(b"in")
        running = engine.http("GET", f"/exec/{exec_id}/json").json()
        assert running["Running"]
        assert running["Pid"] > 0
        assert engine.inspect(name)["ExecIDs"] == [exec_id]
        again = engine.http("POST", f"/exec/{exec_id}/start", {})
        assert (again.status, again.message) == (409, f"Error: Exec command {exec_id} is already running")
        client.socket.shutdown(1)
        assert streams(client.read()) == {2: b"err\n"}
    done = engine.http("GET", f"/exec/{exec_id}/json").json()
    assert (done["Running"], done["ExitCode"]) == (False, 9)
    again = engine.http("POST", f"/exec/{exec_id}/start", {})
    assert (again.status, again.message) == (409, f"Error: Exec command {exec_id} has already run")
    assert engine.inspect(name)["ExecIDs"] is None
    command = "sh -c cat; echo err >&2; exit 9"
    told = [f"exec_create: {command}", f"exec_start: {command}", "exec_die"]
    eventually(lambda: actions(engine, name)[-3:] == told)


def test_exec_goes_on_without_its_client(engine: Client, create: Callable[..., str]) -> None:
    name = create("sleep", "600", start=True)
    body = {"Cmd": ["sh", "-c", "sleep 1; exit 4"], "AttachStdout": True}
    exec_id = engine.http("POST", f"/containers/{name}/exec", body).json()["Id"]
    Hijacked(engine, f"/exec/{exec_id}/start", {}).socket.close()
    eventually(lambda: engine.http("GET", f"/exec/{exec_id}/json").json()["ExitCode"] == 4)


def test_exec_ends_with_its_container(engine: Client, create: Callable[..., str]) -> None:
    name = create("sleep", "600", start=True)
    client = engine.popen("exec", name, "sleep", "600")
    eventually(lambda: "sleep 600" in engine.docker("top", name).stdout.split("\n", 2)[2])
    engine.docker("kill", name)
    assert client.wait(15) == 137
    client.communicate()


def test_exec_without_streams_does_not_wait(engine: Client, create: Callable[..., str]) -> None:
    name = create("sleep", "600", start=True)
    exec_id = engine.http("POST", f"/containers/{name}/exec", {"Cmd": ["sleep", "600"]}).json()["Id"]
    with Hijacked(engine, f"/exec/{exec_id}/start", {}) as client:
        assert client.read() == b""
    assert engine.http("GET", f"/exec/{exec_id}/json").json()["Running"]


@pytest.mark.parametrize("how", ["run", "exec"])
def test_a_quarter_of_a_gigabyte_both_ways(
    engine: Client, create: Callable[..., str], tmp_path: Path, how: str
) -> None:
    block = os.urandom(1 << 20)
    with (tmp_path / "big").open("wb") as file:
        for number in range(256):
            file.write(number.to_bytes(8, "big") + block[8:])
    if how == "run":
        command = ["docker", "run", "--rm", "-i", "--network", "none", "--log-driver", "none", engine.image, "cat"]
    else:
        command = ["docker", "exec", "-i", create("sleep", "600", start=True), "cat"]
    with (tmp_path / "big").open("rb") as source:
        done = subprocess.run(command, stdin=source, env=engine.env(), capture_output=True, timeout=120, check=True)
    with (tmp_path / "big").open("rb") as source:
        assert hashlib.sha256(done.stdout).digest() == hashlib.file_digest(source, "sha256").digest()


def test_many_execs_leave_nothing(engine: Client, create: Callable[..., str]) -> None:
    name = create("sleep", "600", start=True)

    def run_one() -> None:
        body = {"Cmd": ["true"], "AttachStdout": True}
        exec_id = engine.http("POST", f"/containers/{name}/exec", body).json()["Id"]
        with Hijacked(engine, f"/exec/{exec_id}/start", {}) as client:
            client.read()

    run_one()
    before = held(engine)
    for _ in range(100):
        run_one()
    eventually(lambda: held(engine) <= before + 3)
    assert engine.inspect(name)["ExecIDs"] is None
    assert engine.docker("top", name).stdout.count("\n") == 2


def held(engine: Client) -> int:
    """Open files of the daemon, where it is ours."""
    return len(os.listdir(f"/proc/{engine.pid}/fd")) if isinstance(engine, Engine) else 0

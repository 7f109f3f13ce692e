"""Terminals, several clients at once, and websockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import websockets
from harness import Client, eventually
from websockets.exceptions import InvalidStatus

pytestmark = pytest.mark.real


@pytest.fixture
def run(engine: Client) -> Iterator[Callable[..., str]]:
    """Starts containers that go with the test."""
    names: list[str] = []

    def start(*options: str, script: str = "sleep 600") -> str:
        names.append(engine.name())
        engine.docker("run", "-d", "--name", names[-1], "--network", "none", *options, engine.image, "sh", "-c", script)
        return names[-1]

    yield start
    engine.docker("rm", "-fv", *names, check=False)


def actions(engine: Client, name: str, *wanted: str) -> list[str]:
    told = engine.docker(
        "events", "--since", "60s", "--until", "0s", "--filter", f"container={name}", "--format", "{{.Action}}"
    ).stdout.splitlines()
    return [action for action in told if action in wanted]


def test_the_size_follows_the_clients_terminal(engine: Client, run: Callable[..., str]) -> None:
    name = run("-it", script="stty size; while read x; do stty size; done")
    with engine.tty("attach", name, rows=31, columns=71) as terminal:
        # The CLI sets a size one larger first, so that what runs there draws itself anew.
        eventually(lambda: len(actions(engine, name, "resize")) == 2)
        time.sleep(0.3)
        terminal.send("\n")
        terminal.expect("^31 71")
        terminal.resize(32, 72)
        eventually(lambda: len(actions(engine, name, "resize")) == 3)
        time.sleep(0.3)
        terminal.send("\n")
        terminal.expect("^32 72")
    with engine.tty("exec", "-it", name, "sh", "-c", "stty size; read x; stty size", rows=33, columns=73) as terminal:
        terminal.expect("^33 73")  # from the very start: the size comes with it
        terminal.resize(34, 74)
        time.sleep(0.5)
        terminal.send("\n")
        terminal.expect("^34 74")


@pytest.fixture(scope="module")
def terminal_box(engine: Client) -> Iterator[str]:
    name = engine.name()
    engine.docker("run", "-dt", "--name", name, "--network", "none", engine.image, "sleep", "600")
    yield name
    engine.docker("rm", "-f", name)


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ("", 400, 'invalid resize height "": invalid syntax'),
        ("?h=1", 400, 'invalid resize width "": invalid syntax'),
        ("?h=1&w=1x", 400, 'invalid resize width "1x": invalid syntax'),
        ("?h=-1&w=1", 400, 'invalid resize height "-1": value out of range'),
        ("?h=4294967296&w=1", 400, 'invalid resize height "4294967296": value out of range'),
        ("?h=4294967295&w=70000", 200, ""),
        ("?h=0&w=0", 200, ""),
    ],
)
def test_sizes(engine: Client, terminal_box: str, query: str, status: int, message: str) -> None:
    answer = engine.http("POST", f"/containers/{terminal_box}/resize{query}")
    assert (answer.status, answer.message if answer.body else "") == (status, message)


@pytest.mark.parametrize("verb", [["attach"], ["exec", "-it"]])
@pytest.mark.parametrize(("option", "keys"), [([], "\x10\x11"), (["--detach-keys", "ctrl-a,d"], "\x01d")])
def test_detaching(engine: Client, run: Callable[..., str], verb: list[str], option: list[str], keys: str) -> None:
    name = run("-it", script="cat")
    command = ["cat"] if verb[0] == "exec" else []
    with engine.tty(*verb, *option, name, *command) as terminal:
        eventually(lambda: actions(engine, name, "attach", "exec_start: cat ") != [])
        time.sleep(0.5)
        terminal.send("one\n")
        terminal.expect("one\n.*one")
        terminal.send(f"pasted {keys} more")
        terminal.expect("read escape sequence")
        assert terminal.wait() == 1
    assert engine.inspect(name)["State"]["Running"]


@pytest.mark.parametrize("verb", ["attach", "exec"])
def test_bad_detach_keys(engine: Client, run: Callable[..., str], verb: str) -> None:
    name = run("-it", script="cat")
    arguments = ["exec", "-it", "--detach-keys", "zzz", name, "cat"]
    if verb == "attach":
        arguments = ["attach", "--detach-keys", "zzz", name]
    with engine.tty(*arguments) as terminal:
        assert terminal.wait() == 1
        assert "Invalid escape keys (zzz) provided" in terminal.text or "received 400" in terminal.text


def test_each_client_gets_all_and_may_type(engine: Client, run: Callable[..., str]) -> None:
    name = run("-i", script='while read x; do echo "got $x"; done')
    clients = [engine.popen("attach", "--sig-proxy=false", name) for _ in range(3)]
    try:
        eventually(lambda: len(actions(engine, name, "attach")) == 3)
        for number, client in enumerate(clients):
            assert client.stdin
            client.stdin.write(f"{number}\n")
            client.stdin.flush()
            for other in clients:
                assert other.stdout
                assert other.stdout.readline() == f"got {number}\n"
        clients[0].kill()
        clients[0].communicate()
        assert clients[1].stdin
        clients[1].stdin.write("after\n")
        clients[1].stdin.flush()
        assert clients[2].stdout
        assert clients[2].stdout.readline() == "got after\n"
    finally:
        for client in clients:
            client.kill()
            client.communicate()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("created", "cannot attach to a stopped container, start it first"),
        ("paused", "cannot attach to a paused container, unpause it first"),
        ("restarting", "cannot attach to a restarting container, wait until it is running"),
    ],
)
def test_attach_wants_a_running_container(engine: Client, run: Callable[..., str], state: str, message: str) -> None:
    name = run("--restart", "always", script="exit 3") if state == "restarting" else run()
    if state == "created":
        engine.docker("kill", name)
    if state == "paused":
        engine.docker("pause", name)
    if state == "restarting":
        eventually(lambda: engine.inspect(name)["State"]["Status"] == "restarting", timeout=20)
    refused = engine.docker("attach", name, check=False)
    assert (refused.returncode, message in refused.stderr.lower()) == (1, True)
    if state in ("paused", "restarting"):
        answer = engine.http("POST", f"/containers/{name}/attach?stream=1&stdout=1")
        assert answer.status == 409
        assert f"container {name} is {state}" in answer.message
    engine.docker("unpause", name, check=False)


def socket_of(engine: Client, path: str) -> Any:
    return websockets.unix_connect(engine.host.removeprefix("unix://"), f"ws://localhost{path}", open_timeout=10)


async def read_until(connection: Any, wanted: Any) -> Any:
    seen = type(wanted)()
    async with asyncio.timeout(10):
        while wanted not in seen:
            seen += await connection.recv()
    return seen


async def test_websocket(engine: Client, run: Callable[..., str]) -> None:
    name = run("-i", script="while read x; do echo out $x; echo err $x >&2; done")
    every = "stream=1&stdin=1&stdout=1&stderr=1"
    async with socket_of(engine, f"/v1.45/containers/{name}/attach/ws?{every}") as both:
        await both.send("text\n")
        assert sorted((await read_until(both, b"err text\n")).splitlines()) == [b"err text", b"out text"]
        async with socket_of(engine, f"/v1.45/containers/{name}/attach/ws?stream=1&stderr=1&stdin=1") as errors:
            await errors.send(b"binary\n")
            assert await read_until(errors, b"binary\n") == b"err binary\n"
        assert b"out binary\n" in await read_until(both, b"err binary\n")
    async with socket_of(engine, f"/v1.27/containers/{name}/attach/ws?stream=1&stdout=1") as old:
        await old.send("old\n")  # before 1.42 all streams are on, before 1.28 output comes as text
        assert "out old\n" in await read_until(old, "err old\n")
    async with socket_of(engine, f"/v1.45/containers/{name}/attach/ws?{every}&logs=1") as late:
        assert b"out text\n" in await read_until(late, b"err old\n")
        engine.docker("kill", name)
        async with asyncio.timeout(10):
            await late.wait_closed()
        assert late.close_code == 1000


async def test_websocket_of_a_terminal(engine: Client, run: Callable[..., str]) -> None:
    name = run("-it", script="cat")
    async with socket_of(engine, f"/containers/{name}/attach/ws?stream=1&stdin=1&stdout=1&detachKeys=x,y") as client:
        await client.send(b"hello\n")
        await read_until(client, b"hello\r\nhello\r\n")
        await client.send("xy")
        async with asyncio.timeout(10):
            await client.wait_closed()
    assert engine.inspect(name)["State"]["Running"]
    eventually(lambda: actions(engine, name, "attach", "detach") == ["attach", "detach"])


@pytest.mark.parametrize(
    ("path", "status"), [("nope/attach/ws", 404), ("{name}/attach/ws?stream=1&detachKeys=zzz", 400)]
)
async def test_websocket_refusals(engine: Client, run: Callable[..., str], path: str, status: int) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await socket_of(engine, "/containers/" + path.format(name=run()))
    assert refused.value.response.status_code == status
    assert b'"message":' in refused.value.response.body

"""Containers through the stock docker CLI: create, start, end, remove, and what is told of it all."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from harness import eventually

pytestmark = pytest.mark.real

LOOP = "trap 'exit 7' TERM; while :; do sleep 0.1; done"


class Box:
    """Makes containers that are removed with the test."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.names: list[str] = []

    def name(self) -> str:
        self.names.append(self.engine.name("life"))
        return self.names[-1]

    def run(self, *command: str, options: tuple[str, ...] = ()) -> str:
        name = self.name()
        self.engine.docker("run", "-d", "--network", "none", "--name", name, *options, self.engine.image, *command)
        return name

    def state(self, name: str) -> dict[str, Any]:
        return dict(self.engine.inspect(name)["State"])


@pytest.fixture
def box(engine: Any) -> Iterator[Box]:
    made = Box(engine)
    yield made
    if made.names:
        engine.docker("rm", "-fv", *made.names, check=False)


@pytest.mark.parametrize("code", [0, 1, 2, 42, 125, 126, 127, 128, 137, 255])
def test_exit_code(engine: Any, code: int) -> None:
    done = engine.docker("run", "--rm", "--network", "none", engine.image, "sh", "-c", f"exit {code}", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (["nosuch"], 127, 'exec: "nosuch": executable file not found in $PATH'),
        (["/nosuch"], 127, "no such file or directory"),
        (["/etc/passwd"], 126, 'exec: "/etc/passwd": permission denied'),
    ],
)
def test_command_that_cannot_run(box: Box, command: list[str], code: int, words: str) -> None:
    engine, name = box.engine, box.name()
    done = engine.docker("run", "--name", name, "--network", "none", engine.image, *command, check=False)
    assert done.returncode == code
    assert words in done.stderr
    state = box.state(name)
    assert (state["Status"], state["ExitCode"], state["Running"], state["Pid"]) == ("created", code, False, 0)
    assert words in state["Error"]
    gone = engine.docker("run", "--rm", "--network", "none", engine.image, *command, check=False)
    assert gone.returncode == code


def test_nothing_is_left_of_a_refused_container(box: Box) -> None:
    engine = box.engine
    before = engine.docker("ps", "-aq").stdout
    refusals = {
        ("--name", "a b"): "Invalid container name (a b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
        ("--stop-signal", "FOO"): "invalid signal: FOO",
        ("-w", "relative"): "the working directory 'relative' is invalid, it needs to be an absolute path",
        ("--network", "no-such-net"): "network no-such-net not found",
        ("--runtime", "no-such-runtime"): "no-such-runtime",
    }
    for options, message in refusals.items():
        done = engine.docker("run", "--rm", *options, engine.image, "true", check=False)
        assert done.returncode == 125, options
        assert message in done.stderr, options
    done = engine.docker("create", "--restart", "sometimes", engine.image, "true", check=False)
    assert "invalid restart policy: unknown policy 'sometimes'" in done.stderr
    assert engine.docker("ps", "-aq").stdout == before


def test_unknown_image_makes_the_cli_try_a_pull(engine: Any) -> None:
    reply = engine.http("POST", "/containers/create", {"Image": "no-such-image", "Cmd": ["x"]})
    assert (reply.status, reply.message) == (404, "No such image: no-such-image:latest")


def test_name_in_use(box: Box) -> None:
    name = box.run("sleep", "100")
    found = box.engine.inspect(name)["Id"]
    done = box.engine.docker("create", "--name", name, box.engine.image, check=False)
    assert (
        f'Conflict. The container name "/{name}" is already in use by container "{found}". You have to remove (or rename)'
        " that container to be able to reuse that name."
    ) in done.stderr
    reply = box.engine.http("POST", f"/containers/create?name={name}", {"Image": box.engine.image, "Cmd": ["x"]})
    assert reply.status == 409


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("POST", "/containers/{0}/kill", 409, "cannot kill container: {0}: container {1} is not running"),
        ("POST", "/containers/{0}/kill?signal=FOO", 400, "cannot kill container: {0}: invalid signal: FOO"),
        ("POST", "/containers/{0}/stop", 304, ""),
        ("POST", "/containers/{0}/pause", 409, "container {1} is not running"),
        ("POST", "/containers/{0}/wait?condition=x", 400, 'invalid condition: "x"'),
        ("POST", "/containers/{0}/rename?name=", 400, "Neither old nor new names may be empty"),
        ("POST", "/containers/{0}/rename?name=a!", 400, "Error when allocating new name: Invalid container name (/a!)"),
        ("POST", "/containers/nope/start", 404, "No such container: nope"),
        ("POST", "/containers/nope/wait", 404, "No such container: nope"),
        ("POST", "/containers/nope/kill", 404, "cannot kill container: nope: No such container: nope"),
        ("DELETE", "/containers/nope?force=1", 404, "No such container: nope"),
        ("GET", "/containers/nope/json", 404, "No such container: nope"),
        ("GET", "/containers/json?filters=x", 400, "invalid filter"),
    ],
)
def test_messages(box: Box, method: str, path: str, status: int, message: str) -> None:
    name = box.name()
    found = box.engine.docker("create", "--name", name, "--network", "none", box.engine.image, "true").stdout.strip()
    reply = box.engine.http(method, path.format(name, found))
    assert reply.status == status, reply.body
    if message:
        assert message.format(name, found) in reply.message


def test_stop_signal_timeout_and_events(box: Box) -> None:
    engine = box.engine
    began = f"{time.time():.9f}"
    name = box.run("sh", "-c", LOOP, options=("--label", "k=v", "--stop-timeout", "20"))
    engine.docker("pause", name)
    assert box.state(name)["Status"] == "paused"
    assert "(Paused)" in engine.docker("ps", "--filter", f"name={name}", "--format", "{{.Status}}").stdout
    refused = engine.docker("start", name, check=False)
    assert "cannot start a paused container, try unpause instead" in refused.stderr
    engine.docker("unpause", name)
    engine.docker("kill", "-s", "USR2", name)
    time.sleep(0.3)
    if box.state(name)["Running"]:
        engine.docker("stop", name)
        assert box.state(name)["ExitCode"] == 7
    engine.docker("start", name)
    time.sleep(0.3)
    engine.docker("stop", name)
    state = box.state(name)
    assert (state["Status"], state["ExitCode"]) == ("exited", 7)
    engine.docker("rm", name)
    listed = engine.docker(
        "events",
        "--since",
        began,
        "--until",
        f"{time.time():.9f}",
        "--filter",
        "type=container",
        "--format",
        "{{json .}}",
    ).stdout
    events = [json.loads(line) for line in listed.splitlines()]
    own = [event for event in events if event["Actor"]["Attributes"]["name"] == name]
    actions = [event["Action"] for event in own]
    for action in ("create", "start", "pause", "unpause", "kill", "die", "destroy"):
        assert action in actions
    assert actions[0] == "create"
    assert actions[-1] == "destroy"
    die = next(event for event in own if event["Action"] == "die")["Actor"]["Attributes"]
    assert {"image": engine.image, "k": "v", "name": name}.items() <= die.items()
    assert die["exitCode"].isdecimal()
    assert die["execDuration"].isdecimal()
    assert next(event for event in own if event["Action"] == "kill")["Actor"]["Attributes"]["signal"] == "12"


def test_kill_ends_before_it_answers(box: Box) -> None:
    name = box.run("sleep", "100")
    box.engine.docker("kill", name)
    assert box.state(name)["ExitCode"] == 137
    box.engine.docker("rm", name)


def test_rm(box: Box) -> None:
    name = box.run("sleep", "100")
    refused = box.engine.docker("rm", name, check=False)
    assert (
        f'cannot remove container "/{name}": container is running: stop the container before removing or force remove'
        in refused.stderr
    )
    box.engine.docker("rm", "-f", name)
    assert box.engine.docker("inspect", name, check=False).returncode == 1
    box.engine.docker("run", "--rm", "--name", name, "--network", "none", box.engine.image, "true")


def test_wait_answers_headers_at_once(box: Box) -> None:
    name = box.run("sh", "-c", "sleep 1; exit 9")
    connection = box.engine.connect()
    began = time.monotonic()
    connection.sendall(f"POST /containers/{name}/wait HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
    assert connection.recv(15) == b"HTTP/1.1 200 OK"
    assert time.monotonic() - began < 0.7
    rest = b""
    while b'"StatusCode":9' not in rest:
        piece = connection.recv(4096)
        assert piece
        rest += piece
    connection.close()
    assert box.engine.docker("wait", name).stdout.strip() == "9"


def test_restart_policy_on_failure(box: Box) -> None:
    name = box.run("sh", "-c", "exit 4", options=("--restart", "on-failure:2"))
    eventually(lambda: box.state(name)["Status"] == "exited" and box.engine.inspect(name)["RestartCount"] == 2)
    assert box.state(name)["ExitCode"] == 4


def test_restart_policy_always_until_stopped(box: Box) -> None:
    name = box.run("sh", "-c", "sleep 0.2; exit 4", options=("--restart", "always"))
    eventually(lambda: box.engine.inspect(name)["RestartCount"] >= 2)
    refused = box.engine.docker("rm", name, check=False)
    assert "stop the container before removing or force remove" in refused.stderr
    box.engine.docker("stop", "-t", "0", name)
    time.sleep(0.5)
    assert box.state(name)["Status"] == "exited"


def test_restart(box: Box) -> None:
    name = box.run("sleep", "100", options=("--rm",))
    first = box.state(name)["Pid"]
    box.engine.docker("restart", "-t", "0", name)
    second = box.state(name)
    assert second["Running"]
    assert second["Pid"] != first


def test_rename(box: Box) -> None:
    name, other = box.run("sleep", "100"), box.run("sleep", "100")
    renamed = box.name()
    box.engine.docker("rename", name, renamed)
    assert box.engine.inspect(renamed)["Name"] == f"/{renamed}"
    refused = box.engine.docker("rename", renamed, other, check=False)
    assert f'The container name "/{other}" is already in use by container' in refused.stderr
    assert box.engine.docker("inspect", name, check=False).returncode == 1


def test_update(box: Box) -> None:
    name = box.run("sleep", "100", options=("-m", "64m", "--memory-swap", "64m"))
    box.engine.docker("update", "-m", "32m", "--memory-swap", "32m", "--restart", "on-failure:3", name)
    host = box.engine.inspect(name)["HostConfig"]
    assert (host["Memory"], host["RestartPolicy"]) == (32 << 20, {"Name": "on-failure", "MaximumRetryCount": 3})
    refused = box.engine.docker("update", "-m", "3m", "--memory-swap", "3m", name, check=False)
    assert "Minimum memory limit allowed is 6MB" in refused.stderr


def test_out_of_memory_is_told(box: Box) -> None:
    name = box.name()
    done = box.engine.docker(
        "run", "--name", name, "--network", "none", "-m", "16m", "--memory-swap", "16m", box.engine.image,
        "sh", "-c", "x=x; while :; do x=$x$x; done", check=False,
    )  # fmt: skip
    assert done.returncode == 137
    eventually(lambda: box.state(name)["OOMKilled"])


@pytest.mark.parametrize("killed", [False, True])
def test_out_of_memory_that_the_container_lives_through(own_engine: Any, killed: bool) -> None:
    engine = own_engine()
    limit = ("-m", "16m", "--memory-swap", "16m")
    eater = "x=x; while :; do x=$x$x; done"
    engine.docker("run", "-d", "--name", "box", "--network", "none", *limit, engine.image, "sleep", "600")
    if killed:
        engine.kill9()
        engine.start()
    assert engine.inspect("box")["State"]["OOMKilled"] is False
    assert engine.docker("exec", "box", "sh", "-c", eater, check=False).returncode == 137
    eventually(lambda: engine.inspect("box")["State"]["OOMKilled"])
    assert engine.inspect("box")["State"]["Running"] is True
    engine.docker("exec", "box", "sh", "-c", eater, check=False)
    engine.docker("stop", "-t", "0", "box")
    span = ("--since", "1", "--until", f"{time.time():.6f}")
    told = engine.docker("events", *span, "--filter", "container=box", "--format", "{{.Action}}").stdout.split()
    assert told.count("oom") == 1, "once in a run"
    engine.docker("start", "box")
    assert engine.inspect("box")["State"]["OOMKilled"] is False


def test_ps(box: Box) -> None:
    engine = box.engine
    running = box.run("sleep", "100", options=("--label", "set=a"))
    ended = box.run("sh", "-c", "exit 3", options=("--label", "set=b"))
    engine.docker("wait", ended)

    def names(*filters: str) -> set[str]:
        flags = [part for text in filters for part in ("--filter", text)]
        return {*engine.docker("ps", "-a", "--format", "{{.Names}}", *flags).stdout.split()} & {running, ended}

    assert names() == {running, ended}
    assert names("status=exited") == {ended}
    assert names("exited=3") == {ended}
    assert names("label=set") == {running, ended}
    assert names("label=set=a") == {running}
    assert names(f"ancestor={engine.image}", "status=running") == {running}
    assert names(f"since={running}") == {ended}
    assert names(f"before={ended}") == {running}
    assert names("network=none") == {running, ended}
    row = engine.docker(
        "ps", "-a", "--filter", f"name={ended}", "--format", "{{.Status}}|{{.Command}}|{{.Image}}"
    ).stdout
    assert row.startswith("Exited (3) Less than a second ago|\"sh -c 'exit 3'\"|") or row.startswith("Exited (3) ")
    sized = engine.docker("ps", "-as", "--filter", f"name={ended}", "--format", "{{.Size}}").stdout
    assert "virtual" in sized
    bad = engine.docker("ps", "--filter", "status=foo", check=False)
    assert "invalid filter 'status=foo'" in bad.stderr


def test_prune(own_engine: Any) -> None:
    engine = own_engine()
    engine.docker("run", "--network", "none", "--name", "ended", engine.image, "sh", "-c", "echo x > /f")
    engine.docker("run", "-d", "--network", "none", "--name", "runs", engine.image, "sleep", "100")
    done = engine.docker("container", "prune", "-f").stdout
    assert "Deleted Containers:" in done
    assert engine.docker("ps", "-a", "--format", "{{.Names}}").stdout.split() == ["runs"]
    info = engine.http("GET", "/info").json()
    assert (info["Containers"], info["ContainersRunning"]) == (1, 1)
    engine.docker("rm", "-f", "runs")


def test_many_at_once(box: Box) -> None:
    engine = box.engine
    names = [box.name() for _ in range(20)]
    clients = [
        engine.popen("run", "--name", name, "--network", "none", engine.image, "sh", "-c", f"echo {name}",
                     stdin=subprocess.DEVNULL)
        for name in names
    ]  # fmt: skip
    for name, client in zip(names, clients, strict=True):
        out, err = client.communicate(timeout=60)
        assert (client.returncode, out, err) == (0, f"{name}\n", "")


def test_old_and_new_clients_see_the_same(box: Box) -> None:
    name = box.run("sleep", "100")
    for version in ("v1.24", "v1.51"):
        seen = box.engine.http("GET", f"/{version}/containers/{name}/json").json()
        assert seen["State"]["Running"] is True
        assert seen["Config"]["Image"] == box.engine.image

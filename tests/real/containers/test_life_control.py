"""Signals, new limits, restart counts and conflicts, as the stock docker CLI and the bare API show them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import eventually

pytestmark = pytest.mark.real

FOREVER = ("sleep", "1000")


@pytest.fixture
def box(engine: Any) -> Iterator[Any]:
    """Makes containers that are removed with the test: `box(*command, options=())` gives a running one's name."""
    names: list[str] = []

    def run(*command: str, options: tuple[str, ...] = ()) -> str:
        names.append(engine.name("life"))
        engine.docker("run", "-d", "--network", "none", "--name", names[-1], *options, engine.image, *command)
        return names[-1]

    yield run
    if names:
        engine.docker("rm", "-fv", *names, check=False)


def _group(engine: Any, name: str, controller: str) -> Path:
    """The container's cgroup, by the kernel's own word."""
    pid = engine.inspect(name)["State"]["Pid"]
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return Path("/sys/fs/cgroup", controller) / path.lstrip("/")
        unified = number == "0" and path
    return Path("/sys/fs/cgroup") / unified.lstrip("/")


def _limit(engine: Any, name: str, controller: str, v1: str, v2: str) -> str:
    group = _group(engine, name, controller)
    return ((group / v1) if (group / v1).exists() else (group / v2)).read_text().strip()


@pytest.mark.parametrize("signal", ["USR1", "SIGUSR1", "sigusr1", "10", "36", "RTMIN+2", "SIGRTMIN+2", "rtmax-28"])
def test_kill_with_a_signal_that_the_command_handles(engine: Any, box: Any, signal: str) -> None:
    name = box("sh", "-c", "trap 'echo got' USR1 36; echo ready; while :; do sleep 0.05; done")
    eventually(lambda: "ready" in engine.docker("logs", name).stdout)
    engine.docker("kill", "--signal", signal, name)
    eventually(lambda: "got" in engine.docker("logs", name).stdout)
    assert engine.inspect(name)["State"]["Running"]


@pytest.mark.parametrize(
    ("signal", "words"),
    [
        ("FOO", "invalid signal: FOO"),
        ("0", "invalid signal: 0"),
        ("RTMAX+1", "invalid signal: RTMAX+1"),
        ("99", "the linux daemon does not support signal 99"),
        ("65", "the linux daemon does not support signal 65"),
        ("-1", "the linux daemon does not support signal -1"),
    ],
)
def test_kill_with_what_is_no_signal(engine: Any, box: Any, signal: str, words: str) -> None:
    name = box(*FOREVER)
    done = engine.docker("kill", "--signal", signal, name, check=False)
    assert done.returncode == 1
    assert done.stderr.strip() == f"Error response from daemon: cannot kill container: {name}: {words}"
    assert engine.inspect(name)["State"]["Running"]


def test_stop_of_a_stopped_one_does_not_look_at_the_signal(engine: Any, box: Any) -> None:
    name = box("true")
    engine.docker("wait", name)
    assert engine.http("POST", f"/containers/{name}/stop?signal=FOO").status == 304
    engine.docker("start", name)


def test_addresses_are_gone_with_the_end(engine: Any) -> None:
    name = engine.name("life")
    engine.docker("run", "-d", "--name", name, engine.image, *FOREVER)
    try:
        assert engine.inspect(name)["NetworkSettings"]["IPAddress"]
        engine.docker("kill", name)
        seen = engine.inspect(name)["NetworkSettings"]
        bridge = seen["Networks"]["bridge"]
        assert (
            seen["IPAddress"],
            seen["MacAddress"],
            bridge["IPAddress"],
            bridge["Gateway"],
            bridge["EndpointID"],
        ) == (("",) * 5)
    finally:
        engine.docker("rm", "-f", name)


def test_new_limits_reach_the_cgroup_and_stay_over_a_restart(engine: Any, box: Any) -> None:
    name = box(*FOREVER, options=("-m", "64m", "--memory-swap", "64m", "--memory-reservation", "48m"))
    # A reservation above the new limit is no obstacle, as with dockerd.
    engine.docker("update", "-m", "32m", "--memory-swap", "32m", "--cpus", "0.5", "--cpuset-cpus", "0", name)
    engine.docker("update", "--pids-limit", "50", "--cpu-shares", "512", name)

    def check() -> None:
        assert _limit(engine, name, "memory", "memory.limit_in_bytes", "memory.max") == str(32 << 20)
        assert _limit(engine, name, "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0] == "50000"
        assert _limit(engine, name, "cpuset", "cpuset.cpus", "cpuset.cpus") == "0"
        assert _limit(engine, name, "pids", "pids.max", "pids.max") == "50"

    check()
    engine.docker("restart", "-t", "0", name)
    check()
    engine.docker("update", "--pids-limit", "-1", name)
    assert _limit(engine, name, "pids", "pids.max", "pids.max") == "max"
    host = engine.inspect(name)["HostConfig"]
    assert (host["Memory"], host["NanoCpus"], host["CpusetCpus"], host["CpuShares"]) == (32 << 20, 5 * 10**8, "0", 512)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-m", "3m"), "Minimum memory limit allowed is 6MB"),
        (
            ("-m", "64m", "--memory-swap", "32m"),
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (
            ("-m", "256m"),
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the",
        ),
        (("--cpu-quota", "20000"), "CPU Quota cannot be updated as NanoCPUs has already been set"),
        (("--cpu-period", "50000"), "CPU Period cannot be updated as NanoCPUs has already been set"),
        (("--cpus", "1000"), "Range of CPUs is from 0.01 to"),
        (("--cpuset-cpus", "999"), "Requested CPUs are not available - requested 999"),
        (("--restart", "sometimes"), "invalid restart policy: unknown policy 'sometimes'"),
        (("--restart", "always:3"), "maximum retry count can only be used with 'on-failure'"),
    ],
)
def test_limits_that_cannot_be(engine: Any, box: Any, options: tuple[str, ...], words: str) -> None:
    name = box(*FOREVER, options=("-m", "64m", "--memory-swap", "128m", "--cpus", "0.5"))
    before = engine.inspect(name)["HostConfig"]
    done = engine.docker("update", *options, name, check=False)
    assert done.returncode == 1
    assert words in done.stderr
    assert engine.inspect(name)["HostConfig"] == before
    assert _limit(engine, name, "memory", "memory.limit_in_bytes", "memory.max") == str(64 << 20)


def test_limits_and_policy_survive_the_daemon(own_engine: Any) -> None:
    engine = own_engine()
    engine.docker("run", "-d", "--network", "none", "--name", "keep", "-m", "64m", engine.image, *FOREVER)
    engine.docker("update", "-m", "32m", "--memory-swap", "48m", "--restart", "on-failure:3", "keep")
    engine.kill9()
    engine.start()
    host = engine.inspect("keep")["HostConfig"]
    assert (host["Memory"], host["MemorySwap"]) == (32 << 20, 48 << 20)
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert _limit(engine, "keep", "memory", "memory.limit_in_bytes", "memory.max") == str(32 << 20)
    engine.docker("rm", "-f", "keep")


def test_a_start_by_a_person_begins_the_count_anew(engine: Any, box: Any) -> None:
    name = box(
        "sh", "-c", "[ -f /second ] && exec sleep 1000; touch /second; exit 1", options=("--restart", "on-failure:5")
    )

    def count() -> int:
        return int(engine.inspect(name)["RestartCount"])

    eventually(lambda: count() == 1 and engine.inspect(name)["State"]["Status"] == "running")
    engine.docker("restart", "-t", "0", name)
    assert count() == 0


def test_on_failure_tries_again_after_a_start_by_a_person(engine: Any, box: Any) -> None:
    name = box("sh", "-c", "echo run; exit 4", options=("--restart", "on-failure:1"))
    runs = lambda: engine.docker("logs", name).stdout.count("run")  # noqa: E731
    ended = lambda: engine.inspect(name)["State"]["Status"] == "exited"  # noqa: E731
    eventually(lambda: ended() and runs() == 2)
    engine.docker("start", name)
    eventually(lambda: ended() and runs() == 4)
    assert engine.inspect(name)["RestartCount"] == 1


def test_while_it_waits_to_be_restarted(engine: Any, box: Any) -> None:
    name = box("sh", "-c", "exit 4", options=("--restart", "always"))
    eventually(lambda: engine.inspect(name)["RestartCount"] >= 4 and engine.inspect(name)["State"]["Restarting"])
    found = engine.inspect(name)["Id"]
    for command in (("pause", name), ("exec", name, "true")):
        done = engine.docker(*command, check=False)
        assert f"Container {found} is restarting, wait until the container is running" in done.stderr
    refused = engine.docker("rm", name, check=False).stderr
    assert f'cannot remove container "/{name}": container is restarting: stop the container before removing' in refused
    waiter = engine.popen("wait", name)
    engine.docker("stop", name)
    out, _ = waiter.communicate(timeout=20)
    assert out.strip() == "4"
    state = engine.inspect(name)["State"]
    assert (state["Status"], state["Restarting"], state["ExitCode"]) == ("exited", False, 4)


def test_unless_stopped_over_restarts_of_the_daemon(own_engine: Any) -> None:
    engine = own_engine()
    for name in ("stays", "stopped", "always"):
        policy = "always" if name == "always" else "unless-stopped"
        engine.docker("run", "-d", "--network", "none", "--name", name, "--restart", policy, engine.image, *FOREVER)
    engine.docker("stop", "-t", "0", "stopped", "always")
    pid = engine.inspect("stays")["State"]["Pid"]
    engine.restart()
    eventually(lambda: engine.inspect("always")["State"]["Running"])
    assert engine.inspect("stays")["State"]["Pid"] == pid
    assert engine.inspect("stopped")["State"]["Status"] == "exited"
    engine.docker("rm", "-f", "stays", "stopped", "always")


def test_memory_that_runs_out_in_a_child(engine: Any, box: Any) -> None:
    eater = "x=x; while :; do x=$x$x; done"
    name = box("sh", "-c", f"sh -c '{eater}'; exit 3", options=("-m", "20m", "--memory-swap", "20m"))
    assert engine.docker("wait", name).stdout.strip() == "3"
    assert engine.inspect(name)["State"]["OOMKilled"] is True
    listed = engine.docker(
        "events", "--since", engine.inspect(name)["Created"], "--until", f"{time.time():.9f}", "--filter", f"container={name}",
        "--format", "{{json .}}",
    ).stdout  # fmt: skip
    actions = [json.loads(line)["Action"] for line in listed.splitlines()]
    assert "oom" in actions
    assert actions.index("oom") < actions.index("die")


def test_wait_for_next_exit_and_removal(engine: Any) -> None:
    name = engine.name("life")
    engine.docker("create", "--rm", "--network", "none", "--name", name, engine.image, "sh", "-c", "exit 5")
    client = engine.api()
    container = client.containers.get(name)
    connection = engine.connect()
    connection.sendall(
        f"POST /containers/{name}/wait?condition=next-exit HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()
    )
    assert connection.recv(12) == b"HTTP/1.1 200"
    container.start()
    rest = b""
    while b'"StatusCode":5' not in rest:
        piece = connection.recv(4096)
        assert piece
        rest += piece
    connection.close()
    client.close()
    eventually(lambda: engine.docker("inspect", name, check=False).returncode == 1)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ('/containers/prune?filters={"until":["odd"]}', 'failed to parse value as time or duration: "odd"'),
        ('/containers/prune?filters={"until":["1h","2h"]}', "more than one until filter specified"),
        ('/containers/prune?filters={"dangling":["x"]}', "invalid filter"),
    ],
)
def test_filters_of_prune_that_cannot_be(engine: Any, path: str, words: str) -> None:
    reply = engine.http("POST", path)
    assert reply.status == 400
    assert words in reply.message


def test_prune_by_label_and_age(engine: Any, box: Any) -> None:
    mark = engine.name("prune")
    old = box("true", options=("--label", mark, "--label", f"{mark}.keep=no"))
    kept = box("true", options=("--label", mark, "--label", f"{mark}.keep=yes"))
    for name in (old, kept):
        engine.docker("wait", name)
    both = ("--filter", f"label={mark}", "--filter", f"label!={mark}.keep=yes")
    assert "Deleted Containers" not in engine.docker("container", "prune", "-f", *both, "--filter", "until=1h").stdout
    found = engine.inspect(old)["Id"]
    assert found in engine.docker("container", "prune", "-f", *both).stdout
    assert engine.docker("inspect", old, check=False).returncode == 1
    assert engine.inspect(kept)["State"]["Status"] == "exited"

"""kill -9 of the daemon, at rest and in the middle of things: nothing is lost, nothing leaks."""

from __future__ import annotations

import subprocess
import time
from typing import Any

import pytest
from harness import eventually

pytestmark = pytest.mark.real

NONE = ("--network", "none")


def _names(engine: Any, *flags: str) -> list[str]:
    return sorted(engine.docker("ps", "--format", "{{.Names}}", *flags).stdout.split())


def test_ten_containers_outlive_the_daemon(own_engine: Any) -> None:
    engine = own_engine()
    for number in range(10):
        engine.docker("run", "-d", *NONE, "--name", f"c{number}", engine.image, "sh", "-c",
                      "trap 'exit 5' TERM; i=0; while :; do echo line $((i+=1)); sleep 0.1; done")  # fmt: skip
    engine.docker("run", "-d", *NONE, "--name", "brief", engine.image, "sh", "-c", "sleep 1; exit 6")
    engine.docker("run", "-d", "--rm", *NONE, "--name", "fleeting", engine.image, "sleep", "1")
    engine.docker("run", "-d", *NONE, "--restart", "always", "--name", "again", engine.image, "sh", "-c", "sleep 1")
    pids = {f"c{n}": engine.inspect(f"c{n}")["State"]["Pid"] for n in range(10)}
    engine.kill9()
    time.sleep(1.5)
    engine.start()
    eventually(lambda: "again" in _names(engine))
    assert [name for name in _names(engine) if name.startswith("c")] == sorted(pids)
    assert {name: engine.inspect(name)["State"]["Pid"] for name in pids} == pids
    state = engine.inspect("brief")["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 6)
    eventually(lambda: engine.docker("inspect", "fleeting", check=False).returncode == 1)
    assert engine.docker("exec", "c3", "echo", "there").stdout == "there\n"
    assert "line 1\n" in engine.docker("logs", "c4").stdout
    engine.docker("stop", "c5")
    assert engine.inspect("c5")["State"]["ExitCode"] == 5
    engine.docker("rm", "-f", *_names(engine, "-a"))


def test_orderly_stop_leaves_containers_running(own_engine: Any) -> None:
    engine = own_engine()
    engine.docker("run", "-d", *NONE, "--name", "web", engine.image, "sleep", "100")
    engine.docker("run", "-d", *NONE, "--name", "cold", engine.image, "sleep", "100")
    engine.docker("pause", "cold")
    pid = engine.inspect("web")["State"]["Pid"]
    engine.restart()
    assert engine.inspect("web")["State"]["Pid"] == pid
    assert engine.inspect("cold")["State"]["Status"] == "paused"
    engine.docker("unpause", "cold")
    engine.docker("rm", "-f", "web", "cold")


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06])
def test_killed_in_the_middle(own_engine: Any, delay: float) -> None:
    engine = own_engine()
    clients = [
        engine.popen("run", *flags, *NONE, "--name", f"x{n}", engine.image, "sleep", "100", stdin=subprocess.DEVNULL)
        for n, flags in enumerate([("-d",), ("-d",), ("-d", "--rm"), ("-d", "--restart", "always")])
    ]
    time.sleep(0.02 + delay)
    engine.kill9()
    for client in clients:
        client.communicate(timeout=30)
    engine.start()
    names = _names(engine, "-a")
    for name in names:
        # One with --rm whose start was cut off goes away by itself.
        seen = engine.docker("inspect", "-f", "{{.State.Status}}", name, check=name != "x2").stdout.strip()
        assert seen in ("created", "running", "exited", "restarting") or name == "x2"
    if names:
        engine.docker("rm", "-fv", *names, check=False)
    assert not _names(engine, "-a")
    engine.docker("run", "--rm", *NONE, "--name", "x0", engine.image, "true")
    eventually(lambda: not list((engine.root / "run" / "containers").iterdir()))

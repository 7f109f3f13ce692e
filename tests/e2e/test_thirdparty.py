"""A plugin from outside (tests/thirdparty): it comes, it breaks, it goes, and nothing else suffers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Engine, eventually

pytestmark = pytest.mark.real


@pytest.fixture
def engine(own_engine: Callable[..., Engine], thirdparty: Path) -> Engine:
    return own_engine("--block-plugin", "witness", environment={"PYTHONPATH": str(thirdparty)})


@pytest.fixture
def bystander(engine: Engine) -> Iterator[str]:
    """A container that has nothing to do with the plugin; in the end it must have missed nothing."""
    script = "i=0; while true; do i=$((i+1)); echo $i; sleep 0.1; done"
    engine.docker("run", "-d", "--name", "bystander", engine.image, "sh", "-c", script)
    pid = engine.inspect("bystander")["State"]["Pid"]
    yield "bystander"
    assert engine.running, engine.log()[-3000:]
    assert engine.inspect("bystander")["State"]["Pid"] == pid
    numbers = [int(line) for line in engine.docker("logs", "bystander").stdout.split()]
    assert numbers == list(range(1, len(numbers) + 1))


def mode(engine: Engine, part: str, name: str) -> None:
    answer = engine.http("POST", f"/v1.45/sample/mode?part={part}&mode={name}")
    assert answer.status == 200, answer.body


def quick(engine: Engine) -> bool:
    """What must never wait for a plugin: ps, inspect, exec, kill -0 style calls."""
    began = time.monotonic()
    engine.docker("ps", "-a")
    engine.inspect("bystander")
    assert engine.docker("exec", "bystander", "echo", "fine").stdout == "fine\n"
    return time.monotonic() - began < 3


def test_it_adds_what_it_promised(engine: Engine) -> None:
    assert "sample" in engine.engine("plugin", "ls", "--all").stdout
    plugins = engine.http("GET", "/v1.45/info").json()["Plugins"]
    assert "sample" in plugins["Log"]
    assert "sample" in plugins["Volume"]
    engine.docker("volume", "create", "-d", "sample", "things")
    options = ["--log-driver", "sample", "--log-opt", "colour=red", "-v", "things:/things"]
    script = "echo out; echo err >&2; echo kept > /things/file; sleep 0.3; echo $SAMPLE"
    engine.docker("run", "--name", "user", *options, engine.image, "sh", "-c", script)
    shown = engine.docker("logs", "user")
    assert (shown.stdout, shown.stderr) == ("out\nuser\n", "err\n")
    assert engine.docker("logs", "-n", "1", "user").stdout == "user\n"
    refused = engine.docker("create", "--log-driver", "sample", "--log-opt", "x=1", engine.image, check=False)
    assert "unknown log opt 'x' for sample log driver" in refused.stderr
    look = engine.http("GET", "/v1.45/sample").json()
    assert look["prepared"] == [engine.inspect("user")["Id"]]
    engine.docker("rm", "user")
    engine.docker("volume", "rm", "things")


def test_disable_and_enable_while_containers_run(engine: Engine, bystander: str) -> None:
    engine.engine("plugin", "disable", "sample")
    assert engine.http("GET", "/v1.45/sample").status == 404
    assert "sample" not in engine.http("GET", "/v1.45/info").json()["Plugins"]["Log"]
    refused = engine.docker("run", "--rm", "--log-driver", "sample", engine.image, "true", check=False)
    assert refused.returncode == 125
    assert "sample" in refused.stderr
    assert engine.docker("run", "--rm", engine.image, "sh", "-c", "echo -$SAMPLE-").stdout == "--\n"
    engine.restart()
    eventually(lambda: engine.http("GET", "/v1.45/sample").status == 404)  # remembered
    engine.engine("plugin", "enable", "sample")
    assert engine.http("GET", "/v1.45/sample").status == 200
    assert engine.docker("run", "--rm", "--name", "nn", engine.image, "sh", "-c", "echo -$SAMPLE-").stdout == "-nn-\n"
    assert quick(engine)


def test_container_of_its_drivers_goes_on_without_it(engine: Engine, bystander: str) -> None:
    script = "i=0; while true; do i=$((i+1)); echo $i; echo $i > /things/last; sleep 0.1; done"
    engine.docker("volume", "create", "-d", "sample", "things")
    options = ["--log-driver", "sample", "-v", "things:/things"]
    engine.docker("run", "-d", "--name", "user", *options, engine.image, "sh", "-c", script)
    time.sleep(0.5)
    engine.engine("plugin", "disable", "--force", "sample")
    assert quick(engine)
    time.sleep(1)
    assert engine.inspect("user")["State"]["Running"] is True
    engine.engine("plugin", "enable", "sample")

    def numbers() -> list[int]:
        return [int(line) for line in engine.docker("logs", "user").stdout.split()]

    # What was written while the driver was away has been kept for it.
    eventually(lambda: len(numbers()) > 20, timeout=15)
    seen = numbers()
    assert seen == list(range(1, len(seen) + 1))
    engine.docker("rm", "-f", "user")
    engine.docker("volume", "rm", "things")


@pytest.mark.parametrize("how", ["raise", "hang", "rubbish"])
def test_broken_log_driver(engine: Engine, bystander: str, how: str) -> None:
    mode(engine, "log", how)
    began = time.monotonic()
    engine.docker(
        "run", "-d", "--name", "user", "--log-driver", "sample", engine.image, "sh", "-c", "echo said; sleep 60"
    )
    assert time.monotonic() - began < 15
    assert quick(engine)
    assert engine.inspect("user")["State"]["Running"] is True
    began = time.monotonic()
    engine.docker("kill", "user")
    assert time.monotonic() - began < 5
    mode(engine, "log", "ok")
    eventually(lambda: engine.docker("logs", "user", check=False).stdout == "said\n", timeout=30)
    engine.docker("rm", "user")


@pytest.mark.parametrize("how", ["raise", "hang", "rubbish"])
def test_broken_volume_driver(engine: Engine, bystander: str, how: str) -> None:
    engine.docker("volume", "create", "-d", "sample", "things")
    engine.docker("volume", "create", "own")
    mode(engine, "volume", how)
    client = engine.popen("run", "--rm", "-v", "things:/things", engine.image, "true")
    assert quick(engine)
    names = engine.docker("volume", "ls", "-q", timeout=20).stdout.split()
    assert "own" in names
    assert engine.docker("run", "--rm", "-v", "own:/own", engine.image, "echo", "fine").stdout == "fine\n"
    _, err = client.communicate(timeout=60)
    assert client.returncode == 125
    assert "sample" in err
    mode(engine, "volume", "ok")
    assert engine.docker("run", "--rm", "-v", "things:/things", engine.image, "echo", "well").stdout == "well\n"
    engine.docker("volume", "rm", "things")


@pytest.mark.parametrize("how", ["raise", "hang", "rubbish"])
def test_broken_route(engine: Engine, bystander: str, how: str) -> None:
    mode(engine, "route", how)
    if how == "hang":
        with engine.connect() as hanging:
            hanging.sendall(b"GET /v1.45/sample HTTP/1.1\r\nHost: x\r\n\r\n")
            assert quick(engine)
    else:
        answer = engine.http("GET", "/v1.45/sample")
        assert answer.status == 500
        assert answer.message
    assert quick(engine)
    mode(engine, "route", "ok")
    assert engine.http("GET", "/v1.45/sample").status == 200


def test_hook_that_raises_is_named(engine: Engine, bystander: str) -> None:
    mode(engine, "prepare", "raise")
    done = engine.docker("run", "--rm", engine.image, "true", check=False)
    assert done.returncode == 125
    assert "'sample'" in done.stderr
    assert "engine_container_prepare" in done.stderr
    assert quick(engine)
    mode(engine, "prepare", "ok")
    engine.docker("run", "--rm", engine.image, "true")


def test_hook_that_hangs_holds_up_its_own_start_alone(engine: Engine, bystander: str) -> None:
    engine.docker("run", "-d", "--name", "other", engine.image, "sleep", "600")
    mode(engine, "prepare", "hang")
    client = engine.popen("run", "--name", "waiting", engine.image, "echo", "at last")
    eventually(lambda: "waiting" in engine.docker("ps", "-a", "--format", "{{.Names}}").stdout.split())
    assert quick(engine)
    engine.docker("stop", "-t", "0", "other")
    engine.docker("rm", "other")
    mode(engine, "prepare", "ok")
    out, _ = client.communicate(timeout=30)
    assert out == "at last\n"


def test_hook_with_rubbish_harms_its_own_start_at_most(engine: Engine, bystander: str) -> None:
    mode(engine, "prepare", "rubbish")
    engine.docker("run", "--rm", engine.image, "true", check=False)
    assert quick(engine)
    mode(engine, "prepare", "ok")
    assert engine.docker("run", "--rm", engine.image, "echo", "well").stdout == "well\n"


def test_plugin_that_keeps_failing_is_switched_off(engine: Engine, bystander: str) -> None:
    mode(engine, "prepare", "raise")
    for _ in range(20):
        if engine.docker("run", "--rm", engine.image, "true", check=False).returncode == 0:
            break
    assert engine.docker("run", "--rm", engine.image, "echo", "without it").stdout == "without it\n"
    rows = engine.engine("plugin", "ls", "--all").stdout.splitlines()
    (row,) = [line for line in rows if line.split()[0] == "sample" or " sample " in line]
    assert "failed" in row
    told = str(engine.http("GET", "/v1.45/info").json())
    assert "told to raise" in told
    engine.engine("plugin", "enable", "sample")
    assert engine.http("GET", "/v1.45/sample").status == 200

"""A managed log plugin, in C: what it keeps over its own death, and what happens to containers without it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Client, eventually

pytestmark = pytest.mark.real

SOURCE = Path(__file__).with_name("keeper.c")


@pytest.fixture(scope="module")
def keeper(real_host: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `config.json` and `rootfs`."""
    folder = tmp_path_factory.mktemp("keeper")
    (folder / "rootfs").mkdir()
    compile_it = ["gcc", "-O2", "-Wall", "-Wextra", "-static", "-D_GNU_SOURCE", "-o", folder / "rootfs/keeper", SOURCE]
    subprocess.run(compile_it, check=True, timeout=60)
    interface = {"types": ["docker.logdriver/1.0"], "socket": "keeper.sock"}
    config = {"description": "keeps logs", "entrypoint": ["/keeper"], "interface": interface}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def plugin(engine: Client, keeper: Path) -> Iterator[str]:
    """Its name, without the tag; enabled."""
    name = f"me/{engine.name()}"
    engine.docker("plugin", "create", name, keeper)
    engine.docker("plugin", "enable", name)
    yield name
    engine.docker("plugin", "rm", "-f", name, check=False)


@pytest.fixture
def counting(engine: Client, plugin: str) -> Iterator[str]:
    """A container that counts to 3000 within some seconds."""
    script = "for k in $(seq 0 29); do seq $((k*100+1)) $((k*100+100)); sleep 0.1; done; sleep 600"
    name = engine.name()
    where = ["--network", "none", "--name", name, "--log-driver", plugin]
    engine.docker("run", "-d", *where, engine.image, "sh", "-c", script)
    yield name
    engine.docker("rm", "-f", name)


def logged(engine: Client, name: str) -> list[int]:
    return [int(line) for line in engine.docker("logs", name).stdout.split()]


def test_killed_and_started_again_it_misses_nothing(engine: Client, plugin: str, counting: str) -> None:
    assert engine.inspect(counting)["HostConfig"]["LogConfig"]["Type"] == plugin
    for _ in range(2):
        time.sleep(0.8)
        pid = engine.http("GET", f"/plugins/{plugin}/json").json()["Status"]["Pid"]
        os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: logged(engine, counting)[-1:] == [3000], timeout=30)
    assert logged(engine, counting) == list(range(1, 3001))


def test_in_use_is_a_running_container(engine: Client, plugin: str, counting: str) -> None:
    refused = engine.docker("plugin", "disable", plugin, check=False)
    assert refused.returncode == 1
    assert f"plugin {plugin}:latest is in use: container {counting} (running)" in refused.stderr
    engine.docker("stop", "-t", "0", counting)
    engine.docker("plugin", "disable", plugin)
    refused = engine.docker("start", counting, check=False)
    assert f"plugin {plugin}:latest found but disabled" in refused.stderr
    assert "failed to initialize logging driver" in refused.stderr
    refused = engine.docker("create", "--log-driver", plugin, engine.image, "true", check=False)
    assert f"plugin {plugin}:latest found but disabled" in refused.stderr


def test_disabled_by_force_and_enabled_again(engine: Client, plugin: str, counting: str) -> None:
    time.sleep(0.5)
    engine.docker("plugin", "disable", "-f", plugin)
    held = engine.docker("plugin", "rm", plugin, check=False)
    assert f"container {counting} (running)" in held.stderr
    time.sleep(1)
    assert engine.inspect(counting)["State"]["Running"]
    engine.docker("plugin", "enable", plugin)
    assert eventually(lambda: logged(engine, counting)[-1:] == [3000], timeout=30)
    assert logged(engine, counting) == list(range(1, 3001))
    began = time.monotonic()
    engine.docker("rm", "-f", counting)
    assert time.monotonic() - began < 3

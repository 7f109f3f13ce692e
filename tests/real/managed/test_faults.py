"""A managed plugin that misbehaves in the middle of a call harms nobody else, and the message says who it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Client, Engine, Registry, eventually

pytestmark = pytest.mark.real

SOURCE = Path(__file__).resolve().parents[2] / "harness/faulty.c"


@pytest.fixture(scope="session")
def faulty(real_host: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for `docker plugin create`; the argument says what Mount does."""
    folder = tmp_path_factory.mktemp("faulty")
    (folder / "rootfs/data").mkdir(parents=True)
    compile_it = ["gcc", "-static", "-O1", "-D_GNU_SOURCE", "-o", folder / "rootfs/plugin", SOURCE]
    subprocess.run(compile_it, check=True, timeout=60)
    config = {
        "description": "misbehaves",
        "entrypoint": ["/plugin"],
        "args": {"name": "args", "settable": ["value"], "value": ["rubbish"]},
        "interface": {"types": ["docker.volumedriver/1.0"], "socket": "p.sock"},
        "propagatedMount": "/data",
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("rubbish", "answered rubbish"),
        ("big", "answered with more than"),
        ("escape", "cannot be used"),
        ("die", "broke off the connection"),
    ],
)
def test_a_bad_answer_to_mount(engine: Client, faulty: Path, mode: str, words: str) -> None:
    name, volume = engine.name("plugin"), engine.name("volume")
    engine.docker("plugin", "create", name, faulty)
    engine.docker("plugin", "set", name, f"args={mode}")
    engine.docker("plugin", "enable", name)
    engine.docker("volume", "create", "-d", name, volume)
    refused = engine.docker("run", "--rm", "-v", f"{volume}:/v", engine.image, "true", check=False)
    assert refused.returncode == 125
    assert name in refused.stderr and (words in refused.stderr or "mount" in refused.stderr.lower()), refused.stderr
    if mode != "escape":
        assert words in refused.stderr
    assert engine.docker("run", "--rm", engine.image, "echo", "well").stdout == "well\n"
    engine.docker("volume", "rm", "-f", volume)
    engine.docker("plugin", "rm", "-f", name)


def test_one_that_hangs_delays_nobody_else(engine: Client, faulty: Path) -> None:
    name, volume = engine.name("plugin"), engine.name("volume")
    engine.docker("plugin", "create", name, faulty)
    engine.docker("plugin", "set", name, "args=hang")
    engine.docker("plugin", "enable", name)
    engine.docker("volume", "create", "-d", name, volume)
    run = [*("run", "--rm", "-v", f"{volume}:/v", engine.image, "true")]
    stuck = subprocess.Popen(["docker", *run], env=engine.env(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        for command in (["ps", "-a"], ["plugin", "ls"], ["run", "--rm", engine.image, "true"], ["info"]):
            began = time.monotonic()
            engine.docker(*command)
            assert time.monotonic() - began < 5, command
    finally:
        stuck.kill()
        stuck.wait()
    engine.docker("plugin", "disable", "-f", name)
    gone = lambda: engine.docker("volume", "rm", "-f", volume, check=False).returncode == 0  # noqa: E731
    eventually(gone, timeout=20)
    engine.docker("plugin", "rm", "-f", name)


def test_stopped_it_lets_the_engine_work_and_start(own_engine: Callable[..., Engine], faulty: Path) -> None:
    engine = own_engine()
    engine.docker("plugin", "create", "still", faulty)
    engine.docker("plugin", "enable", "still")
    pid = engine.http("GET", "/plugins/still/json").json()["Status"]["Pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        engine.kill9()
        assert engine.start() < 2
        for command in (["ps"], ["plugin", "ls"], ["volume", "ls"], ["run", "--rm", engine.image, "true"]):
            began = time.monotonic()
            engine.docker(*command)
            assert time.monotonic() - began < 5, command
    finally:
        os.kill(pid, signal.SIGCONT)
    ready = lambda: engine.http("GET", "/plugins/still/json").json()["Status"]["State"] == "ready"  # noqa: E731
    eventually(ready, timeout=30)
    engine.docker("plugin", "rm", "-f", "still")


def test_upgraded_while_a_container_has_its_volume(engine: Client, built: Path, tmp_path: Path) -> None:
    def status() -> dict[str, Any]:
        told: dict[str, Any] = engine.http("GET", f"/plugins/{name}/json").json()
        return told

    with Registry(netns=engine.netns) as registry:
        name, volume, box = f"{registry.host}/me/{engine.name()}:1", engine.name("volume"), engine.name("box")
        engine.docker("plugin", "create", name, built)
        engine.docker("plugin", "push", name)
        engine.docker("plugin", "enable", name)
        engine.docker("volume", "create", "-d", name, volume)
        engine.docker(
            "run", "-d", "--name", box, "-v", f"{volume}:/v", engine.image, "sh", "-c", "echo kept > /v/f; sleep 600"
        )
        refused = engine.http("POST", f"/plugins/{name}/upgrade?remote={name}", b"[]")
        assert b"in use" in refused.body and box.encode() in refused.body, refused.body
        assert status()["Enabled"] is True
        assert engine.docker("exec", box, "cat", "/v/f").stdout == "kept\n"
        engine.docker("rm", "-f", box)
        upgraded = engine.http("POST", f"/plugins/{name}/upgrade?remote={name}", b"[]")
        assert b"Downloaded newer" in upgraded.body and b"error" not in upgraded.body, upgraded.body
        read = engine.docker("run", "--rm", "-v", f"{volume}:/v", engine.image, "cat", "/v/f")
        assert read.stdout == "kept\n"
        engine.docker("volume", "rm", volume)
        engine.docker("plugin", "rm", "-f", name)


def test_a_program_for_another_machine_is_refused_with_both_named(engine: Client, built: Path, tmp_path: Path) -> None:
    program = tmp_path / "rootfs/plugin"
    program.parent.mkdir()
    raw = bytearray((built / "rootfs/plugin").read_bytes())
    raw[18:20] = (22).to_bytes(2, "little")  # s390x
    program.write_bytes(raw)
    (tmp_path / "config.json").write_bytes((built / "config.json").read_bytes())
    name = engine.name()
    refused = engine.docker("plugin", "create", name, tmp_path, check=False)
    assert refused.returncode == 1
    assert "is for linux/s390x, and this machine is linux/" in refused.stderr
    assert name not in engine.docker("plugin", "ls").stdout

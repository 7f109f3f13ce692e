"""Managed plugins at work: the C example and some that misbehave, through the stock docker CLI."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Client, Engine, eventually

pytestmark = pytest.mark.real


@pytest.fixture
def plugin(engine: Client, built: Path) -> Iterator[str]:
    """The C example, created and enabled."""
    name = f"me/{engine.name()}:1.0"
    engine.docker("plugin", "create", name, built)
    engine.docker("plugin", "enable", name)
    yield name
    engine.docker("plugin", "rm", "-f", name, check=False)


def status(engine: Client, name: str) -> dict[str, Any]:
    told: dict[str, Any] = engine.http("GET", f"/plugins/{name}/json").json()["Status"]
    return told


def script(folder: Path, text: str, **config: Any) -> Path:
    """A plugin that is a shell script on busybox."""
    rootfs = folder / "rootfs"
    (rootfs / "bin").mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox
    shutil.copy(busybox, rootfs / "bin/busybox")
    (rootfs / "bin/sh").symlink_to("busybox")
    # A first process that handles no SIGTERM would have to be killed after ten seconds.
    (rootfs / "plugin").write_text("#!/bin/sh\ntrap 'exit 0' TERM\n" + text)
    (rootfs / "plugin").chmod(0o755)
    base = {"description": "script", "entrypoint": ["/plugin"], "interface": {"types": [], "socket": ""}}
    (folder / "config.json").write_text(json.dumps({**base, **config}))
    return folder


def test_the_walk_of_the_lifecycle(engine: Client, built: Path) -> None:
    name = f"me/{engine.name()}:1.0"
    engine.docker("plugin", "create", name, built)
    row = engine.docker("plugin", "ls", "--format", "{{.Name}} {{.Enabled}}").stdout
    assert f"{name} false" in row
    engine.docker("plugin", "set", name, "DEBUG=1")
    engine.docker("plugin", "enable", name)
    assert json.loads(engine.docker("plugin", "inspect", name).stdout)[0]["Settings"]["Env"] == ["DEBUG=1"]
    again = engine.docker("plugin", "enable", name, check=False)
    assert "already enabled" in again.stderr
    active = engine.docker("plugin", "set", name, "DEBUG=2", check=False)
    assert "cannot set on an active plugin" in active.stderr
    held = engine.docker("plugin", "rm", name, check=False)
    assert held.returncode == 1 and "is enabled" in held.stderr
    assert b"volumes are folders" in engine.http("GET", f"/engine/managed/{name}/logs").body
    assert engine.http("GET", f"/engine/managed/{name}/top").json()["Processes"][0][1] == "/plugin"
    engine.docker("plugin", "disable", name)
    off = engine.docker("plugin", "disable", name, check=False)
    assert "found but disabled" in off.stderr
    assert engine.docker("plugin", "rm", name).stdout.strip() == name
    assert engine.docker("plugin", "inspect", name, check=False).returncode == 1


def test_killed_it_is_started_again(engine: Client, plugin: str) -> None:
    before = status(engine, plugin)
    os.kill(before["Pid"], signal.SIGKILL)
    eventually(
        lambda: status(engine, plugin)["Restarts"] == 1 and status(engine, plugin)["State"] == "ready", timeout=10
    )
    assert status(engine, plugin)["Pid"] != before["Pid"]


def test_one_that_never_listens_says_why_and_leaves_nothing(engine: Client, tmp_path: Path) -> None:
    types = {"types": ["docker.volumedriver/1.0"], "socket": "p.sock"}
    name = engine.name()
    engine.docker(
        "plugin", "create", name, script(tmp_path, "echo waiting for a server; sleep 60 & wait", interface=types)
    )
    began = time.monotonic()
    refused = engine.docker("plugin", "enable", "--timeout", "1", name, check=False)
    assert time.monotonic() - began < 30
    assert "does not listen on its socket after 1 s" in refused.stderr
    assert "waiting for a server" in refused.stderr
    engine.docker("plugin", "rm", name)


def test_one_that_ends_tells_its_exit_code_and_last_output(engine: Client, tmp_path: Path) -> None:
    types = {"types": ["docker.volumedriver/1.0"], "socket": "p.sock"}
    name = engine.name()
    engine.docker("plugin", "create", name, script(tmp_path, "echo no such server >&2; exit 3", interface=types))
    refused = engine.docker("plugin", "enable", name, check=False)
    assert "exit code 3" in refused.stderr and "no such server" in refused.stderr
    engine.docker("plugin", "rm", name)


def test_secrets_are_files_and_never_shown(engine: Client, tmp_path: Path) -> None:
    text = 'echo "token $(busybox cat /run/secrets/token) key $KEY user $(busybox id -u)"; busybox sleep 1000 & wait'
    config = {
        "secrets": [{"name": "token"}],
        "env": [{"name": "KEY", "settable": ["value"], "secret": True}],
        "user": {"uid": 1234, "gid": 1234},
    }
    name = engine.name()
    engine.docker("plugin", "create", name, script(tmp_path, text, **config))
    engine.docker("plugin", "set", name, "token=t0psecret", "KEY=k3y")
    engine.docker("plugin", "enable", name)
    wanted = b"token t0psecret key k3y user 1234"
    eventually(lambda: wanted in engine.http("GET", f"/engine/managed/{name}/logs").body, timeout=5)
    shown = engine.docker("plugin", "inspect", name).stdout
    assert "t0psecret" not in shown and "k3y" not in shown and "KEY=********" in shown
    engine.docker("plugin", "rm", "-f", name)


def test_network_bridge_is_a_real_network(engine: Client, tmp_path: Path) -> None:
    text = "busybox ip -o -4 addr show eth0; busybox cat /etc/resolv.conf; busybox sleep 1000 & wait"
    name = engine.name()
    engine.docker("plugin", "create", name, script(tmp_path, text, network={"type": "bridge"}))
    engine.docker("plugin", "enable", name)
    subnet = json.loads(engine.docker("network", "inspect", "bridge").stdout)[0]["IPAM"]["Config"][0]["Subnet"]
    prefix = subnet.rpartition(".")[0].rpartition(".")[0].encode()
    eventually(lambda: b"inet " + prefix in engine.http("GET", f"/engine/managed/{name}/logs").body, timeout=5)
    engine.docker("plugin", "rm", "-f", name)


def test_saved_and_loaded_elsewhere(own_engine: Callable[..., Engine], engine: Client, plugin: str) -> None:
    saved = engine.http("GET", f"/engine/managed/{plugin}/save")
    other = own_engine(image=False)
    loaded = other.http("POST", "/engine/managed/load", saved.body, {"Content-Type": "application/x-tar"})
    assert loaded.json()["Name"] == plugin
    other.docker("plugin", "enable", plugin)
    other.docker("plugin", "rm", "-f", plugin)


def test_it_outlives_the_daemon_and_comes_back_after_a_kill(own_engine: Callable[..., Engine], built: Path) -> None:
    engine = own_engine(image=False)
    engine.docker("plugin", "create", "vol", built)
    engine.docker("plugin", "enable", "vol")
    pid = status(engine, "vol")["Pid"]
    engine.kill9()
    assert engine.start() < 5
    eventually(lambda: status(engine, "vol")["State"] == "ready", timeout=10)
    assert status(engine, "vol")["Pid"] == pid
    engine.stop()
    os.kill(pid, signal.SIGKILL)
    engine.start()
    eventually(lambda: status(engine, "vol")["State"] == "ready", timeout=10)
    assert status(engine, "vol")["Pid"] != pid
    engine.docker("plugin", "disable", "vol")
    engine.docker("plugin", "rm", "vol")


def test_hostile_archives_touch_nothing_outside(engine: Client, built: Path, tmp_path: Path) -> None:
    (tmp_path / "rootfs/mnt").mkdir(parents=True)
    shutil.copy(built / "rootfs/plugin", tmp_path / "rootfs/plugin")
    victim = tmp_path / "victim"
    victim.mkdir()
    (tmp_path / "rootfs/data").symlink_to(f"../../../../../..{victim}")
    shutil.copy(built / "config.json", tmp_path / "config.json")
    name = engine.name()
    engine.docker("plugin", "create", name, tmp_path)
    engine.docker("plugin", "enable", name, check=False)
    assert list(victim.iterdir()) == []
    engine.docker("plugin", "rm", "-f", name)
    config = json.loads((built / "config.json").read_text()) | {"propagatedMount": "/../../etc"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    refused = engine.docker("plugin", "create", engine.name(), tmp_path, check=False)
    assert refused.returncode == 1 and "PropagatedMount" in refused.stderr


def test_exec_in_a_plugin(engine: Client, tmp_path: Path) -> None:
    name = engine.name()
    engine.docker("plugin", "create", name, script(tmp_path, "busybox sleep 1000 & wait"))
    engine.docker("plugin", "enable", name)
    done = engine.engine(
        "plugin", "exec", "-e", "A=b", name, "sh", "-c", "echo out $A; echo err >&2; exit 7", check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, "out b\n", "err\n")
    fed = engine.engine("plugin", "exec", "-i", name, "busybox", "wc", "-c", input="x" * 100_000)
    assert fed.stdout.strip() == "100000"
    missing = engine.engine("plugin", "exec", name, "no-such-program", check=False)
    assert missing.returncode != 0 and "no-such-program" in missing.stderr
    engine.docker("plugin", "disable", name)
    off = engine.engine("plugin", "exec", name, "true", check=False)
    assert off.returncode == 1 and "not running" in off.stderr
    engine.docker("plugin", "rm", name)


def test_its_last_words_are_in_the_daemons_log(own_engine: Callable[..., Engine], tmp_path: Path) -> None:
    engine = own_engine(image=False)
    text = "trap 'echo level=warn msg=farewell; exit 0' TERM; echo hello; while :; do busybox sleep 0.1; done"
    engine.docker("plugin", "create", "talker", script(tmp_path, text))
    engine.docker("plugin", "enable", "talker")
    engine.docker("plugin", "disable", "talker")
    said = [line for line in engine.log().splitlines() if "logger=engine.plugin" in line]
    assert ["hello" in said[0], "farewell" in said[-1], "level=warning" in said[-1]] == [True] * 3, said


def test_every_field_of_the_config_has_its_effect(engine: Client, tmp_path: Path) -> None:
    host = tmp_path / "host"
    host.mkdir()
    (host / "note").write_text("from the host")
    text = (
        'echo "pwd $(busybox pwd) args $* env $A"; busybox grep CapEff /proc/self/status;'
        " busybox readlink /proc/self/ns/pid; busybox readlink /proc/self/ns/ipc; busybox readlink /proc/self/ns/net;"
        " busybox cat /host/note; busybox stat -c %F /dev/kmsg; busybox ls -d /state; busybox sleep 1000 & wait"
    )
    device = {"name": "kmsg", "path": "/dev/kmsg", "settable": ["path"]}
    config = {
        "workdir": "/bin",
        "args": {"name": "args", "settable": ["value"], "value": ["one"]},
        "env": [{"name": "A", "value": "b"}],
        "ipchost": True,
        "pidhost": True,
        "network": {"type": "host"},
        "propagatedMount": "/state",
        "mounts": [{"destination": "/host", "source": str(host), "type": "bind", "options": ["rbind", "ro"]}],
        "linux": {"capabilities": ["CAP_SYS_ADMIN"], "allowAllDevices": True, "devices": [device]},
    }
    name = engine.name()
    engine.docker("plugin", "create", name, script(tmp_path / "plugin", text, **config))
    engine.docker("plugin", "set", name, "args=two three")
    engine.docker("plugin", "enable", name)
    said = eventually(lambda: (lines := _logs(engine, name)) and "/state" in lines and lines)
    assert "pwd /bin args two three env b" in said
    effective = int(next(line for line in said.splitlines() if line.startswith("CapEff")).split()[1], 16)
    assert effective >> 21 & 1, "CAP_SYS_ADMIN"
    assert not effective >> 22 & 1, "nothing beyond what was asked for: CAP_SYS_BOOT"
    for kind in ("pid", "ipc"):
        assert os.readlink(f"/proc/self/ns/{kind}") in said
    assert engine.nsenter(["readlink", "/proc/self/ns/net"]).stdout.strip() in said
    assert "from the host" in said
    assert "character special file" in said
    engine.docker("plugin", "rm", "-f", name)


def _logs(engine: Client, name: str) -> str:
    return engine.http("GET", f"/engine/managed/{name}/logs").body.decode()

"""Managed plugins and networks: those that they are lent, and those that they serve."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from harness import Engine, eventually
from harness.answering import make_answering

from .conftest import entry, fails, network, sleeper

pytestmark = pytest.mark.real


def shell_plugin(folder: Path, text: str, config: Mapping[str, Any]) -> Path:
    """A folder for `docker plugin create`: a plugin that is a shell script."""
    busybox = shutil.which("busybox")
    assert busybox
    programs = folder / "rootfs/bin"
    programs.mkdir(parents=True)
    shutil.copy(busybox, programs / "busybox")
    for name in ("sh", "cat", "ip", "sleep", "ping"):
        (programs / name).symlink_to("busybox")
    (folder / "rootfs/plugin").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "rootfs/plugin").chmod(0o755)
    base = {"description": "for tests", "entrypoint": ["/plugin"], "interface": {"types": [], "socket": ""}}
    (folder / "config.json").write_text(json.dumps({**base, **config}))
    return folder


def test_a_lent_network_lasts_as_long_as_the_run(own_engine: Callable[..., Engine], tmp_path: Path) -> None:
    engine = own_engine()
    folder = shell_plugin(tmp_path, "exec sleep 1000", {"network": {"type": "bridge"}})
    engine.docker("plugin", "create", "lent", folder)
    engine.docker("plugin", "enable", "lent")

    def inside(*command: str) -> str:
        return engine.engine("plugin", "exec", "lent", *command).stdout

    def address() -> str:
        shown = json.loads(engine.docker("network", "inspect", "bridge").stdout)[0]["Containers"].values()
        found = [guest["IPv4Address"] for guest in shown if guest["Name"] == "lent:latest"]
        assert len(found) == 1, shown
        return str(found[0])

    had = address()
    assert had in inside("ip", "addr", "show", "eth0")
    assert had.partition("/")[0] in inside("cat", "/etc/hosts")
    for restart in (engine.stop, engine.kill9):
        restart()
        engine.start()
        assert address() == had
        assert had in inside("ip", "addr", "show", "eth0")
        name = sleeper(engine)
        neighbour = entry(engine, name, "bridge")["IPAddress"]
        assert neighbour != had.partition("/")[0]
        assert "1 packets received" in inside("ping", "-c1", "-W3", neighbour)
        engine.docker("rm", "-f", name)
    assert json.loads(engine.docker("network", "inspect", "bridge").stdout)[0]["Containers"] != {}
    engine.docker("plugin", "disable", "lent")
    assert json.loads(engine.docker("network", "inspect", "bridge").stdout)[0]["Containers"] == {}
    assert entry(engine, sleeper(engine), "bridge")["IPAddress"] == had.partition("/")[0], "its address is free"
    engine.docker("plugin", "rm", "lent")


def test_a_network_keeps_its_plugin(own_engine: Callable[..., Engine], tmp_path: Path) -> None:
    engine = own_engine()
    engine.docker("plugin", "create", "me/net", make_answering(tmp_path / "plugin", "docker.networkdriver/1.0"))
    engine.docker("plugin", "enable", "me/net")
    net = network(engine, "me/net")
    assert json.loads(engine.docker("network", "inspect", net).stdout)[0]["Driver"] == "me/net:latest"
    refused = fails(engine, "plugin", "disable", "me/net")
    assert "is in use" in refused
    assert f"network {net}" in refused
    engine.kill9()
    engine.start()
    assert f"network {net}" in fails(engine, "plugin", "disable", "me/net")
    engine.docker("plugin", "disable", "-f", "me/net")
    assert net in engine.docker("network", "ls").stdout
    assert "disabled" in fails(engine, "run", "--rm", "--network", net, engine.image, "true")
    engine.docker("plugin", "enable", "me/net")
    eventually(lambda: engine.docker("network", "rm", net, check=False).returncode == 0)
    engine.docker("plugin", "disable", "me/net")
    engine.docker("plugin", "rm", "me/net")

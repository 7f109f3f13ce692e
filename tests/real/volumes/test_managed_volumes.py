"""Volumes of a managed plugin, through the stock docker CLI: their driver's name, who needs the plugin, and what is left without it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Engine, eventually

pytestmark = pytest.mark.real


@pytest.fixture
def daemon(own_engine: Callable[..., Engine], built: Path) -> Engine:
    """An engine with the C example as me/vol:latest, enabled."""
    engine = own_engine()
    engine.docker("plugin", "create", "me/vol", built)
    engine.docker("plugin", "enable", "me/vol")
    return engine


def volume(engine: Engine, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(engine.docker("volume", "inspect", name).stdout)[0]
    return found


def clear(engine: Engine) -> None:
    if containers := engine.docker("ps", "-aq").stdout.split():
        engine.docker("rm", "-f", *containers)
    if volumes := engine.docker("volume", "ls", "-q").stdout.split():
        engine.docker("volume", "rm", "-f", *volumes)
    engine.docker("plugin", "rm", "-f", "me/vol")


def test_the_canonical_name_and_who_needs_the_plugin(daemon: Engine) -> None:
    daemon.docker("volume", "create", "-d", "me/vol", "data")
    assert volume(daemon, "data")["Driver"] == "me/vol:latest"
    for name in ("me/vol", "me/vol:latest"):
        assert daemon.docker("volume", "ls", "-q", "--filter", f"driver={name}").stdout == "data\n"
    run = ["run", "--network", "none", "-v", "data:/d"]
    daemon.docker(*run, "-d", "--name", "web", daemon.image, "sleep", "600")
    daemon.docker("exec", "web", "sh", "-c", "echo kept > /d/file")
    for command in (["disable"], ["rm"]):
        held = daemon.docker("plugin", *command, "me/vol", check=False)
        assert held.returncode == 1
    held = daemon.docker("plugin", "disable", "me/vol", check=False)
    assert "volume data (used by container web (running))" in held.stderr
    daemon.docker("rm", "-f", "web")
    daemon.restart()
    assert daemon.docker(*run, "--rm", daemon.image, "cat", "/d/file").stdout == "kept\n"
    clear(daemon)


def test_a_disabled_plugin(daemon: Engine) -> None:
    daemon.docker("volume", "create", "-d", "me/vol", "data")
    daemon.docker("volume", "create", "here")
    daemon.docker("plugin", "disable", "-f", "me/vol")
    assert daemon.docker("volume", "ls", "-q").stdout.split() == ["data", "here"]
    (warning,) = daemon.http("GET", "/volumes").json()["Warnings"]
    assert 'plugin "me/vol:latest" is disabled' in warning
    assert 'plugin "me/vol:latest" is disabled' in volume(daemon, "data")["Status"]["Error"]
    refused = daemon.docker("volume", "create", "-d", "me/vol", "more", check=False)
    assert 'plugin "me/vol:latest" is disabled' in refused.stderr
    still = daemon.docker("plugin", "rm", "me/vol", check=False)
    assert "volume data" in still.stderr, "its volume needs it also while its driver is not there"
    daemon.docker("plugin", "enable", "me/vol")
    assert "Error" not in volume(daemon, "data").get("Status", {})
    daemon.docker("volume", "rm", "data")
    daemon.docker("plugin", "disable", "me/vol")
    clear(daemon)


def test_a_container_goes_on_while_its_plugin_is_killed(daemon: Engine) -> None:
    daemon.docker("volume", "create", "-d", "me/vol", "data")
    run = ["run", "--network", "none", "-v", "data:/d"]
    daemon.docker(*run, "-d", "--name", "web", daemon.image, "sleep", "600")
    status = daemon.http("GET", "/plugins/me/vol/json").json()["Status"]
    os.kill(status["Pid"], signal.SIGKILL)
    daemon.docker("exec", "web", "sh", "-c", "echo kept > /d/file")
    # A start waits for the plugin to be back.
    assert daemon.docker(*run, "--rm", daemon.image, "cat", "/d/file").stdout == "kept\n"
    clear(daemon)


def test_a_restart_policy_and_a_daemon_that_starts_its_plugins(daemon: Engine) -> None:
    daemon.docker("volume", "create", "-d", "me/vol", "data")
    options = ["--network", "none", "-v", "data:/d", "--restart", "on-failure"]
    daemon.docker("run", "-d", "--name", "web", *options, daemon.image, "sleep", "600")
    plugin = daemon.http("GET", "/plugins/me/vol/json").json()["Status"]["Pid"]
    container = daemon.inspect("web")["State"]["Pid"]
    daemon.kill9()
    for pid in (plugin, container):
        os.kill(pid, signal.SIGKILL)
    daemon.start()
    assert eventually(lambda: daemon.inspect("web")["State"]["Running"], timeout=20)
    assert daemon.inspect("web")["State"]["Pid"] != container
    clear(daemon)

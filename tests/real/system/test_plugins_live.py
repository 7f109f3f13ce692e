"""Plugins over the API: managed ones by the docker CLI, in-process ones by our own command."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Client, Engine, eventually

pytestmark = pytest.mark.real


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A plugin's config.json and rootfs."""
    (tmp_path / "rootfs/bin").mkdir(parents=True)
    (tmp_path / "rootfs/bin/plugin").write_text("#!/bin/sh\n")
    config = {
        "description": "keeps volumes",
        "interface": {"types": ["docker.volumedriver/1.0"], "socket": "p.sock"},
        "entrypoint": ["/bin/plugin"],
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_a_managed_plugins_life(engine: Client, folder: Path) -> None:
    name = f"me/{engine.name()}:1.0"
    engine.docker("plugin", "create", name, folder)
    try:
        assert name in engine.docker("plugin", "ls", "--filter", "capability=volumedriver").stdout
        assert name not in engine.docker("plugin", "ls", "--filter", "capability=logdriver").stdout
        assert name not in engine.docker("plugin", "ls", "--filter", "enabled=true").stdout
        shown = json.loads(engine.docker("plugin", "inspect", name).stdout)[0]
        assert shown["Enabled"] is False
        assert shown["Config"]["Interface"]["Types"] == ["docker.volumedriver/1.0"]
        again = engine.docker("plugin", "create", name, folder, check=False)
        assert "already exists" in again.stderr
    finally:
        engine.docker("plugin", "rm", "-f", name, check=False)
    said = engine.docker("plugin", "inspect", name, check=False).stderr.lower()
    assert "not found" in said or "no such plugin" in said
    until = str(int(time.time()) + 1)
    seen = engine.docker(
        "events", "--since", "1m", "--until", until, "--filter", "type=plugin", "--format", "{{json .}}"
    )
    mine = [
        event for event in map(json.loads, seen.stdout.splitlines()) if event["Actor"]["Attributes"]["name"] == name
    ]
    assert [event["Action"] for event in mine] == ["create", "remove"]


def test_our_own_command(engine: Client, folder: Path) -> None:
    name = engine.name()
    engine.engine("plugin", "create", name, folder)
    try:
        assert "managed" in engine.engine("plugin", "ls").stdout
        rows = engine.engine("plugin", "ls", "--all").stdout
        assert "in-process" in rows
        assert "api_server" in rows
        assert json.loads(engine.engine("plugin", "inspect", name).stdout)[0]["Name"] == f"{name}:latest"
        assert json.loads(engine.engine("plugin", "inspect", "system").stdout)[0]["State"] == "enabled"
    finally:
        engine.engine("plugin", "rm", name)
    refused = engine.engine("plugin", "rm", name, check=False)
    assert refused.returncode == 1
    assert "not found" in refused.stderr


@pytest.mark.parametrize(
    ("config", "words"),
    [(None, "config.json"), ("{", "unexpected eof"), ('{"interface": {"types": "x"}}', "interface")],
)
def test_bad_plugins_leave_nothing(engine: Client, folder: Path, config: str | None, words: str) -> None:
    if config is None:
        (folder / "config.json").unlink()
    else:
        (folder / "config.json").write_text(config)
    before = engine.docker("plugin", "ls", "-q").stdout
    refused = engine.docker("plugin", "create", engine.name(), folder, check=False)
    assert refused.returncode != 0
    assert words in refused.stderr.lower()
    assert engine.docker("plugin", "ls", "-q").stdout == before


def test_a_plugin_that_does_not_start_says_why(engine: Client, folder: Path) -> None:
    name = engine.name()
    engine.docker("plugin", "create", name, folder)
    try:
        refused = engine.docker("plugin", "enable", name, check=False)
        assert refused.returncode == 1
        assert "/bin/plugin" in refused.stderr  # its interpreter is missing
        assert name not in engine.docker("plugin", "ls", "--filter", "enabled=true").stdout
    finally:
        engine.docker("plugin", "rm", name)


def test_disabled_plugins_take_their_routes_along(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine(image=False)
    assert engine.http("GET", "/version").status == 200
    engine.engine("plugin", "disable", "system")
    eventually(lambda: engine.http("GET", "/version").status == 404, timeout=5)
    engine.restart()
    rows = engine.engine("plugin", "ls", "--all").stdout.splitlines()
    assert "disabled by the operator" in next(row for row in rows if row.startswith("system "))
    engine.engine("plugin", "enable", "system")
    assert engine.http("GET", "/version").status == 200
    refused = engine.engine("plugin", "disable", "api_server", check=False)
    assert "is essential" in refused.stderr


def test_info_names_a_failed_plugin_and_why(own_engine: Callable[..., Engine], tmp_path: Path) -> None:
    installed = tmp_path / "broken-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[engine.plugins]\nbroken = no_such_module:Plugin\n")
    engine = own_engine(image=False, environment={"PYTHONPATH": str(tmp_path)})
    plugins = {plugin["Name"]: plugin for plugin in engine.http("GET", "/info").json()["EnginePlugins"]}
    assert plugins["broken"]["State"] == "failed"
    assert "no_such_module" in plugins["broken"]["Reason"]
    shown = engine.docker("info")
    assert "WARNING: plugin broken failed" in shown.stdout + shown.stderr
    assert "failed" in engine.engine("plugin", "ls", "--all").stdout

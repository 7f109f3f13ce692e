"""`engine plugin` on managed plugins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Client, Engine, OldStylePlugin, Registry

pytestmark = pytest.mark.real


def test_our_own_commands_from_create_to_load(engine: Client, built: Path, tmp_path: Path) -> None:
    with Registry(netns=engine.netns) as registry:
        name = f"{registry.host}/me/{engine.name()}:1.0"
        engine.engine("plugin", "create", name, built)
        assert "digest: sha256:" in engine.engine("plugin", "push", name).stdout
        engine.engine("plugin", "rm", name)
        installed = engine.engine("plugin", "install", "--grant-all-permissions", name, "DEBUG=1").stdout
        assert f"Installed plugin {name}" in installed
        assert "volumes are folders" in engine.engine("plugin", "logs", name).stdout
        assert "/plugin" in engine.engine("plugin", "top", name).stdout
        assert "Upgraded" in engine.engine("plugin", "upgrade", "--grant-all-permissions", name).stdout
        engine.engine("plugin", "save", name, "-o", tmp_path / "saved.tar")
        engine.engine("plugin", "disable", name)
        engine.engine("plugin", "set", name, "DEBUG=2")
        engine.engine("plugin", "rm", name)
        assert engine.engine("plugin", "load", "-i", tmp_path / "saved.tar").stdout.strip() == name
        engine.engine("plugin", "rm", name)


def test_old_style_plugins_are_listed(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine(image=False)
    answers = {"VolumeDriver.Get": lambda _: {"Err": "no such volume"}, "VolumeDriver.Create": lambda _: {}}
    with OldStylePlugin(engine.plugin_dir, "flocker", ["VolumeDriver"], answers):
        assert "unused" in _row(engine, "flocker")
        engine.docker("volume", "create", "-d", "flocker", "v")
        row = _row(engine, "flocker")
        assert "old-style" in row and "flocker.sock" in row
    engine.docker("volume", "rm", "-f", "v")


def _row(engine: Engine, name: str) -> str:
    rows = engine.engine("plugin", "ls", "--all").stdout.splitlines()
    return next(row for row in rows if row.startswith(name))

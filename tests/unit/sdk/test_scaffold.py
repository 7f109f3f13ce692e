"""Each kind in both forms: it is written, imports, is well-formed, and its own tests pass."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from plugin_sdk import Conflict, InvalidParameter
from plugin_sdk.authoring.scaffold import KINDS, create

ROOT = Path(__file__).resolve().parents[3]
BOTH = [(kind, managed) for kind in KINDS for managed in (False, True)]
IDS = [f"{kind}-{'managed' if managed else 'inprocess'}" for kind, managed in BOTH]


@pytest.mark.parametrize(("kind", "managed"), BOTH, ids=IDS)
def test_project(tmp_path: Path, kind: str, managed: bool) -> None:
    folder = tmp_path / "project"
    create(f"acme-{kind}", kind, folder, managed=managed)
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    package = f"acme_{kind}"
    if managed:
        config = json.loads((folder / "config.json").read_text())
        assert config["interface"]["socket"] == "plugin.sock"
        start = project["tool"]["engine"]["plugin"]["main"]
    else:
        start = project["project"]["entry-points"]["engine.plugins"][package]
    module, _, name = start.partition(":")
    code = f"import sys; sys.path.insert(0, '.'); import {module}; assert callable({module}.{name})"
    _run(folder, sys.executable, "-c", code)
    _run(folder, sys.executable, "-m", "ruff", "check", "--config", ROOT / "pyproject.toml", ".")
    _run(folder, sys.executable, "-m", "ruff", "format", "--check", "--config", ROOT / "pyproject.toml", ".")
    _run(folder, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", ".")


def _run(folder: Path, *command: str | Path) -> None:
    # Of pytest's own settings nothing may reach the project's run.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["Acme", "1st", "a b", "", "../x", "kernel", "class", "acme-"])
def test_names_that_cannot_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidParameter):
        create(name, "volume", tmp_path / "x", managed=False)
    assert not (tmp_path / "x").exists()


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="unknown kind 'disk'"):
        create("acme", "disk", tmp_path, managed=False)
    (tmp_path / "there").touch()
    with pytest.raises(Conflict, match="not empty"):
        create("acme", "volume", tmp_path, managed=False)

"""The house rules that a machine can check: who imports whom, and how big a module may be."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
SOURCES = [path for folder in ("kernel", "plugin_sdk", "plugins") for path in sorted((PROJECT / folder).rglob("*.py"))]

WARN_LINES = 400
MOST_LINES = 450


def _name(path: Path) -> str:
    return str(path.relative_to(PROJECT))


def test_import_rules() -> None:
    """The contracts in pyproject.toml, as `lint-imports` sees them."""
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=PROJECT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_module_size(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= MOST_LINES, f"{_name(path)} has {lines} lines: split it"
    if lines > WARN_LINES:
        warnings.warn(f"{_name(path)} has {lines} lines", UserWarning, stacklevel=1)


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_module_says_what_it_is(path: Path) -> None:
    text = path.read_text()
    assert not text.strip() or re.match(r"(#!.*\n)?[rR]?\"\"\"\S", text), f"{_name(path)} has no docstring"


@pytest.mark.parametrize(
    "folder", sorted(p for p in (PROJECT / "plugins").iterdir() if (p / "plugin.py").exists()), ids=_name
)
def test_work_knows_nothing_of_its_wiring(folder: Path) -> None:
    """`plugin.py` imports its siblings, never the other way round."""
    wiring = re.compile(
        rf"^\s*(from plugins\.{folder.name}\.plugin import|import plugins\.{folder.name}\.plugin\b)", re.M
    )
    offenders = [
        _name(path) for path in folder.rglob("*.py") if path.name != "plugin.py" and wiring.search(path.read_text())
    ]
    assert not offenders


def test_every_entry_point_exists() -> None:
    """What pyproject.toml lists can be found in the tree."""
    import tomllib

    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    for group in ("engine.plugins", "engine.commands"):
        for name, target in project["entry-points"][group].items():
            module = target.partition(":")[0].replace(".", "/")
            assert (PROJECT / f"{module}.py").exists() or (PROJECT / module).is_dir(), f"{group}: {name} = {target}"


def test_work_leaves_no_marks_of_itself() -> None:
    """No unfinished business in the sources."""
    marks = re.compile(r"\b(TODO|FIXME|XXX)\b")
    assert not [_name(path) for path in SOURCES if marks.search(path.read_text())]

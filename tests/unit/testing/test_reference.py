"""The pages for authors are up to date with the code."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[3]
PAGES = PROJECT / "docs/plugins"


def test_the_reference_is_what_the_code_says() -> None:
    command = [sys.executable, str(PROJECT / "scripts/plugin-reference"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_every_hook_and_contract_is_in_it() -> None:
    from kernel.hookspecs import MODULES
    from plugin_sdk.testing.kits import KITS

    page = (PAGES / "reference.md").read_text()
    hooks = [name for module in MODULES for name in vars(module) if name.startswith("engine_")]
    for heading in [*hooks, *(f"{contract.__name__} (driver contract)" for contract in KITS)]:
        assert f"\n#### {heading}\n" in page


def test_every_built_in_plugin_says_how_it_is_replaced() -> None:
    page = (PAGES / "replacing.md").read_text()
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    named = set(re.findall(r"^### (\w+)$", page, re.MULTILINE))
    assert named == set(project["entry-points"]["engine.plugins"]), (
        "docs/plugins/replacing.md: a heading for each plugin"
    )


def test_links_between_the_pages_lead_somewhere() -> None:
    for path in PAGES.glob("*.md"):
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
            assert (path.parent / link).exists(), f"{path.name}: {link}"

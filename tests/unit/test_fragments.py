"""Fragments of the changelog are named as changes/README.md says."""

from __future__ import annotations

import re
from pathlib import Path

CHANGES = Path(__file__).resolve().parents[2] / "changes"
NAME = re.compile(r"[a-z0-9][a-z0-9-]*\.(added|changed|fixed|removed|security)\.md")


def test_names_and_content() -> None:
    for path in CHANGES.iterdir():
        if path.name != "README.md":
            assert NAME.fullmatch(path.name), f"changes/{path.name}: want NAME.KIND.md"
            assert path.read_text().strip(), f"changes/{path.name} is empty"

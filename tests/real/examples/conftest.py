"""The in-process examples, installed as the distributions that they are."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Engine

EXAMPLES = Path(__file__).parents[3] / "examples"
NAMES = ("log_jsonl", "storage_vfs")


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both installed, for a daemon's PYTHONPATH."""
    folder = tmp_path_factory.mktemp("examples")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    for name in NAMES:
        # A copy: building leaves files beside the source.
        shutil.copytree(EXAMPLES / name, folder / name)
        install = [sys.executable, "-m", "pip", "install", *options, "--target", folder / "site", folder / name]
        subprocess.run(install, check=True, timeout=120)
    return folder / "site"


@pytest.fixture
def with_examples(own_engine: Callable[..., Engine], examples: Path) -> Callable[..., Engine]:
    """`own_engine` with the examples installed."""

    def make(*flags: str, **options: bool) -> Engine:
        return own_engine(*flags, environment={"PYTHONPATH": str(examples)}, **options)

    return make

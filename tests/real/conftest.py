"""The C example, built once for the session."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="session")
def built(real_host: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C example with its root file system."""
    if not shutil.which("gcc"):
        pytest.fail("missing Debian packages (make setup installs them): gcc libc6-dev")
    folder = tmp_path_factory.mktemp("volume-c") / "plugin"
    shutil.copytree(EXAMPLES / "volume_c", folder)
    subprocess.run(["make", "-s", "-C", folder, "CC=gcc"], check=True, timeout=60)
    return folder

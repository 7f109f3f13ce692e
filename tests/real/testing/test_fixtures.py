"""The fixture `throwaway_engine`, in a project of somebody else's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.real

PROJECT = '''
"""Tests of a stranger's."""
import pytest

def test_it(throwaway_engine):
    engine = throwaway_engine("--icc=false")
    assert engine.docker("run", "--rm", engine.image, "echo", "hi").stdout == "hi\\n"
    assert engine.docker("info", "--format", "{{.Driver}}").stdout == "overlay2\\n"
    engine.restart()
    engine.docker("run", "-d", "--name", "left", engine.image, "sleep", "600")

def test_two(throwaway_engine):
    one, two = throwaway_engine(image=False), throwaway_engine(start=False)
    assert one.running and not two.running
    assert one.netns != two.netns
'''


def test_throwaway_engine(real_host: None, tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(PROJECT)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout

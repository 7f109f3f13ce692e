"""One engine for one data root and one PID file."""

import os
import subprocess
from pathlib import Path

import pytest

from kernel.boot import alone
from plugin_sdk import EngineError


def test_a_data_root_belongs_to_one_engine(tmp_path: Path) -> None:
    with alone(tmp_path / "data", tmp_path / "pid"):
        assert (tmp_path / "pid").read_text() == f"{os.getpid()}\n"
        with (
            pytest.raises(EngineError, match="another engine uses the data root"),
            alone(tmp_path / "data", tmp_path / "p2"),
        ):
            pass
    assert not (tmp_path / "pid").exists()


def test_a_live_process_in_the_pid_file_is_named_and_a_dead_one_is_not_minded(tmp_path: Path) -> None:
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        (tmp_path / "pid").write_text(f"{sleeper.pid}\n")
        refused = pytest.raises(EngineError, match=f"process with PID {sleeper.pid} is still running")
        with refused, alone(tmp_path / "data", tmp_path / "pid"):
            pass
        sleeper.kill()
        os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
        with alone(tmp_path / "data", tmp_path / "pid"):
            pass
    finally:
        sleeper.kill()
        sleeper.wait()
    for rubbish in ("", "x", "999999999"):
        (tmp_path / "pid").write_text(rubbish)
        with alone(tmp_path / "data", tmp_path / "pid"):
            pass

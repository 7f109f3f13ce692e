"""The kits through a socket: each kind of plugin in a process of its own, by `plugin_sdk.serve`, verified by a live engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import Engine, eventually
from harness.engine import PROGRAM as PROGRAM_PATH

pytestmark = pytest.mark.real

SOUND = Path(__file__).parents[2] / "unit/testing"

PROGRAM = """
import sys
from pathlib import Path
import sound
from plugin_sdk import serve
from plugin_sdk.serving import AuthorizationPlugin, MetricsCollector

folder = Path(sys.argv[2])

class Allows(AuthorizationPlugin):
    pass

class Collects(MetricsCollector):
    async def start(self, source): pass
    async def stop(self): pass

class Loses(sound.Logs):
    def entries(self, info):
        return super().entries(info)[1:]

made = {
    "volumes": lambda: sound.Volumes(folder),
    "logs": lambda: sound.Logs(folder),
    "loses": lambda: Loses(folder),
    "ipam": sound.Ipam,
    "authz": Allows,
    "metrics": Collects,
    "network": lambda: __import__("begun.driver").driver.Begun(),
}
serve(made[sys.argv[1]](), socket=sys.argv[3], folder=str(folder / "own"))
"""


@contextmanager
def served(engine: Engine, kind: str, folder: Path) -> Iterator[None]:
    engine.plugin_dir.mkdir(exist_ok=True)
    folder.mkdir()
    (folder / "own").mkdir()
    socket = engine.plugin_dir / f"my-{kind}.sock"
    # A network plugin works in the engine's namespace; the others do not mind.
    enter = ["nsenter", f"--net={engine.netns}"]
    command = [*enter, sys.executable, "-c", PROGRAM, kind, str(folder), str(socket)]
    where = os.environ | {"PYTHONPATH": f"{SOUND}{os.pathsep}{folder.parent / 'begun'}"}
    process = subprocess.Popen(command, env=where, stderr=subprocess.PIPE, text=True)
    try:
        eventually(lambda: socket.exists() or process.poll() is not None)
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        yield
    finally:
        process.terminate()
        process.wait(20)


def verified(engine: Engine, name: str, code: int = 0) -> dict[str, dict[str, Any]]:
    done = engine.engine("plugin", "verify", "--json", name, check=False, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line["Check"]: line for line in lines}


def not_applying(found: dict[str, dict[str, Any]]) -> set[str]:
    return {name for name, line in found.items() if line["Outcome"] == "does not apply"}


@pytest.fixture
def engine(own_engine: Callable[..., Engine]) -> Engine:
    return own_engine(image=False)


@pytest.mark.parametrize(
    ("kind", "kit", "without"),
    [
        ("volumes", "VolumeDriver", {"restart"}),
        ("logs", "LogDriver", {"unknown-option", "written-is-kept", "streams"}),
        ("ipam", "IpamDriver", {"restore"}),
        ("authz", "authz", set()),
        ("metrics", "metricscollector", set()),
    ],
)
def test_sound_plugins(engine: Engine, tmp_path: Path, kind: str, kit: str, without: set[str]) -> None:
    with served(engine, kind, tmp_path / kind):
        found = verified(engine, f"my-{kind}")
    assert {line["Kit"] for line in found.values()} == {kit}
    assert not_applying(found) == without


def test_a_network_plugin(engine: Engine, tmp_path: Path) -> None:
    """What `engine plugin init --kind network` begins with."""
    done = subprocess.run([PROGRAM_PATH, "plugin", "init", "begun", "--kind", "network"], cwd=tmp_path, check=False)
    assert done.returncode == 0
    with served(engine, "network", tmp_path / "network"):
        found = verified(engine, "my-network")
    assert not_applying(found) == {"leave", "published-ports", "restore", "impossible-network"}


def test_a_broken_one(engine: Engine, tmp_path: Path) -> None:
    with served(engine, "loses", tmp_path / "loses"):
        found = verified(engine, "my-loses", code=1)
    assert found["read-back"]["Outcome"] == "broken"
    assert "expected the entries of all to be" in found["read-back"]["Detail"]
    assert found["write"]["Outcome"] == "holds"

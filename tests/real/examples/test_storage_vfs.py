"""The example that replaces the storage driver: an engine runs containers on it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Engine, eventually

pytestmark = pytest.mark.real


def test_it_holds_the_kit(examples: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--engine-driver=storage_vfs.driver:Vfs"]
    where = os.environ | {"PYTHONPATH": str(examples)}
    done = subprocess.run(command, env=where, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout
    assert re.search(r"\b(3\d|[4-9]\d) passed", done.stdout) and "failed" not in done.stdout
    assert "skipped" not in done.stdout


@pytest.fixture(params=[(), ("--block-plugin", "storage_overlay2")], ids=["beside overlay2", "without overlay2"])
def engine(request: pytest.FixtureRequest, with_examples: Callable[..., Engine]) -> Engine:
    return with_examples("--storage-driver", "vfs", *request.param)


def test_containers_live_on_it(engine: Engine, tmp_path: Path) -> None:
    assert engine.docker("info", "--format", "{{.Driver}}").stdout == "vfs\n"
    script = "echo kept > /file; rm /bin/true; chmod 700 /home; echo hello"
    assert engine.docker("run", "--name", "one", engine.image, "sh", "-c", script).stdout == "hello\n"
    shown = set(engine.docker("diff", "one").stdout.splitlines())
    assert {"A /file", "D /bin/true", "C /home"} <= shown
    assert not any(line.endswith(("/proc", "/sys", "/etc/hosts")) for line in shown)
    engine.docker("commit", "one", "changed:1")
    again = ["run", "--rm", "changed:1", "sh", "-c", "cat /file; [ -e /bin/true ] || echo gone; stat -c %a /home"]
    assert engine.docker(*again).stdout == "kept\ngone\n700\n"
    assert (
        engine.docker("run", "--rm", engine.image, "sh", "-c", "[ -e /file ] || echo untouched").stdout == "untouched\n"
    )
    assert engine.inspect("one")["GraphDriver"]["Name"] == "vfs"
    assert Path(engine.inspect("one")["GraphDriver"]["Data"]["Dir"], "file").read_text() == "kept\n"
    engine.docker("save", "-o", tmp_path / "saved.tar", "changed:1")
    engine.docker("rmi", "changed:1")
    engine.docker("load", "-i", tmp_path / "saved.tar")
    assert engine.docker(*again).stdout == "kept\ngone\n700\n"
    engine.docker("cp", "one:/file", tmp_path / "copied")
    assert (tmp_path / "copied").read_text() == "kept\n"


def test_it_survives_a_kill_and_leaves_nothing(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "lasting", engine.image, "sh", "-c", "echo x > /written; sleep 600")
    eventually(lambda: engine.docker("exec", "lasting", "cat", "/written", check=False).stdout == "x\n")
    half = engine.root / "data/storage_vfs/tmp/half"
    engine.kill9()
    half.mkdir()
    engine.start()
    eventually(lambda: not half.exists())
    assert engine.docker("exec", "lasting", "cat", "/written").stdout == "x\n"
    engine.docker("rm", "-f", "lasting")
    engine.docker("rmi", engine.image)
    for kind in ("writable", "layers", "tmp"):
        eventually(lambda kind=kind: not os.listdir(engine.root / "data/storage_vfs" / kind))  # type: ignore[misc]


def test_verify_in_the_engine(engine: Engine) -> None:
    done = engine.engine("plugin", "verify", "storage_vfs", timeout=200)
    assert ", 0 broken, 1 do not apply" in done.stdout, done.stdout

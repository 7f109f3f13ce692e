"""The example that replaces logging's driver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Engine, eventually

pytestmark = pytest.mark.real


def rows(engine: Engine, container: str) -> list[dict[str, Any]]:
    path = Path(engine.inspect(container)["LogPath"])
    assert path.name == "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_it_holds_the_kit(examples: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--engine-driver=log_jsonl.driver:JsonLines"]
    where = os.environ | {"PYTHONPATH": str(examples)}
    done = subprocess.run(command, env=where, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
    assert "14 passed" in done.stdout
    assert "skipped" not in done.stdout


def test_containers_log_through_it(with_examples: Callable[..., Engine]) -> None:
    engine = with_examples()
    script = r"echo out; echo err >&2; sleep 0.2; printf '\377\n'; printf unfinished"
    engine.docker("run", "--name", "one", "--log-driver", "jsonl", engine.image, "sh", "-c", script)
    told = eventually(lambda: rows(engine, "one") if len(rows(engine, "one")) >= 4 else [])
    assert {(row["fd"], row.get("text")) for row in told} == {(1, "out"), (2, "err"), (1, None), (1, "unfinished")}
    assert [row["base64"] for row in told if "base64" in row] == ["/w=="]
    shown = engine.docker("logs", "one")
    assert shown.stdout.startswith("out\n")
    assert shown.stderr == "err\n"
    assert engine.docker("logs", "-n", "1", "one").stdout.strip() == "unfinished"
    engine.engine("plugin", "verify", "log_jsonl", timeout=120)
    bad = ["--log-opt", "colour=red"]
    refused = engine.docker("create", "--log-driver", "jsonl", *bad, engine.image, check=False)
    assert "unknown log opt 'colour' for jsonl log driver" in refused.stderr


def test_it_can_be_everybodys_driver_and_loses_nothing_to_a_kill(with_examples: Callable[..., Engine]) -> None:
    engine = with_examples("--log-driver", "jsonl", "--log-opt", "max-size=1m")
    script = "i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo $i; sleep 0.05; done; sleep 600"
    engine.docker("run", "-d", "--name", "counter", engine.image, "sh", "-c", script)
    assert engine.inspect("counter")["HostConfig"]["LogConfig"] == {"Type": "jsonl", "Config": {"max-size": "1m"}}
    eventually(lambda: len(rows(engine, "counter")) > 5)
    engine.kill9()
    with Path(engine.root, "data/logging").glob("*/log.jsonl").__next__().open("a") as file:
        file.write('{"ns": 1, "fd": 1, "te')  # what a crash in the middle of a write leaves
    engine.start()

    def numbers() -> list[int]:
        return [int(line) for line in engine.docker("logs", "counter").stdout.split()]

    eventually(lambda: len(numbers()) == 60, timeout=20)
    assert numbers() == list(range(1, 61))
    eventually(lambda: [int(row["text"]) for row in rows(engine, "counter")] == list(range(1, 61)))

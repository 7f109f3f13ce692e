"""Devices that a vendor describes in a file: `--device vendor.com/class=name`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Engine

pytestmark = pytest.mark.real


def test_a_described_device(own_engine: Callable[..., Engine], tmp_path: Path) -> None:
    (tmp_path / "given").write_text("given")
    described = {
        "cdiVersion": "0.7.0",
        "kind": "example.org/thing",
        "containerEdits": {"env": ["ALL=yes"], "additionalGids": [4321]},
        "devices": [
            {
                "name": "zero",
                "containerEdits": {
                    "env": ["ONE=zero"],
                    "deviceNodes": [{"path": "/dev/thing", "hostPath": "/dev/loop0", "permissions": "rw"}],
                    "mounts": [
                        {"hostPath": str(tmp_path / "given"), "containerPath": "/given", "options": ["ro", "rbind"]}
                    ],
                },
            }
        ],
    }
    (tmp_path / "thing.json").write_text(json.dumps(described))
    (tmp_path / "other.yaml").write_text("kind: example.org/other")
    engine = own_engine("--cdi-spec-dir", str(tmp_path))
    assert engine.http("GET", "/v1.51/info").json()["CDISpecDirs"][-1] == str(tmp_path)
    told = engine.docker(
        "run", "--rm", "--device", "example.org/thing=zero", "busybox", "sh", "-c",
        "echo $ALL $ONE; cat /given; echo; id -G; ls -l /dev/thing; echo x > /given",
        check=False,
    )  # fmt: skip
    assert told.stdout.split("\n")[:3] == ["yes zero", "given", "0 4321"]
    assert told.stdout.splitlines()[3].startswith("b") and "Read-only" in told.stderr
    refused = engine.docker("create", "--device", "example.org/thing=none", "busybox", check=False)
    assert "CDI device injection failed: unresolvable CDI devices example.org/thing=none" in refused.stderr
    assert "other.yaml is not JSON" in refused.stderr

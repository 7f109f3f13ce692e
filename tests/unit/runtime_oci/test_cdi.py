"""Descriptions of devices by vendors, read and applied to a spec."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from plugin_sdk import InvalidParameter
from plugins.runtime_oci.cdi import apply, find, wanted


def _describe(folder: Path, kind: str, devices: dict[str, Any], **common: Any) -> Path:
    folder.mkdir(exist_ok=True)
    listed = [{"name": name, "containerEdits": edits} for name, edits in devices.items()]
    document = {"cdiVersion": "0.6.0", "kind": kind, "devices": listed, "containerEdits": common}
    (folder / f"{kind.replace('/', '-')}.json").write_text(json.dumps(document))
    return folder


def test_names_of_requests() -> None:
    assert wanted([{"Driver": "cdi", "DeviceIDs": ["a.org/b=c"]}, {"Driver": "cdi", "DeviceIDs": ["a.org/b=d"]}]) == [
        "a.org/b=c",
        "a.org/b=d",
    ]
    for request in ({"Driver": "nvidia", "Capabilities": [["gpu", "x"], ["y"]]}, {"Driver": "cdi"}):
        with pytest.raises(InvalidParameter, match="could not select device driver"):
            wanted([request])


def test_a_later_folder_wins_and_common_edits_come_once_and_first(tmp_path: Path) -> None:
    _describe(tmp_path / "1", "a.org/b", {"x": {"env": ["OLD=1"]}, "y": {"env": ["Y=1"]}}, env=["COMMON=1"])
    _describe(tmp_path / "2", "a.org/b", {"x": {"env": ["NEW=1"]}})
    folders = [str(tmp_path / name) for name in ("1", "2", "missing")]
    assert [edit.env for edit in find(["a.org/b=x", "a.org/b=y"], folders)] == [[], ["COMMON=1"], ["NEW=1"], ["Y=1"]]


@pytest.mark.parametrize("name", ["a.org/b=z", "a.org/b", "x", "a.org/b=../x", "/dev/null"])
def test_devices_that_nobody_describes(tmp_path: Path, name: str) -> None:
    _describe(tmp_path, "a.org/b", {"x": {}})
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(InvalidParameter, match=r"unresolvable CDI devices .*broken\.json"):
        find([name], [str(tmp_path)])


def test_edits_of_a_spec(tmp_path: Path) -> None:
    edits = {
        "env": ["A=2", "B=1"],
        "deviceNodes": [{"path": "/dev/thing", "hostPath": "/dev/null", "permissions": "r"}],
        "mounts": [{"hostPath": "/usr", "containerPath": "/there"}],
        "hooks": [{"hookName": "createContainer", "path": "/bin/hook", "args": ["hook", "x"]}],
        "additionalGids": [5],
    }
    folder = _describe(tmp_path, "a.org/b", {"x": edits})
    spec: dict[str, Any] = {
        "process": {"env": ["A=1", "Z=1"], "user": {"additionalGids": [0]}},
        "linux": {"resources": {"devices": []}},
        "mounts": [],
    }
    apply(spec, find(["a.org/b=x"], [str(folder)]))
    assert spec["process"] == {"env": ["Z=1", "A=2", "B=1"], "user": {"additionalGids": [0, 5]}}
    (node,) = spec["linux"]["devices"]
    assert (node["path"], node["major"], node["minor"]) == ("/dev/thing", 1, 3)
    assert spec["linux"]["resources"]["devices"][0]["access"] == "r"
    assert (spec["mounts"][0]["destination"], spec["mounts"][0]["options"][0]) == ("/there", "rbind")
    assert spec["hooks"] == {"createContainer": [{"path": "/bin/hook", "args": ["hook", "x"], "env": []}]}

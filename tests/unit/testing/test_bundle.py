"""A managed plugin's folder is looked at before any engine sees it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from plugin_sdk.testing import bundle
from plugin_sdk.testing.kit import Outcome, Result

CONFIG: dict[str, Any] = {
    "description": "x",
    "entrypoint": ["/bin/plugin"],
    "interface": {"types": ["docker.volumedriver/1.0"], "socket": "x.sock"},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound one, with a static program."""
    (tmp_path / "rootfs/bin").mkdir(parents=True)
    program = shutil.which("busybox")
    assert program, "busybox-static is needed"
    shutil.copy(program, tmp_path / "rootfs/bin/plugin")
    write(tmp_path)
    return tmp_path


def write(folder: Path, **changed: Any) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG | changed))


def last(folder: Path) -> Result:
    return list(bundle.check(folder))[-1]


def test_a_sound_folder(folder: Path) -> None:
    results = list(bundle.check(folder))
    assert [each.check for each in results] == ["config", "rootfs", "entrypoint", "interfaces"]
    assert {each.outcome for each in results} == {Outcome.HOLDS}


def test_a_program_is_looked_for_in_the_path_and_in_the_working_directory(folder: Path) -> None:
    write(folder, entrypoint=["plugin"])
    assert last(folder).check == "interfaces"
    write(folder, entrypoint=["./plugin"], workdir="/bin")
    assert last(folder).check == "interfaces"
    write(folder, entrypoint=["plugin"], env=[{"name": "PATH", "value": "/opt"}])
    assert "the program 'plugin' in rootfs; got no such file" in last(folder).detail


def test_the_first_fault_is_named_and_ends_it(folder: Path) -> None:
    write(folder, mounts=[{"destination": "../etc", "type": "bind", "source": "/x"}])
    result = last(folder)
    assert (result.check, result.outcome) == ("config", Outcome.BROKEN)
    assert "Mounts.0.Destination" in result.detail
    (folder / "config.json").unlink()
    assert "No such file" in last(folder).detail


def test_a_root_file_system_is_needed(folder: Path) -> None:
    shutil.rmtree(folder / "rootfs")
    assert last(folder).check == "rootfs"
    (folder / "rootfs").mkdir()
    assert "an empty folder" in last(folder).detail


def test_what_would_fail_with_no_such_file_or_directory(folder: Path) -> None:
    plugin = folder / "rootfs/bin/plugin"
    plugin.write_text("#!/usr/bin/python3 -u\n")
    assert "rootfs to hold /usr/bin/python3, which /bin/plugin needs to run" in last(folder).detail
    shutil.copy(Path(sys.executable).resolve(), plugin)  # linked dynamically
    assert "ld-linux" in last(folder).detail
    plugin.write_bytes(b"MZ rubbish")
    assert "to be a program or a script" in last(folder).detail
    plugin.chmod(0o644)
    assert "to be an executable file" in last(folder).detail


def test_a_link_does_not_lead_out(folder: Path) -> None:
    plugin = folder / "rootfs/bin/plugin"
    plugin.unlink()
    plugin.symlink_to("/bin/true")
    assert "no such file" in last(folder).detail


def test_another_machines_program_does_not_apply(folder: Path) -> None:
    plugin = folder / "rootfs/bin/plugin"
    raw = bytearray(plugin.read_bytes())
    raw[18:20] = (22).to_bytes(2, "little")
    plugin.write_bytes(raw)
    found = {each.check: each for each in bundle.check(folder)}
    assert found["entrypoint"].outcome is Outcome.DOES_NOT_APPLY
    assert "is built for s390x" in found["entrypoint"].detail

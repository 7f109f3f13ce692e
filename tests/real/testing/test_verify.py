"""`engine plugin verify`: our own plugins on a live engine, a plugin in C from its folder, and plugins that break claims."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Client, Engine, OldStylePlugin, Raw, eventually
from harness.engine import PROGRAM

pytestmark = pytest.mark.real

EXAMPLE = Path(__file__).parents[3] / "examples/volume_c"


@pytest.fixture(scope="module")
def folder(real_host: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin in C, built."""
    made = tmp_path_factory.mktemp("verify") / "plugin"
    shutil.copytree(EXAMPLE, made)
    subprocess.run(["make", "-s", "-C", made, "CC=gcc"], check=True, timeout=60)
    return made


def verify(engine: Client, *arguments: str | Path, code: int = 0) -> str:
    done = engine.engine("plugin", "verify", *arguments, check=False, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def results(engine: Client, *arguments: str | Path, code: int = 0) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in verify(engine, "--json", *arguments, code=code).splitlines()]
    return {f"{line['Subject']} {line['Check']}": line for line in lines}


def outcomes(found: dict[str, dict[str, Any]], outcome: str) -> set[str]:
    return {name for name, line in found.items() if line["Outcome"] == outcome}


@pytest.mark.parametrize(
    ("plugin", "not_applying"),
    [
        ("volumes", {"local restart"}),
        ("storage_overlay2", {"overlay2 restart"}),
        ("runtime_oci", {f"{name} {check}" for name in ("crun", "runc") for check in ("adopt", "adopt-ended")}),
        ("net_bridge", {"bridge restore", "bridge impossible-network"}),
    ],
)
def test_built_in_plugins_on_a_live_engine(engine: Client, plugin: str, not_applying: set[str]) -> None:
    name = engine.name()
    volume = engine.docker("volume", "create", engine.name()).stdout.strip()
    engine.docker("run", "-d", "--name", name, "-v", f"{volume}:/data", engine.image, "sleep", "600")
    before = engine.census()
    found = results(engine, plugin)
    assert outcomes(found, "broken") == set()
    assert outcomes(found, "does not apply") == not_applying
    assert engine.docker("exec", name, "echo", "untouched").stdout == "untouched\n"
    after = engine.census()
    assert {key: after[key] for key in ("containers", "images", "networks", "volumes")} == {
        key: before[key] for key in ("containers", "images", "networks", "volumes")
    }
    engine.docker("rm", "-f", name)
    engine.docker("volume", "rm", volume)


def test_logging_and_networks(engine: Client) -> None:
    for plugin, subjects in (("logging", {"json-file", "local", "none"}), ("networks", {"default", "null"})):
        found = results(engine, plugin)
        assert outcomes(found, "broken") == set()
        assert {name.split()[0] for name in found} == subjects


def test_a_folder_with_a_plugin_in_another_language(engine: Client, folder: Path) -> None:
    shown = verify(engine, folder)
    assert "config.json follows the schema" in shown
    assert "holds   starts: it starts, and answers in time" in shown
    assert "VolumeDriver of verify/" in shown
    assert "holds   data-stays" in shown
    assert "0 broken" in shown
    assert "verify" not in engine.docker("plugin", "ls", "--format", "{{.Name}}").stdout


def test_a_managed_plugin_by_name_while_it_is_used(engine: Client, folder: Path) -> None:
    name = f"me/{engine.name()}:1.0"
    volume = engine.name()
    engine.docker("plugin", "create", name, folder)
    refused = engine.engine("plugin", "verify", name, check=False)
    assert refused.returncode == 1
    assert f"plugin {name} is disabled" in refused.stderr
    engine.docker("plugin", "enable", name)
    engine.docker("volume", "create", "-d", name, volume)
    engine.docker("run", "--rm", "-v", f"{volume}:/data", engine.image, "sh", "-c", "echo kept > /data/file")
    try:
        found = results(engine, name, "--check", "mounts-are-counted-by-request", "--check", "remove")
        assert outcomes(found, "holds") == {f"{name} mounts-are-counted-by-request", f"{name} remove"}
        kept = engine.docker("run", "--rm", "-v", f"{volume}:/data", engine.image, "cat", "/data/file").stdout
        assert kept == "kept\n"
    finally:
        engine.docker("volume", "rm", volume)
        engine.docker("plugin", "rm", "-f", name)


def test_a_folder_that_cannot_be_a_plugin(engine: Client, folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "entrypoint": ["/no-such-program"]}))
    shown = verify(engine, broken, code=1)
    assert "BROKEN  entrypoint" in shown
    assert "the program '/no-such-program' in rootfs; got no such file" in shown
    (broken / "config.json").write_text(json.dumps({**config, "network": {"type": "carrier pigeon"}}))
    assert "'carrier pigeon' is no network of a plugin" in verify(engine, broken, code=1)
    no_config = engine.engine("plugin", "verify", tmp_path, check=False)
    assert "has no config.json" in no_config.stderr


class Counting:
    """A volume plugin that counts mounts instead of telling requests from each other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count: dict[str, int] = {}

    def answers(self) -> dict[str, Callable[[dict[str, Any]], Any]]:
        return {
            "VolumeDriver.Capabilities": lambda _: {"Capabilities": {"Scope": "local"}},
            "VolumeDriver.Create": self.create,
            "VolumeDriver.Remove": self.remove,
            "VolumeDriver.Mount": self.mount,
            "VolumeDriver.Unmount": self.unmount,
            "VolumeDriver.Path": lambda told: {"Mountpoint": str(self.seen(told))},
            "VolumeDriver.Get": self.get,
            "VolumeDriver.List": lambda _: {"Volumes": [{"Name": path.name} for path in self.folder.glob("*-*")]},
        }

    def seen(self, told: dict[str, Any]) -> Path:
        return self.folder / told["Name"] / "data"

    def create(self, told: dict[str, Any]) -> Any:
        (self.folder / told["Name"]).mkdir(exist_ok=True)
        return {}

    def remove(self, told: dict[str, Any]) -> Any:
        shutil.rmtree(self.folder / told["Name"], ignore_errors=True)
        return Raw(b"")

    def mount(self, told: dict[str, Any]) -> Any:
        name = told["Name"]
        self.count[name] = self.count.get(name, 0) + 1
        hidden = self.seen(told).with_name("hidden")
        if hidden.exists():
            hidden.rename(self.seen(told))
        self.seen(told).mkdir(exist_ok=True)
        return {"Mountpoint": str(self.seen(told))}

    def unmount(self, told: dict[str, Any]) -> Any:
        self.count[told["Name"]] = self.count.get(told["Name"], 0) - 1
        if self.count[told["Name"]] <= 0 and self.seen(told).exists():
            self.seen(told).rename(self.seen(told).with_name("hidden"))
        return {}

    def get(self, told: dict[str, Any]) -> Any:
        if (self.folder / told["Name"]).exists():
            return {"Volume": {"Name": told["Name"]}}
        return {"Err": "no such volume"}


def test_a_plugin_that_breaks_a_claim(own_engine: Callable[..., Engine], tmp_path: Path) -> None:
    engine = own_engine(image=False)
    engine.plugin_dir.mkdir(exist_ok=True)
    with OldStylePlugin(engine.plugin_dir, "counting", ["VolumeDriver"], Counting(tmp_path).answers()):
        shown = verify(engine, "counting", code=1)
    assert "BROKEN  mounts-are-counted-by-request" in shown
    assert "expected the mount of request-" in shown
    assert "see VolumeDriver.mount" in shown
    assert "holds   data-stays" in shown


def test_whoever_leaves_stops_the_verification_and_nothing_stays(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine()
    before = engine.census()
    leaving = subprocess.Popen(
        [PROGRAM, "plugin", "verify", "runtime_oci"], env=engine.env(), stdout=subprocess.PIPE, text=True
    )
    assert leaving.stdout is not None
    while "signals" not in leaving.stdout.readline():
        assert leaving.poll() is None
    busy = engine.engine("plugin", "verify", "volumes", check=False)
    assert "another plugin is being verified" in busy.stderr
    leaving.kill()
    leaving.wait(10)
    eventually(lambda: engine.engine("plugin", "verify", "volumes", check=False).returncode == 0, timeout=30)
    eventually(lambda: engine.census() == before)


def test_what_cannot_be_verified_is_said(engine: Client) -> None:
    for arguments, words in (
        (["no-such-plugin"], 'plugin "no-such-plugin" not found'),
        (["system"], "plugin system has nothing that a conformance kit is about"),
        (["volumes", "--check", "nonsense"], "no check is named 'nonsense'"),
        (["volumes", "--opt", "x"], "'x': want KEY=VALUE"),
    ):
        done = engine.engine("plugin", "verify", *arguments, check=False)
        assert done.returncode != 0
        assert words in done.stderr

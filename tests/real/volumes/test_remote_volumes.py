"""Volumes of an old-style plugin that a test plays: data, options, mount IDs, a killed daemon, and a plugin that misbehaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Engine, OldStylePlugin, Raw, Refusal, eventually

pytestmark = pytest.mark.real

MakeEngine = Callable[..., Engine]


class Folders:
    """A volume plugin that keeps a folder for each volume, and counts mounts by ID."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.options: dict[str, dict[str, str]] = {}
        self.mounted: dict[str, set[str]] = {}

    def answers(self) -> dict[str, Callable[[dict[str, Any]], Any]]:
        """For `OldStylePlugin`."""
        return {
            "VolumeDriver.Capabilities": lambda _: {"Capabilities": {"Scope": "global"}},
            "VolumeDriver.Create": self.create,
            "VolumeDriver.Remove": self.remove,
            "VolumeDriver.Mount": self.mount,
            "VolumeDriver.Unmount": self.unmount,
            "VolumeDriver.Path": lambda asked: {"Mountpoint": str(self.root / asked["Name"])},
            "VolumeDriver.Get": self.get,
            "VolumeDriver.List": lambda _: {"Volumes": [self._shown(name) for name in self.options]},
        }

    def create(self, asked: dict[str, Any]) -> dict[str, Any]:
        (self.root / asked["Name"]).mkdir(parents=True, exist_ok=True)
        self.options[asked["Name"]] = asked["Opts"]
        return {"Err": ""}

    def remove(self, asked: dict[str, Any]) -> dict[str, Any]:
        if self.mounted.get(asked["Name"]):
            raise Refusal(f"{asked['Name']} is mounted")
        shutil.rmtree(self.root / asked["Name"])
        del self.options[asked["Name"]]
        return {}

    def mount(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.mounted.setdefault(asked["Name"], set()).add(asked["ID"])
        return {"Mountpoint": str(self.root / asked["Name"]), "Err": ""}

    def unmount(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.mounted.setdefault(asked["Name"], set()).discard(asked["ID"])
        return {}

    def get(self, asked: dict[str, Any]) -> dict[str, Any]:
        if asked["Name"] not in self.options:
            raise Refusal("no such volume")
        return {"Volume": self._shown(asked["Name"])}

    def _shown(self, name: str) -> dict[str, Any]:
        return {"Name": name, "Mountpoint": str(self.root / name), "CreatedAt": "", "Status": {"healthy": True}}


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "volumes")


@pytest.fixture
def daemon(own_engine: MakeEngine) -> Engine:
    return own_engine()


@pytest.fixture
def plugin(daemon: Engine, folders: Folders) -> Iterator[OldStylePlugin]:
    with OldStylePlugin(daemon.plugin_dir, "flocker", ["VolumeDriver"], folders.answers()) as playing:
        yield playing
        # Whatever a test made of it: it has to let go of its volumes.
        playing.answers = {**playing.answers, **folders.answers()}
        if daemon.running:
            if containers := daemon.docker("ps", "-aq").stdout.split():
                daemon.docker("rm", "-f", "-v", *containers)
            if volumes := daemon.docker("volume", "ls", "-q").stdout.split():
                daemon.docker("volume", "rm", "-f", *volumes)


def run(engine: Engine, *args: str, check: bool = True, timeout: float = 60) -> Any:
    return engine.docker("run", "--network", "none", *args, check=check, timeout=timeout)


def ids(plugin: OldStylePlugin, method: str) -> list[str]:
    return [arguments["ID"] for arguments in plugin.called(f"VolumeDriver.{method}")]


def volume(engine: Engine, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(engine.docker("volume", "inspect", name).stdout)[0]
    return found


def test_data_and_options(daemon: Engine, plugin: OldStylePlugin, folders: Folders) -> None:
    created = daemon.docker("volume", "create", "-d", "flocker", "-o", "size=5G", "-o", "profile=gold", "data")
    assert created.stdout == "data\n"
    assert plugin.called("VolumeDriver.Create") == [{"Name": "data", "Opts": {"size": "5G", "profile": "gold"}}]
    shown = volume(daemon, "data")
    assert (shown["Driver"], shown["Scope"], shown["Mountpoint"]) == ("flocker", "global", str(folders.root / "data"))
    assert shown["Options"] == {"size": "5G", "profile": "gold"}
    assert shown["Status"] == {"healthy": True}
    run(daemon, "--rm", "-v", "data:/d", daemon.image, "sh", "-c", "echo kept > /d/file")
    assert (folders.root / "data" / "file").read_text() == "kept\n"
    daemon.restart()
    assert run(daemon, "--rm", "-v", "data:/d", daemon.image, "cat", "/d/file").stdout == "kept\n"
    daemon.docker("volume", "rm", "data")
    assert folders.options == {}


def test_volume_driver_of_run(daemon: Engine, plugin: OldStylePlugin, folders: Folders) -> None:
    run(daemon, "--name", "web", "--volume-driver", "flocker", "-v", "fresh:/etc", daemon.image, "true")
    assert plugin.called("VolumeDriver.Create") == [{"Name": "fresh", "Opts": {}}]
    (mount,) = daemon.inspect("web")["Mounts"]
    assert (mount["Driver"], mount["Source"]) == ("flocker", str(folders.root / "fresh"))
    # The image's files were copied into it, over a mount of its own.
    assert (folders.root / "fresh" / "passwd").exists()
    assert len(set(ids(plugin, "Mount"))) == 2
    assert ids(plugin, "Mount") == ids(plugin, "Unmount")


def test_mount_ids_are_of_one_start(daemon: Engine, plugin: OldStylePlugin, folders: Folders) -> None:
    daemon.docker("volume", "create", "-d", "flocker", "data")
    both = ["-v", "data:/a:nocopy", "-v", "data:/b:nocopy"]
    run(daemon, "--name", "one", "-d", *both, daemon.image, "sleep", "600")
    run(daemon, "--name", "two", "-d", *both, daemon.image, "sleep", "600")
    assert len(folders.mounted["data"]) == 2
    daemon.docker("restart", "-t", "0", "one")
    assert len(set(ids(plugin, "Mount"))) == len(ids(plugin, "Mount")) == 3
    refused = daemon.docker("volume", "rm", "data", check=False)
    assert "volume is in use" in refused.stderr
    daemon.docker("rm", "-f", "one", "two")
    assert sorted(ids(plugin, "Mount")) == sorted(ids(plugin, "Unmount"))


def test_a_killed_daemon_and_a_container_that_goes_on(daemon: Engine, plugin: OldStylePlugin, folders: Folders) -> None:
    run(
        daemon,
        "--name",
        "web",
        "-d",
        "--volume-driver",
        "flocker",
        "-v",
        "data:/d:nocopy",
        daemon.image,
        "sleep",
        "600",
    )
    (mounted,) = folders.mounted["data"]
    daemon.kill9()
    daemon.start()
    assert daemon.docker("exec", "web", "touch", "/d/after").returncode == 0
    assert (folders.root / "data" / "after").exists()
    assert (ids(plugin, "Mount"), ids(plugin, "Unmount")) == ([mounted], [])
    daemon.docker("kill", "web")
    assert eventually(lambda: ids(plugin, "Unmount") == [mounted])


def test_a_container_that_ended_while_the_daemon_was_dead(
    daemon: Engine, plugin: OldStylePlugin, folders: Folders
) -> None:
    script = ["sh", "-c", "while [ ! -e /d/end ]; do sleep 0.1; done"]
    run(daemon, "--name", "web", "-d", "--volume-driver", "flocker", "-v", "data:/d:nocopy", daemon.image, *script)
    pid = daemon.inspect("web")["State"]["Pid"]
    daemon.kill9()
    (folders.root / "data" / "end").touch()
    eventually(lambda: not Path(f"/proc/{pid}").exists())
    daemon.start()
    assert eventually(lambda: ids(plugin, "Unmount") == ids(plugin, "Mount"))
    assert daemon.inspect("web")["State"]["ExitCode"] == 0


def test_a_plugin_that_is_gone(daemon: Engine, plugin: OldStylePlugin) -> None:
    daemon.docker("volume", "create", "-d", "flocker", "data")
    daemon.docker("volume", "create", "here")
    plugin.close()
    daemon.restart()
    listing = daemon.docker("volume", "ls", "--format", "{{.Name}} {{.Driver}}")
    assert listing.stdout.splitlines() == ["data flocker", "here local"]
    warnings = daemon.http("GET", "/volumes").json()["Warnings"]
    assert warnings == ['volume driver flocker: plugin "flocker" not found']
    assert 'plugin "flocker" not found' in volume(daemon, "data")["Status"]["Error"]
    refused = run(daemon, "--rm", "-v", "data:/d", daemon.image, "true", check=False)
    assert refused.returncode == 125
    assert 'plugin "flocker" not found' in refused.stderr
    refused = daemon.docker("volume", "rm", "data", check=False)
    assert 'plugin "flocker" not found' in refused.stderr
    daemon.docker("volume", "rm", "-f", "data")
    assert daemon.docker("volume", "ls", "-q").stdout == "here\n"


def test_three_dead_sockets_do_not_hold_up_volume_ls(daemon: Engine, folders: Folders) -> None:
    names = [f"dead{number}" for number in range(3)]
    for name in names:
        with OldStylePlugin(daemon.plugin_dir, name, ["VolumeDriver"], folders.answers()):
            daemon.docker("volume", "create", "-d", name, f"of-{name}")
    daemon.docker("volume", "create", "here")
    listeners = []
    for name in names:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(daemon.plugin_dir / f"{name}.sock"))
        listener.listen(64)
        listeners.append(listener)
    try:
        for again in (False, True):
            if again:
                daemon.restart()  # now they are not even activated
            began = time.monotonic()
            listing = daemon.docker("volume", "ls", "-q")
            assert time.monotonic() - began < 2
            assert listing.stdout.split() == ["here", "of-dead0", "of-dead1", "of-dead2"]
            began = time.monotonic()
            warnings = daemon.http("GET", "/volumes").json()["Warnings"]
            assert time.monotonic() - began < 2
            assert [warning.split(":")[0].split()[2] for warning in warnings] == names
    finally:
        for listener in listeners:
            listener.close()
    began = time.monotonic()
    daemon.docker("volume", "rm", "-f", "of-dead0", "of-dead1", "of-dead2")
    assert time.monotonic() - began < 15


def big(_: dict[str, Any]) -> Raw:
    return Raw(b'{"Mountpoint": "' + b"x" * (10 << 20) + b'"}')


def dies(_: dict[str, Any]) -> Raw:
    raise ConnectionAbortedError  # closes the connection: the answer never comes


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda _: Raw(b"<html>what?"), "answered rubbish"),
        (lambda _: Raw(b'["a", "list"]'), "answered rubbish"),
        (lambda _: {"Mountpoint": {"not": "a path"}}, "answered rubbish"),
        (lambda _: {"Mountpoint": ""}, "gave no mount point for volume data"),
        (lambda _: {"Mountpoint": "../../etc"}, "gave no mount point for volume data"),
        (lambda _: {"Err": "the disk is on fire"}, "the disk is on fire"),
        (lambda _: Raw(b"the disk is on fire", 500), "the disk is on fire"),
        (lambda _: Raw(b"404", 404), "not implemented"),
        (big, "answered with more than"),
        (dies, "broke off"),
    ],
    ids=["html", "list", "type", "empty", "escape", "err", "status", "404", "10mb", "dies"],
)
def test_a_mount_that_fails(
    daemon: Engine, plugin: OldStylePlugin, folders: Folders, answer: Callable[[dict[str, Any]], Any], message: str
) -> None:
    daemon.docker("volume", "create", "-d", "flocker", "data")
    plugin.answers["VolumeDriver.Mount"] = answer
    failed = run(daemon, "--name", "web", "-v", "data:/d:nocopy", daemon.image, "true", check=False)
    assert failed.returncode == 125
    assert message in failed.stderr
    assert "flocker" in failed.stderr
    assert "VolumeDriver.Mount" in failed.stderr
    assert run(daemon, "--rm", daemon.image, "echo", "on").stdout == "on\n"
    # What is wrong with the plugin passes, and the container starts.
    plugin.answers |= folders.answers()
    assert daemon.docker("start", "-a", "web").returncode == 0


def test_a_plugin_that_hangs(daemon: Engine, plugin: OldStylePlugin) -> None:
    daemon.docker("volume", "create", "-d", "flocker", "data")
    daemon.docker("volume", "create", "-d", "flocker", "other")
    run(daemon, "--name", "other", "-d", "-v", "other:/d:nocopy", daemon.image, "sleep", "600")
    let = threading.Event()

    def hang(_: dict[str, Any]) -> dict[str, Any]:
        let.wait(100)
        return {}

    served = dict(plugin.answers)
    for call in ("Mount", "Unmount", "Get", "List", "Path"):
        plugin.answers[f"VolumeDriver.{call}"] = hang
    daemon.docker("create", "--name", "web", "--network", "none", "-v", "data:/d:nocopy", daemon.image, "true")
    starting = daemon.popen("start", "web")
    try:
        eventually(lambda: plugin.called("VolumeDriver.Mount")[1:])
        for read in (["ps", "-a"], ["inspect", "web"], ["exec", "other", "true"]):
            began = time.monotonic()
            daemon.docker(*read)
            assert time.monotonic() - began < 1.5, read
        began = time.monotonic()
        assert daemon.docker("volume", "ls", "-q").stdout.split() == ["data", "other"]
        assert time.monotonic() - began < 2
        began = time.monotonic()
        assert "data" in daemon.docker("system", "df", "-v").stdout
        assert time.monotonic() - began < 4, "all volumes of the plugin are asked at once"
        assert run(daemon, "--rm", daemon.image, "echo", "on").stdout == "on\n"
        began = time.monotonic()
        daemon.docker("kill", "other")
        assert time.monotonic() - began < 2
        assert "did not answer" in volume(daemon, "data")["Status"]["Error"]
        began = time.monotonic()
        daemon.docker("rm", "-f", "web")
        assert time.monotonic() - began < 20, "a removal does not wait for the Mount"
        assert "given up: it is being removed" in starting.communicate(timeout=10)[1]
        assert daemon.docker("ps", "-aq", "--filter", "name=web").stdout == ""
    finally:
        let.set()
        plugin.answers |= served
        starting.wait(30)
        starting.communicate()


def restarting(engine: Engine, name: str, policy: str) -> None:
    """A container that runs and would be started again by its policy, whose volume the plugin has."""
    options = ["-d", "--restart", policy, "--volume-driver", "flocker", "-v", "data:/d:nocopy"]
    run(engine, "--name", name, *options, engine.image, "sh", "-c", "echo start >> /d/log; sleep 600")


def stop_as_a_boot_would(engine: Engine, plugin: OldStylePlugin, *containers: str) -> None:
    """The daemon, the plugin and the containers end, each without the others' doing."""
    pids = [engine.inspect(name)["State"]["Pid"] for name in containers]
    engine.stop()
    plugin.close()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("policy", ["always", "unless-stopped", "on-failure:2"])
def test_a_driver_that_comes_later_than_the_daemon(
    daemon: Engine, plugin: OldStylePlugin, folders: Folders, policy: str
) -> None:
    restarting(daemon, "web", policy)
    run(daemon, "--name", "plain", "-d", "--restart", "always", daemon.image, "sleep", "600")
    eventually((folders.root / "data" / "log").exists)
    stop_as_a_boot_would(daemon, plugin, "web", "plain")
    daemon.start()
    # Others do not wait for it.
    assert eventually(lambda: daemon.inspect("plain")["State"]["Running"], timeout=5)
    eventually(lambda: "the driver of a volume is missing" in daemon.inspect("web")["State"]["Error"])
    assert daemon.inspect("web")["State"]["Status"] == "restarting"
    time.sleep(2)  # more attempts than an on-failure:2 has
    with OldStylePlugin(daemon.plugin_dir, "flocker", ["VolumeDriver"], folders.answers()):
        assert eventually(lambda: daemon.inspect("web")["State"]["Running"], timeout=30)
        assert eventually(lambda: (folders.root / "data" / "log").read_text() == "start\nstart\n")
        daemon.docker("rm", "-f", "web")
        daemon.docker("volume", "rm", "data")


def test_stopping_a_container_that_waits_for_its_driver(
    daemon: Engine, plugin: OldStylePlugin, folders: Folders
) -> None:
    restarting(daemon, "web", "always")
    stop_as_a_boot_would(daemon, plugin, "web")
    daemon.start()
    eventually(lambda: "the driver of a volume is missing" in daemon.inspect("web")["State"]["Error"])
    began = time.monotonic()
    daemon.docker("stop", "web")
    daemon.docker("rm", "web")
    daemon.docker("volume", "rm", "-f", "data")
    assert time.monotonic() - began < 5

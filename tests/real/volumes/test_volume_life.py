"""Volumes under real containers: what copy-up, sub-paths, drivers' mounts and a killed daemon do to them."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Client, Engine, eventually

pytestmark = pytest.mark.real


@pytest.fixture
def hostile(engine: Client) -> Iterator[str]:
    """An image whose folders are links that try to lead out of it."""
    name = engine.name("hostile")
    script = (
        "ln -s /etc /data; mkdir /srv; ln -s ../../../../../../etc /srv/up; mkdir -m 1777 /srv/own;"
        "chown 33:50 /srv/own; echo a > /srv/own/f; ln /srv/own/f /srv/own/g; ln -s f /srv/own/l; echo x > /file"
    )
    engine.docker("run", "--name", name, engine.image, "sh", "-c", script)
    engine.docker("commit", name, name)
    engine.docker("rm", name)
    yield name
    engine.docker("rmi", name)


@pytest.fixture
def volume(engine: Client) -> Iterator[str]:
    name = engine.name("vol")
    yield name
    engine.docker("volume", "rm", "-f", name)


def run(engine: Client, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return engine.docker("run", "--rm", "--network", "none", *args, check=check)


def run_mounted(engine: Client, mount: dict[str, object], *argv: str) -> tuple[int, str]:
    """Exit code and words of a command beside a mount, over the API: Debian 12's CLI does not know the newer mount options."""
    asked = {"Image": engine.image, "Cmd": argv, "Tty": True, "HostConfig": {"NetworkMode": "none", "Mounts": [mount]}}
    created = engine.http("POST", "/v1.48/containers/create", asked)
    if created.status != 201:
        return 125, created.json()["message"]
    container = created.json()["Id"]
    try:
        started = engine.http("POST", f"/v1.48/containers/{container}/start")
        if started.status != 204:
            return 125, started.json()["message"]
        code = int(engine.docker("wait", container).stdout)
        return code, engine.docker("logs", container).stdout.replace("\r\n", "\n")
    finally:
        engine.docker("rm", "-f", container)


def names(engine: Client) -> list[str]:
    return engine.docker("volume", "ls", "-q").stdout.split()


@pytest.mark.parametrize("target", ["/data", "/srv/up"])
def test_copy_up_follows_links_inside_the_image_only(engine: Client, hostile: str, volume: str, target: str) -> None:
    shown = run(engine, "-v", f"{volume}:{target}", hostile, "cat", f"{target}/passwd").stdout
    assert "root:x:0" in shown
    assert shown != Path("/etc/passwd").read_text()


def test_copy_up_keeps_owners_modes_and_links(engine: Client, hostile: str, volume: str) -> None:
    shown = run(engine, "-v", f"{volume}:/srv/own", hostile, "stat", "-c", "%n %u:%g %a %h %F", "/srv/own").stdout
    assert shown.split()[1:3] == ["33:50", "1777"]
    links = run(engine, "-v", f"{volume}:/srv/own", hostile, "stat", "-c", "%h", "/srv/own/f", "/srv/own/g").stdout
    assert links.split() == ["2", "2"]
    assert run(engine, "-v", f"{volume}:/srv/own", hostile, "readlink", "/srv/own/l").stdout == "f\n"


def test_a_file_in_the_way_is_refused_and_nothing_stays(engine: Client, hostile: str) -> None:
    before = names(engine)
    name = engine.name("vol")
    for option in (f"{name}:/file", "/file"):
        refused = engine.docker("create", "-v", option, hostile, check=False)
        assert refused.returncode == 1
        assert "cannot mount volume over existing file, file exists /file" in refused.stderr
    assert eventually(lambda: names(engine) == before)


def test_subpath(engine: Client, volume: str) -> None:
    run(
        engine,
        "-v",
        f"{volume}:/x",
        engine.image,
        "sh",
        "-c",
        "mkdir /x/d; echo hi > /x/d/f; ln -s / /x/root; ln -s d /x/m",
    )

    def below(path: str) -> dict[str, object]:
        return {"Type": "volume", "Source": volume, "Target": "/y", "VolumeOptions": {"Subpath": path}}

    for path in ("d", "m"):
        assert run_mounted(engine, below(path), "cat", "/y/f") == (0, "hi\n")
    assert run_mounted(engine, below("d/f"), "cat", "/y") == (0, "hi\n")
    for path in ("root/etc", "nothing"):
        code, words = run_mounted(engine, below(path), "true")
        assert code == 125
        assert "cannot access path" in words


def test_read_only_is_recursive_unless_told_otherwise(engine: Client, host_dir: Path) -> None:
    below = host_dir / "below"
    below.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", below], check=True)
    try:
        mount = {"Type": "bind", "Source": str(host_dir), "Target": "/r", "ReadOnly": True}
        code, words = run_mounted(engine, mount, "touch", "/r/below/x")
        assert code == 1
        assert "Read-only" in words
        writable = {**mount, "BindOptions": {"ReadOnlyNonRecursive": True}}
        assert run_mounted(engine, writable, "touch", "/r/below/x") == (0, "")
    finally:
        subprocess.run(["umount", below], check=True)


def test_missing_sources(engine: Client, host_dir: Path) -> None:
    source = host_dir / "a" / "b"
    refused = run(engine, "--mount", f"type=bind,source={source},target=/x", engine.image, "true", check=False)
    assert f"bind source path does not exist: {source}" in refused.stderr
    run(engine, "-v", f"{source}:/x", engine.image, "touch", "/x/made")
    assert (source / "made").exists()


def test_anonymous_volumes_stay_while_somebody_uses_them(engine: Client) -> None:
    first, second = engine.name(), engine.name()
    engine.docker("run", "-d", "--name", first, "-v", "/data", engine.image, "sleep", "600")
    (mount,) = engine.inspect(first)["Mounts"]
    engine.docker("create", "--name", second, "--volumes-from", first, engine.image)
    engine.docker("rm", "-f", "-v", first)
    assert mount["Name"] in names(engine)
    engine.docker("rm", "-v", second)
    assert eventually(lambda: mount["Name"] not in names(engine))


def test_rm_without_v_keeps_them_and_prune_takes_them(engine: Client) -> None:
    name = engine.name()
    engine.docker("create", "--name", name, "-v", "/data", engine.image)
    (mount,) = engine.inspect(name)["Mounts"]
    engine.docker("rm", name)
    assert mount["Name"] in names(engine)
    assert mount["Name"] in engine.docker("volume", "prune", "-f").stdout
    assert mount["Name"] not in names(engine)


def test_events_of_a_volumes_life(engine: Client) -> None:
    began, name, container = str(int(time.time())), engine.name("vol"), engine.name()
    run(engine, "--name", container, "-v", f"{name}:/x:ro", engine.image, "true")
    engine.docker("volume", "rm", name)
    shown = engine.docker(
        "events",
        "--since",
        began,
        "--until",
        str(int(time.time()) + 1),
        "--filter",
        f"volume={name}",
        "--format",
        "{{json .}}",
    )
    events = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [event["Action"] for event in events] == ["create", "mount", "unmount", "destroy"]
    assert events[1]["Actor"]["Attributes"] | {"container": ""} == {
        "container": "",
        "destination": "/x",
        "driver": "local",
        "propagation": "",
        "read/write": "false",
    }


def test_a_mounted_volume_through_a_killed_daemon(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine()
    options = ["-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m"]
    engine.docker("volume", "create", *options, "shared")
    place = json.loads(engine.docker("volume", "inspect", "shared").stdout)[0]["Mountpoint"]
    run_ = ["run", "--network", "none", "-v", "shared:/s"]
    engine.docker(*run_, "-d", "--name", "one", engine.image, "sleep", "600")
    engine.docker(*run_, "-d", "--name", "two", engine.image, "sleep", "600")
    engine.docker("exec", "one", "touch", "/s/here")
    engine.kill9()
    engine.start()
    eventually(lambda: engine.docker("exec", "one", "true", check=False).returncode == 0)
    engine.docker("rm", "-f", "two")
    engine.docker(*run_, "--rm", engine.image, "true")
    assert os.path.ismount(place)
    assert engine.docker("exec", "one", "ls", "/s").stdout == "here\n"
    engine.docker("rm", "-f", "one")
    assert eventually(lambda: not os.path.ismount(place))
    engine.docker("volume", "rm", "shared")


def test_volumes_of_a_container_that_never_came_to_be(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine()
    refused = engine.docker("create", "-v", "/a", "-v", "named:/b", "--network", "nowhere", engine.image, check=False)
    if refused.returncode == 0:
        refused = engine.docker("start", refused.stdout.strip(), check=False)
        engine.docker("rm", "-f", "-v", *engine.docker("ps", "-aq").stdout.split())
    assert refused.returncode != 0
    assert eventually(lambda: [name for name in names(engine) if len(name) == 64] == [])

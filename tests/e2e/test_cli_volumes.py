"""Volumes: create, list, use, copy-up, remove."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest
from harness import Client, eventually

pytestmark = pytest.mark.real


@pytest.fixture
def volume(engine: Client) -> Iterator[Callable[..., str]]:
    """`volume(*options)` makes a volume and gives its name; removed in the end."""
    made: list[str] = []

    def make(*options: str) -> str:
        made.append(engine.name("vol"))
        engine.docker("volume", "create", *options, made[-1])
        return made[-1]

    yield make
    engine.docker("volume", "rm", "-f", *made, check=False)


def sh(engine: Client, *options: str, script: str) -> str:
    return engine.docker("run", "--rm", *options, engine.image, "sh", "-c", script).stdout


def test_create_list_inspect_remove(engine: Client) -> None:
    name = engine.name("vol")
    assert engine.docker("volume", "create", "--label", "a=b", name).stdout.strip() == name
    assert name in engine.docker("volume", "ls", "-q").stdout.split()
    shown = json.loads(engine.docker("volume", "inspect", name).stdout)[0]
    assert (shown["Name"], shown["Driver"], shown["Scope"], shown["Labels"]) == (name, "local", "local", {"a": "b"})
    assert shown["Mountpoint"].endswith(f"/volumes/{name}/_data")
    assert engine.docker("volume", "rm", name).stdout.strip() == name
    assert engine.docker("volume", "inspect", name, check=False).returncode == 1
    assert engine.http("GET", f"/v1.45/volumes/{name}").message == f"get {name}: no such volume"


def test_content_outlives_containers(engine: Client, volume: Callable[..., str]) -> None:
    name = volume()
    sh(engine, "-v", f"{name}:/data", script="echo kept > /data/file")
    assert sh(engine, "-v", f"{name}:/else", script="cat /else/file") == "kept\n"


def test_read_only(engine: Client, volume: Callable[..., str]) -> None:
    options = ["-v", f"{volume()}:/data:ro"]
    done = engine.docker("run", "--rm", *options, engine.image, "touch", "/data/x", check=False)
    assert done.returncode == 1
    assert "Read-only file system" in done.stderr


def test_first_use_copies_the_images_files(engine: Client, volume: Callable[..., str]) -> None:
    name = volume()
    assert "passwd" in sh(engine, "-v", f"{name}:/etc", script="ls /etc").split()
    sh(engine, "-v", f"{name}:/etc", script="rm /etc/passwd")
    assert "passwd" not in sh(engine, "-v", f"{name}:/etc", script="ls /etc").split()
    assert sh(
        engine, "--mount", f"type=volume,source={volume()},target=/etc,volume-nocopy", script="ls /etc"
    ).split() == [*["hostname", "hosts", "resolv.conf"]]


def test_named_volume_is_made_on_the_way(engine: Client) -> None:
    name = engine.name("vol")
    sh(engine, "-v", f"{name}:/data", script="true")
    assert name in engine.docker("volume", "ls", "-q").stdout.split()
    engine.docker("volume", "rm", name)


def test_anonymous_volume_goes_with_rm_v(engine: Client) -> None:
    name = engine.name()
    engine.docker("run", "-d", "--name", name, "-v", "/data", engine.image, "sleep", "600")
    (mount,) = engine.inspect(name)["Mounts"]
    assert (mount["Type"], mount["Destination"], mount["Driver"], len(mount["Name"])) == (
        "volume",
        "/data",
        "local",
        64,
    )
    engine.docker("rm", "-f", "-v", name)
    assert mount["Name"] not in engine.docker("volume", "ls", "-q").stdout.split()
    before = engine.docker("volume", "ls", "-q").stdout
    engine.docker("run", "--rm", "-v", "/data", engine.image, "true")
    eventually(lambda: engine.docker("volume", "ls", "-q").stdout == before)


def test_volumes_from(engine: Client) -> None:
    name = engine.name()
    engine.docker("run", "-d", "--name", name, "-v", "/data", engine.image, "sh", "-c", "echo x > /data/f; sleep 600")
    try:
        eventually(lambda: sh(engine, "--volumes-from", name, script="cat /data/f || true") == "x\n")
    finally:
        engine.docker("rm", "-f", "-v", name)


def test_volume_in_use_is_kept(engine: Client, volume: Callable[..., str]) -> None:
    name, container = volume(), engine.name()
    cid = engine.docker("create", "--name", container, "-v", f"{name}:/data", engine.image).stdout.strip()
    try:
        refused = engine.docker("volume", "rm", name, check=False)
        assert refused.returncode == 1
        assert "volume is in use" in refused.stderr
        assert cid in refused.stderr
    finally:
        engine.docker("rm", container)


def test_local_driver_mounts_with_options(engine: Client, volume: Callable[..., str]) -> None:
    name = volume("-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,uid=33")
    shown = sh(engine, "-v", f"{name}:/data", script="df -k /data | tail -n 1; stat -c %u /data")
    assert shown.split()[:2] == ["tmpfs", "1024"]
    assert shown.split()[-1] == "33"


def test_unknown_driver(engine: Client) -> None:
    refused = engine.docker("volume", "create", "-d", "no-such-driver", engine.name("vol"), check=False)
    assert refused.returncode == 1
    assert "no-such-driver" in refused.stderr


def test_prune(engine: Client, volume: Callable[..., str]) -> None:
    label = f"prune={engine.name()}"
    name, other = volume("--label", label), volume()
    filters = quote(json.dumps({"all": ["true"], "label": [label]}))
    done = engine.http("POST", f"/v1.45/volumes/prune?filters={filters}")
    assert done.json()["VolumesDeleted"] == [name]
    names = engine.docker("volume", "ls", "-q").stdout.split()
    assert name not in names
    assert other in names

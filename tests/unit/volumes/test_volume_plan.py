"""What is read out of Binds, Mounts, Tmpfs, Volumes and VolumesFrom, and the words in which it is refused."""

from __future__ import annotations

from typing import Any

import pytest

from plugin_sdk import InvalidParameter, NotFound
from plugin_sdk.containers import ContainerConfig, ContainerRecord, HostConfig, MountPoint
from plugins.volumes.plan import Planned, plan, tmpfs_mounts


def lookup(ref: str) -> ContainerRecord:
    if ref != "other":
        raise NotFound(f"No such container: {ref}")
    return ContainerRecord(
        Id="1" * 64,
        Name="other",
        Created="",
        ImageID="",
        ImageRef="",
        Driver="",
        Runtime="",
        Config=ContainerConfig(),
        HostConfig=HostConfig(),
        Mounts=[
            MountPoint(Type="volume", Name="anon", Destination="/v", Driver="local", Anonymous=True),
            MountPoint(Type="bind", Source="/srv", Destination="/b", RW=False, Propagation="rslave"),
            MountPoint(Type="tmpfs", Destination="/t"),
        ],
    )


def planned(version: tuple[int, int] = (1, 51), volumes: tuple[str, ...] = (), **host: Any) -> dict[str, Planned]:
    config = ContainerConfig.model_validate({"Volumes": {path: {} for path in volumes}})
    found = plan(config, HostConfig.model_validate(host), version, lookup)
    return {mount.target: mount for mount in found}


@pytest.mark.parametrize(
    ("text", "kind", "source", "read_only", "mode"),
    [
        ("name:/b", "volume", "name", False, "z"),
        ("name:/b:ro", "volume", "name", True, "ro"),
        ("name:/b/../b/", "volume", "name", False, "z"),
        ("/src:/b", "bind", "/src", False, ""),
        ("/src/../src/:/b:ro,Z,cached", "bind", "/src", True, "ro,Z,cached"),
    ],
)
def test_binds(text: str, kind: str, source: str, read_only: bool, mode: str) -> None:
    mount = planned(Binds=[text])["/b"]
    assert (mount.type, mount.source, mount.read_only, mount.mode) == (kind, source, read_only, mode)


def test_bind_details() -> None:
    assert planned(Binds=["/s:/b:rshared"])["/b"].propagation == "rshared"
    assert planned(Binds=["/s:/b"])["/b"].propagation == "rprivate"
    assert planned(Binds=["name:/b:nocopy"])["/b"].nocopy
    assert planned(Binds=["name:/b"], VolumeDriver="x")["/b"].driver == "x"
    assert not planned(Binds=["/s:/b"])["/b"].must_exist


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid volume specification: ''"),
        (":/b", "invalid volume specification: ':/b'"),
        ("a:/b:rw:x", "invalid volume specification: 'a:/b:rw:x'"),
        ("/b:ro", "invalid volume specification: '/b:ro'"),
        ("a:/b:foo", "invalid mode: foo"),
        ("a:/b:ro,rw", "invalid mode: ro,rw"),
        ("/a:/b:rshared,private", "invalid mode: rshared,private"),
        (
            "/a:/",
            "invalid volume specification: '/a:/': invalid mount config for type \"bind\": "
            "invalid specification: destination can't be '/'",
        ),
        (
            "a:b",
            "invalid volume specification: 'a:b': invalid mount config for type \"volume\": "
            "invalid mount path: 'b' mount path must be absolute",
        ),
        (
            "a:/b:rshared",
            "invalid volume specification: 'a:/b:rshared': invalid mount config for type \"volume\": "
            "field BindOptions must not be specified",
        ),
    ],
)
def test_binds_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        planned(Binds=[text])
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        ({"Type": "bind", "Target": "/a"}, "field Source must not be empty"),
        ({"Type": "bind", "Source": "x", "Target": "/a"}, "invalid mount path: 'x' mount path must be absolute"),
        ({"Type": "bind", "Source": "/x", "Target": "/"}, "invalid specification: destination can't be '/'"),
        ({"Type": "bind", "Source": "/x"}, "field Target must not be empty"),
        (
            {"Type": "bind", "Source": "/x", "Target": "/a", "BindOptions": {"Propagation": "no"}},
            "invalid propagation mode: no",
        ),
        (
            {"Type": "bind", "Source": "/x", "Target": "/a", "VolumeOptions": {}},
            "field VolumeOptions must not be specified",
        ),
        (
            {"Type": "volume", "Target": "/a", "ReadOnly": True},
            "must not set ReadOnly mode when using anonymous volumes",
        ),
        (
            {"Type": "volume", "Source": "v", "Target": "/a", "VolumeOptions": {"Subpath": "../x"}},
            "subpath must be a relative path within the volume",
        ),
        ({"Type": "tmpfs", "Source": "/x", "Target": "/a"}, "field Source must not be specified"),
        ({"Type": "tmpfs", "Target": "/a", "TmpfsOptions": {"SizeBytes": -1}}, "size must not be negative"),
        ({"Type": "nonsense", "Target": "/a"}, "mount type unknown"),
    ],
)
def test_mounts_refused(mount: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        planned(Mounts=[mount])
    assert str(refused.value) == f'invalid mount config for type "{mount["Type"]}": {message}'


@pytest.mark.parametrize(
    "host",
    [
        {"Binds": ["/a:/x", "/b:/x/"]},
        {"Binds": ["/a:/x"], "Tmpfs": {"/x": ""}},
        {"Binds": ["/a:/x"], "Mounts": [{"Type": "tmpfs", "Target": "/x"}]},
    ],
)
def test_two_mounts_at_one_place(host: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter, match="Duplicate mount point: /x"):
        planned(**host)


def test_volumes_of_the_image() -> None:
    found = planned(volumes=("/a", "b", "/x", "/t"), Binds=["/src:/x"], Tmpfs={"/t": ""})
    assert {target: (mount.type, mount.source) for target, mount in found.items()} == {
        "/a": ("volume", ""),
        "/b": ("volume", ""),
        "/x": ("bind", "/src"),
    }
    with pytest.raises(InvalidParameter, match="destination can't be '/'"):
        planned(volumes=("/",))


def test_volumes_from() -> None:
    found = planned(VolumesFrom=["other"])
    assert (found["/v"].source, found["/v"].read_only, found["/v"].nocopy) == ("anon", False, True)
    assert (found["/b"].source, found["/b"].read_only, found["/b"].propagation) == ("/srv", True, "rslave")
    assert "/t" not in found
    assert planned(VolumesFrom=["other:ro"])["/v"].read_only
    assert planned(VolumesFrom=["other"], Binds=["own:/v"])["/v"].source == "own"
    with pytest.raises(NotFound):
        planned(VolumesFrom=["nobody"])
    with pytest.raises(InvalidParameter, match="invalid mode: bad"):
        planned(VolumesFrom=["other:bad"])


def test_read_only_binds_of_old_clients_are_not_recursive() -> None:
    mount = {"Type": "bind", "Source": "/x", "Target": "/a", "ReadOnly": True}
    assert planned((1, 43), Mounts=[mount])["/a"].options == {"ReadOnlyNonRecursive": True}
    assert planned((1, 44), Mounts=[mount])["/a"].options == {}


def test_tmpfs_options() -> None:
    host = HostConfig.model_validate({"Tmpfs": {"/a/": "", "/b": "exec,size=1m,ro"}})
    assert tmpfs_mounts(host) == [
        ("/a", ("noexec", "nosuid", "nodev")),
        ("/b", ("exec", "nosuid", "nodev", "size=1m", "ro")),
    ]
    with pytest.raises(InvalidParameter, match='invalid tmpfs option "bogus"'):
        planned(Tmpfs={"/a": "bogus"})
    mount = {"Type": "tmpfs", "Target": "/a", "TmpfsOptions": {"SizeBytes": 4096, "Mode": 0o1770}}
    assert planned(Mounts=[mount])["/a"].options == {"Words": ["size=4096", "mode=1770"]}

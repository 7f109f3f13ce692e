"""Managed plugins: archive and schema."""

import io
import json
import secrets
import tarfile
from pathlib import Path

import pytest

from kernel.contracts.managed import ManagedPlugin
from kernel.managed import archive, privileges, schema, settings
from kernel.managed.store import Records, normal_name
from kernel.state import Store
from kernel.state.store import PluginStore
from plugin_sdk import Conflict, Forbidden, InvalidParameter, NotFound

CONFIG = {
    "description": "a volume plugin",
    "interface": {"types": ["docker.volumedriver/1.0"], "socket": "p.sock"},
    "entrypoint": ["/plugin"],
    "env": [{"name": "DEBUG", "value": "0", "settable": ["value"]}, {"name": "UNSET"}],
    "mount": "a misspelt key is kept",
}


def tar(*members: tuple[str, object], config: object = CONFIG) -> io.BytesIO:
    """members: (name, bytes for a file | None for a folder | "->target" for a symlink | "=target" for a hard link)"""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive_:
        raw = json.dumps(config).encode() if config is not None else None
        for name, content in ([("config.json", raw)] if raw is not None else []) + list(members):
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                archive_.addfile(info)
            elif isinstance(content, str):
                info.type = tarfile.SYMTYPE if content.startswith("->") else tarfile.LNKTYPE
                info.linkname = content.lstrip("->=")
                archive_.addfile(info)
            else:
                info.size = len(content)
                archive_.addfile(info, io.BytesIO(content))
    buffer.seek(0)
    return buffer


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "plugins", PluginStore(Store(tmp_path / "state.db"), "kernel"))


async def stored(records: Records, name: str) -> ManagedPlugin:
    return await records.put(ManagedPlugin(Id=secrets.token_hex(32), Name=name))


async def test_names_and_ids(records: Records) -> None:
    plugin = await stored(records, normal_name("me/vol"))
    assert plugin.Name == "me/vol:latest"
    for ref in ("me/vol", "me/vol:latest", plugin.Id, plugin.Id[:8]):
        assert records.get(ref) == plugin
    with pytest.raises(Conflict, match="already exists"):
        await stored(records, "me/vol:latest")
    await records.delete(plugin.Id)
    with pytest.raises(NotFound, match='plugin "me/vol" not found'):
        records.get("me/vol")


def split(*members: tuple[str, object], config: object = CONFIG) -> tuple[archive.Contents, dict[str, tarfile.TarInfo]]:
    layer = io.BytesIO()
    contents = archive.split(tar(*members, config=config), layer)
    layer.seek(0)
    with tarfile.open(fileobj=layer) as opened:
        return contents, {member.name: member for member in opened}


def test_rootfs_becomes_a_layer() -> None:
    contents, members = split(("rootfs", None), ("rootfs/bin/p", b"binary"), ("rootfs/q", "=rootfs/bin/p"))
    assert json.loads(contents.config)["description"] == "a volume plugin"
    assert members["bin/p"].size == 6
    assert members["q"].linkname == "bin/p"


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("rootfs", None), ("rootfs/../../evil", b"x")], "unsafe path"),
        ([("rootfs", "->/etc"), ("rootfs/evil", b"x")], "something other than a directory"),
        ([("rootfs", None), ("rootfs/p", "=/etc/passwd")], "which is not in rootfs"),
        ([("rootfs", None), ("rootfs/p", "=../../etc/passwd")], "unsafe path"),
        ([], "no rootfs directory"),
    ],
)
def test_a_hostile_archive_is_refused(members: list[tuple[str, object]], message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        split(*members)


def test_what_is_joined_can_be_split_again() -> None:
    layer = io.BytesIO()
    contents = archive.split(tar(("rootfs", None), ("rootfs/p", b"binary")), layer)
    layer.seek(0)
    joined, again = io.BytesIO(), io.BytesIO()
    archive.join(archive.Contents(contents.config, b'{"Name": "x"}'), [layer], joined)
    joined.seek(0)
    assert archive.split(joined, again) == archive.Contents(contents.config, b'{"Name": "x"}')


FULL = {
    "interface": {"types": ["docker.volumedriver/1.0"], "socket": "p.sock"},
    "entrypoint": ["/p"],
    "env": [
        {"name": "A", "settable": ["value"], "value": "1"},
        {"name": "B"},
        {"name": "KEY", "settable": ["value"], "secret": True},
    ],
    "args": {"name": "args", "settable": ["value"], "value": ["x"]},
    "mounts": [{"name": "m", "settable": ["source"], "source": "/tmp", "destination": "/mm", "type": "bind"}],
    "network": {"type": "host"},
    "linux": {
        "capabilities": ["CAP_SYS_ADMIN"],
        "devices": [{"name": "fuse", "path": "/dev/fuse", "settable": ["path"]}],
    },
    "secrets": [{"name": "token"}],
    "pidhost": True,
}


def test_settings() -> None:
    config = schema.parse(json.dumps(FULL).encode())
    before = settings.default(config)
    changed = settings.apply(
        config, before, ["A=2", "args=a b", "m.source=/var", "fuse=/dev/null", "KEY=s3cret", "token=t"]
    )
    assert changed.settings["Env"] == ["A=2"]
    assert changed.settings["Args"] == ["a", "b"]
    assert changed.settings["Mounts"][0]["Source"] == "/var"
    assert changed.settings["Devices"][0]["Path"] == "/dev/null"
    assert changed.secrets == {"KEY": "s3cret", "token": "t"}
    shown = settings.shown(config, changed.settings, ["KEY", "token"])
    assert (
        "s3cret" not in json.dumps(shown) and shown["Env"] == ["A=2", "KEY=********"] and shown["Secrets"] == ["token"]
    )
    assert settings.carry_over(config, changed.settings, config)["Env"] == ["A=2"]
    assert settings.carry_over(config, changed.settings, config)["Mounts"][0]["Source"] == "/var"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("B=2", '"B" is not settable'),
        ("A.foo=1", '"A.foo" is not settable'),
        ("Z=2", 'setting "Z" not found'),
        ("=x", "invalid format"),
    ],
)
def test_what_cannot_be_set(change: str, message: str) -> None:
    config = schema.parse(json.dumps(FULL).encode())
    with pytest.raises(InvalidParameter, match=message):
        settings.apply(config, settings.default(config), ["A=3", change])


def test_privileges_in_dockers_order_and_compared_as_a_multiset() -> None:
    asked = privileges.of(schema.parse(json.dumps(FULL).encode()))
    assert [privilege.name for privilege in asked] == [
        "network",
        "host pid namespace",
        "mount",
        "device",
        "capabilities",
    ]
    privileges.check(asked, [*reversed(asked)])
    for wrong in (asked[:-1], [*asked, asked[0]], []):
        with pytest.raises(Forbidden, match="incorrect privileges"):
            privileges.check(asked, wrong)
    with pytest.raises(Forbidden, match="not granted: capabilities"):
        privileges.check(asked[-1:], [])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "no config.json"),
        ({}, "config.json: Interface: Field required"),
        ({"interface": {"types": ["nonsense"]}}, r"config.json: Interface.Types: .*'nonsense' is no interface type"),
        ({"interface": {"socket": "../x.sock"}}, "config.json: Interface.Socket"),
        ({"interface": {"types": ["docker.authz/1.0"]}, "entrypoint": ["/p"]}, "Interface.Socket must name"),
        ({"interface": {}}, "Entrypoint must name the program"),
        ({"interface": {}, "entrypoint": [""]}, "Entrypoint must name the program"),
        ({"interface": {}, "entrypoint": ["/p"], "network": {"type": "x"}}, "config.json: Network.Type"),
        ({"interface": {}, "mounts": [{"destination": "/a/../../b"}]}, "config.json: Mounts.0.Destination"),
        ({"interface": {}, "linux": {"devices": [{"path": "../x"}]}}, "config.json: Linux.Devices.0.Path"),
        ({"interface": {}, "propagatedmount": "/a/../b"}, "config.json: PropagatedMount"),
        ({"interface": {}, "env": [{"value": "x"}]}, "config.json: Env.0.Name: Field required"),
        ({"interface": {}, "mounts": {"a": 1}}, "config.json: Mounts"),
    ],
)
def test_a_bad_config_names_the_field(config: object, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        schema.parse(split(("rootfs", None), config=config)[0].config)


@pytest.mark.parametrize("name", ["", "UPPER", "a b", "a:b:c", "/x", "x/", "-x"])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidParameter, match=r"invalid reference format|must be lowercase"):
        normal_name(name)


def test_case_of_keys_does_not_matter() -> None:
    config = schema.parse(
        b'{"INTERFACE": {"Types": []}, "entrypoint": ["/p"], "workdir": "/w", "linux": {"allowalldevices": true}, "args": null}'
    )
    assert config["WorkDir"] == "/w"
    assert config["Linux"]["AllowAllDevices"] is True
    assert config["Args"]["Value"] == []

"""Managed plugins: archive and schema."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from kernel import guard
from kernel.dispatch import Dispatcher
from kernel.events import Bus
from kernel.hookspecs import MODULES
from kernel.managed import archive, schema
from kernel.managed.store import ManagedStore
from kernel.manager import HookManager
from kernel.state import Store
from kernel.state.store import PluginStore
from plugin_sdk import Conflict, InvalidParameter, NotFound

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
def store(tmp_path: Path) -> ManagedStore:
    manager = HookManager()
    for module in MODULES:
        manager.add_specifications(module)
    state = PluginStore(Store(tmp_path / "state.db"), "kernel")
    return ManagedStore(tmp_path / "plugins", state, Bus(), Dispatcher(manager, guard.Threads(), lambda *a: None))


async def test_create_keeps_config_and_rootfs(store: ManagedStore, tmp_path: Path) -> None:
    plugin = await store.create("me/vol", tar(("rootfs", None), ("rootfs/plugin", b"binary")))
    assert plugin.Name == "me/vol:latest"
    assert plugin.Settings["Env"] == ["DEBUG=0"]
    assert plugin.Config["Interface"]["Types"] == ["docker.volumedriver/1.0"]
    assert plugin.Config["mount"] == "a misspelt key is kept"
    assert (tmp_path / "plugins" / plugin.Id / "rootfs/plugin").read_bytes() == b"binary"
    for ref in ("me/vol", "me/vol:latest", plugin.Id, plugin.Id[:8]):
        assert store.get(ref) is not None
    with pytest.raises(Conflict, match="already exists"):
        await store.create("me/vol:latest", tar(("rootfs", None)))
    await store.remove("me/vol")
    assert list((tmp_path / "plugins").iterdir()) == []
    with pytest.raises(NotFound, match='plugin "me/vol" not found'):
        store.get("me/vol")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("rootfs", None), ("rootfs/../../evil", b"x")], "unsafe path"),
        ([("rootfs", None), ("rootfs/etc", "->/etc"), ("rootfs/etc/evil", b"x")], "which is no directory"),
        ([("rootfs", "->/etc"), ("rootfs/evil", b"x")], "which is no directory"),
        ([("rootfs", None), ("rootfs/p", "=/etc/passwd")], "which it does not hold"),
        ([("rootfs", None), ("rootfs/p", "=../../etc/passwd")], "unsafe path"),
        ([], "no rootfs directory"),
    ],
)
async def test_a_hostile_archive_is_refused_and_leaves_nothing(
    store: ManagedStore, tmp_path: Path, members: list, message: str
) -> None:
    with pytest.raises(InvalidParameter, match=message):
        await store.create("evil", tar(*members))
    assert list((tmp_path / "plugins").iterdir()) == []
    assert not list(tmp_path.glob("**/evil"))


def test_a_file_is_replaced_and_never_written_through_its_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    target = tmp_path / "target"
    target.mkdir()
    archive.unpack(tar(("rootfs", None), ("rootfs/f", f"->{outside}"), ("rootfs/f", b"theirs")), target)
    assert outside.read_text() == "mine"
    assert (target / "rootfs/f").read_text() == "theirs"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "no config.json"),
        ({}, "config.json: Interface: Field required"),
        ({"interface": {"types": ["nonsense"]}}, r"config.json: Interface.Types: .*'nonsense' is no interface type"),
        ({"interface": {"socket": "../x.sock"}}, "config.json: Interface.Socket"),
        ({"interface": {}, "propagatedmount": "/a/../b"}, "config.json: PropagatedMount"),
        ({"interface": {}, "env": [{"value": "x"}]}, "config.json: Env.0.Name: Field required"),
        ({"interface": {}, "mounts": {"a": 1}}, "config.json: Mounts"),
    ],
)
async def test_a_bad_config_names_the_field(store: ManagedStore, config: object, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        await store.create("bad", tar(("rootfs", None), config=config))


@pytest.mark.parametrize("name", ["", "UPPER", "a b", "a:b:c", "/x", "x/", "-x"])
async def test_a_bad_name_is_refused(store: ManagedStore, name: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid reference format"):
        await store.create(name, tar(("rootfs", None)))


def test_case_of_keys_does_not_matter() -> None:
    config = schema.parse(
        b'{"INTERFACE": {"Types": []}, "workdir": "/w", "linux": {"allowalldevices": true}, "args": null}'
    )
    assert config["WorkDir"] == "/w"
    assert config["Linux"]["AllowAllDevices"] is True
    assert config["Args"]["Value"] == []

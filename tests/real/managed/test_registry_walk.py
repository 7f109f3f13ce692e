"""Docker 1.13's own example: create, push to a registry, remove, install from it, set, upgrade."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from harness import Client, Registry

pytestmark = pytest.mark.real


def privileged(folder: Path, built: Path, **config: object) -> Path:
    """The C example with another config."""
    shutil.copytree(built, folder)
    told = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps(told))
    return folder


@pytest.mark.parametrize("users", [{}, {"ann": "secret"}])
def test_push_and_install(engine: Client, built: Path, users: dict[str, str]) -> None:
    with Registry(netns=engine.netns, users=users) as registry:
        name = f"{registry.host}/me/{engine.name()}:1.0"
        if users:
            engine.docker("login", "-u", "ann", "-p", "secret", registry.host)
        engine.docker("plugin", "create", name, built)
        pushed = engine.docker("plugin", "push", name).stdout
        assert "digest: sha256:" in pushed
        engine.docker("plugin", "rm", name)
        engine.docker("plugin", "install", "--grant-all-permissions", name, "DEBUG=1")
        shown = json.loads(engine.docker("plugin", "inspect", name).stdout)[0]
        assert shown["Enabled"] is True
        assert shown["Settings"]["Env"] == ["DEBUG=1"]
        assert shown["PluginReference"] == name
        again = engine.docker("plugin", "push", name).stdout
        assert "already exists" in again
        assert pushed.split("digest: ")[1].split()[0] == again.split("digest: ")[1].split()[0]
        engine.docker("plugin", "disable", name)
        engine.docker("plugin", "rm", name)
        engine.docker("plugin", "install", "--disable", "--alias", "mine", "--grant-all-permissions", name)
        assert "mine:latest false" in engine.docker("plugin", "ls", "--format", "{{.Name}} {{.Enabled}}").stdout
        engine.docker("plugin", "rm", "mine")
        if users:
            engine.docker("logout", registry.host)


def test_privileges_are_shown_asked_for_and_held_to(engine: Client, built: Path, tmp_path: Path) -> None:
    config = {"network": {"type": "host"}, "linux": {"capabilities": ["CAP_SYS_ADMIN"]}}
    with Registry(netns=engine.netns) as registry:
        name = f"{registry.host}/me/{engine.name()}:1.0"
        engine.docker("plugin", "create", name, privileged(tmp_path / "p", built, **config))
        engine.docker("plugin", "push", name)
        engine.docker("plugin", "rm", name)
        told = engine.http("GET", f"/plugins/privileges?remote={name}").json()
        assert [(each["Name"], each["Value"]) for each in told] == [
            ("network", ["host"]),
            ("capabilities", ["CAP_SYS_ADMIN"]),
        ]
        refused = engine.http("POST", f"/plugins/pull?remote={name}", json.dumps(told[:1]).encode())
        assert refused.status == 403
        assert "not granted: capabilities" in refused.json()["message"]
        assert name not in engine.docker("plugin", "ls").stdout


def test_upgrade_keeps_settings_and_rolls_back(engine: Client, built: Path, tmp_path: Path) -> None:
    with Registry(netns=engine.netns) as registry:
        base = f"{registry.host}/me/{engine.name()}"
        good = privileged(tmp_path / "good", built, description="the second")
        bad = privileged(tmp_path / "bad", built, entrypoint=["/no/such/program"])
        for tag, folder in (("1", built), ("2", good), ("3", bad)):
            engine.docker("plugin", "create", f"{base}:{tag}", folder)
            engine.docker("plugin", "push", f"{base}:{tag}")
            engine.docker("plugin", "rm", f"{base}:{tag}")
        engine.docker("plugin", "install", "--alias", base, "--grant-all-permissions", f"{base}:1", "DEBUG=7")
        upgraded = engine.http("POST", f"/plugins/{base}/upgrade?remote={base}:2", b"[]")
        assert b"Downloaded newer" in upgraded.body and b"error" not in upgraded.body, upgraded.body
        shown = json.loads(engine.docker("plugin", "inspect", base).stdout)[0]
        assert shown["Config"]["Description"] == "the second"
        assert shown["Settings"]["Env"] == ["DEBUG=7"]
        assert shown["Enabled"] is True
        failed = engine.http("POST", f"/plugins/{base}/upgrade?remote={base}:3", b"[]")
        assert b"the upgrade was undone" in failed.body
        shown = json.loads(engine.docker("plugin", "inspect", base).stdout)[0]
        assert shown["Config"]["Description"] == "the second"
        assert shown["Status"]["State"] == "ready" if "Status" in shown else shown["Enabled"]
        engine.docker("plugin", "rm", "-f", base)


def test_what_cannot_be_installed(engine: Client) -> None:
    with Registry(netns=engine.netns) as registry:
        missing = engine.docker(
            "plugin", "install", "--grant-all-permissions", f"{registry.host}/no/such:1", check=False
        )
        assert missing.returncode == 1
        assert "not found" in missing.stderr or "manifest unknown" in missing.stderr


def test_by_digest_and_by_dockers_own_upgrade(engine: Client, built: Path, tmp_path: Path) -> None:
    with Registry(netns=engine.netns) as registry:
        base = f"{registry.host}/me/{engine.name()}"
        digests = {}
        for tag, folder in (("1", built), ("2", privileged(tmp_path / "2", built, description="the second"))):
            engine.docker("plugin", "create", f"{base}:{tag}", folder)
            digests[tag] = engine.docker("plugin", "push", f"{base}:{tag}").stdout.split("digest: ")[1].split()[0]
            engine.docker("plugin", "rm", f"{base}:{tag}")
        pinned = f"{base}@{digests['1']}"
        engine.docker("plugin", "install", "--grant-all-permissions", "--alias", "pinned", pinned)
        assert json.loads(engine.docker("plugin", "inspect", "pinned").stdout)[0]["PluginReference"] == pinned
        busy = engine.docker("plugin", "upgrade", "--grant-all-permissions", "pinned", f"{base}:2", check=False)
        assert busy.returncode == 1 and "disabled before upgrading" in busy.stderr
        engine.docker("plugin", "disable", "pinned")
        upgrade = ["plugin", "upgrade", "--grant-all-permissions", "--skip-remote-check", "pinned", f"{base}:2"]
        assert "Upgraded plugin pinned:latest to" in engine.docker(*upgrade).stdout
        engine.docker("plugin", "enable", "pinned")
        shown = json.loads(engine.docker("plugin", "inspect", "pinned").stdout)[0]
        assert shown["Config"]["Description"] == "the second"
        engine.docker("plugin", "rm", "-f", "pinned")


def test_docker_py(engine: Client, built: Path) -> None:
    with Registry(netns=engine.netns) as registry:
        name = f"{registry.host}/me/{engine.name()}:1"
        api = engine.api()
        plugin = api.plugins.create(name, str(built))
        assert plugin.enabled is False
        list(plugin.push())
        plugin.remove()
        plugin = api.plugins.install(name)
        plugin.configure({"DEBUG": "5"})
        plugin.enable(timeout=20)
        plugin.reload()
        assert plugin.enabled and plugin.settings["Env"] == ["DEBUG=5"]
        plugin.disable()
        list(plugin.upgrade())
        plugin.remove(force=True)


def test_a_pull_that_is_cut_off_leaves_nothing(engine: Client, built: Path, tmp_path: Path) -> None:
    with Registry(netns=engine.netns) as registry:
        name = f"{registry.host}/me/{engine.name()}:1"
        engine.docker("plugin", "create", name, built)
        engine.docker("plugin", "push", name)
        engine.docker("plugin", "rm", name)
        manifests = list((registry.folder / "data").rglob("data"))
        largest = max(manifests, key=lambda path: path.stat().st_size)
        largest.write_bytes(largest.read_bytes()[:-100])
        before = engine.docker("plugin", "ls", "-q").stdout
        refused = engine.docker("plugin", "install", "--grant-all-permissions", name, check=False)
        assert refused.returncode == 1
        assert engine.docker("plugin", "ls", "-q").stdout == before

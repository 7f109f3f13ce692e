"""Our own command: `engine run`, `ps`, `images`, `import`, `plugin`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from harness import Client, External, Terminal
from harness.engine import PROGRAM

pytestmark = pytest.mark.real


@pytest.fixture(autouse=True)
def ours(engine: Client) -> None:
    if isinstance(engine, External):
        pytest.skip("asks for our own routes")


def test_help_and_version() -> None:
    shown = subprocess.run([PROGRAM, "--help"], capture_output=True, text=True, check=True, timeout=20).stdout
    assert {"daemon", "images", "import", "plugin", "ps", "run"} <= set(shown.split())
    flags = subprocess.run([PROGRAM, "daemon", "--help"], capture_output=True, text=True, check=True, timeout=20).stdout
    for flag in ("--data-root", "--bip", "--log-driver", "--storage-opt", "--tlsverify", "--default-ulimit"):
        assert flag in flags
    unknown = subprocess.run([PROGRAM, "no-such"], capture_output=True, text=True, check=False, timeout=20)
    assert unknown.returncode == 2
    assert "no-such" in unknown.stderr


def test_run_ps_images_import(engine: Client, busybox_tar: Path) -> None:
    image, name = f"{engine.name('image')}:x", engine.name()
    assert engine.engine("import", busybox_tar, image).stdout.strip().startswith("sha256:")
    assert image.split(":", maxsplit=1)[0] in engine.engine("images").stdout
    try:
        assert engine.engine("run", "--rm", image, "echo", "hello").stdout == "hello\n"
        for code in (0, 42, 255):
            assert engine.engine("run", "--rm", image, "sh", "-c", f"exit {code}", check=False).returncode == code
        assert engine.engine("run", "--rm", image, "no-such-program", check=False).returncode == 127
        assert engine.engine("run", "--rm", "no-such-image:x", check=False).returncode == 125
        cid = engine.engine("run", "-d", "--name", name, "-e", "A=b", image, "sleep", "600").stdout.strip()
        assert engine.inspect(name)["Id"] == cid
        assert name in engine.engine("ps").stdout
        engine.docker("rm", "-f", name)
        assert name not in engine.engine("ps", "-a").stdout
    finally:
        engine.docker("rm", "-f", name, check=False)
        engine.docker("rmi", "-f", image)


def test_run_on_a_terminal(engine: Client) -> None:
    with Terminal(
        [str(PROGRAM), "run", "--rm", "-it", engine.image, "sh"], env=engine.env({"TERM": "xterm"})
    ) as terminal:
        terminal.expect("# ")
        terminal.send("echo sum $((6*7))\n")
        terminal.expect("^sum 42$")
        terminal.send("exit 7\n")
        assert terminal.wait() == 7


def test_managed_plugin_from_create_to_rm(engine: Client, tmp_path: Path) -> None:
    name = f"test/{engine.name('plugin')}:v1"
    config = {
        "description": "for a test",
        "entrypoint": ["/bin/sh"],
        "interface": {"types": ["docker.volumedriver/1.0"], "socket": "p.sock"},
        "env": [{"name": "LEVEL", "value": "3", "settable": ["value"]}],
    }
    (tmp_path / "rootfs/bin").mkdir(parents=True)
    (tmp_path / "rootfs/bin/sh").write_text("not really")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert engine.engine("plugin", "create", name, tmp_path).stdout.strip() == name
    try:
        assert name in engine.engine("plugin", "ls").stdout
        shown = json.loads(engine.docker("plugin", "inspect", name).stdout)[0]
        assert shown["Name"] == name
        assert shown["Enabled"] is False
        assert shown["Config"]["Description"] == "for a test"
        assert shown["Settings"]["Env"] == ["LEVEL=3"]
        again = engine.docker("plugin", "create", name, tmp_path, check=False)
        assert again.returncode == 1
        assert "already exists" in again.stderr or "in use" in again.stderr
        assert name in engine.docker("plugin", "ls", "--format", "{{.Name}}").stdout
    finally:
        assert engine.engine("plugin", "rm", name).stdout.strip() == name
    assert engine.docker("plugin", "inspect", name, check=False).returncode == 1
    assert engine.http("GET", f"/v1.45/plugins/{name}/json").status == 404


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{broken", "config.json"),
        ('{"interface": {"types": [], "socket": "x"}, "entrypoint": 5}', "entrypoint"),
        ('{"interface": {"types": 3}}', "types"),
    ],
)
def test_bad_plugin_is_refused(engine: Client, tmp_path: Path, config: str, words: str) -> None:
    (tmp_path / "rootfs").mkdir()
    (tmp_path / "config.json").write_text(config)
    before = engine.engine("plugin", "ls").stdout
    done = engine.engine("plugin", "create", f"test/{engine.name('plugin')}", tmp_path, check=False)
    assert done.returncode == 1
    assert words in (done.stdout + done.stderr).lower()
    assert engine.engine("plugin", "ls").stdout == before


def test_plugins_in_the_daemon_are_listed(engine: Client) -> None:
    rows = engine.engine("plugin", "ls", "--all").stdout
    assert "storage_overlay2" in rows
    essential = engine.engine("plugin", "disable", "api_server", check=False)
    assert essential.returncode == 1
    needed = engine.engine("plugin", "disable", "images", check=False)
    assert needed.returncode == 1
    assert "needed by" in needed.stderr or "essential" in needed.stderr
    unknown = engine.engine("plugin", "enable", "no-such-plugin", check=False)
    assert unknown.returncode == 1
    assert "no-such-plugin" in unknown.stderr

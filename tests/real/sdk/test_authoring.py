"""What `engine plugin init` and `engine plugin build` make, at work in an engine."""

from __future__ import annotations

import ipaddress
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Client, Engine, eventually

from plugin_sdk.authoring.scaffold import create

pytestmark = pytest.mark.real

Enabled = Callable[..., str]
Built = Callable[[str], Path]


def test_volume_plugin_keeps_data(engine: Client, enabled: Enabled) -> None:
    plugin = enabled("volume")
    volume, image = engine.name(), engine.image
    engine.docker("volume", "create", "-d", plugin, "-o", "mode=777", volume)
    engine.docker("run", "--rm", "-v", f"{volume}:/data", image, "sh", "-c", "echo kept > /data/file")
    held = engine.docker("plugin", "disable", plugin, check=False)
    assert volume in held.stderr, "the volume holds the plugin"
    engine.docker("plugin", "disable", "-f", plugin)
    engine.docker("plugin", "enable", plugin)
    read = engine.docker("run", "--rm", "-v", f"{volume}:/data", image, "cat", "/data/file")
    assert read.stdout == "kept\n"
    refused = engine.docker("volume", "create", "-d", plugin, "-o", "colour=red", engine.name(), check=False)
    assert "unknown option 'colour'; there is: mode" in refused.stderr
    engine.docker("volume", "rm", volume)


def test_ipam_plugin_gives_addresses(engine: Client, enabled: Enabled) -> None:
    plugin = enabled("ipam", "RANGES=10.219.0.0/16")
    network, image = engine.name(), engine.image
    engine.docker("network", "create", "--ipam-driver", plugin, network)
    try:
        shown = engine.docker(
            "run", "--rm", "--network", network, image, "ip", "-4", "-o", "addr", "show", "eth0"
        ).stdout
        address = ipaddress.ip_interface(shown.split()[3])
        assert address.network.subnet_of(ipaddress.ip_network("10.219.0.0/16"))
        engine.docker("plugin", "disable", "-f", plugin)
        engine.docker("plugin", "enable", plugin)
        again = engine.docker(
            "run", "--rm", "--network", network, image, "ip", "-4", "-o", "addr", "show", "eth0"
        ).stdout
        assert ipaddress.ip_interface(again.split()[3]).network == address.network, "it knows its pools again"
    finally:
        engine.docker("network", "rm", network)


def test_network_plugin_joins_containers(engine: Client, enabled: Enabled) -> None:
    plugin = enabled("network")
    network, one, image = engine.name(), engine.name(), engine.image
    engine.docker("network", "create", "-d", plugin, "--subnet", "10.218.7.0/24", network)
    try:
        engine.docker("run", "-d", "--name", one, "--network", network, image, "sleep", "1000")
        ping = engine.docker("run", "--rm", "--network", network, image, "ping", "-c", "1", "-w", "5", one)
        assert "1 packets received" in ping.stdout
    finally:
        engine.docker("rm", "-f", one)
        engine.docker("network", "rm", network)


def test_log_plugin_gives_back_what_was_written(engine: Client, enabled: Enabled) -> None:
    plugin = enabled("log")
    name = engine.name()
    engine.docker("run", "--name", name, "--log-driver", plugin, engine.image, "sh", "-c", "echo one; echo two >&2")
    try:
        logs = engine.docker("logs", name)
        assert (logs.stdout, logs.stderr) == ("one\n", "two\n")
    finally:
        engine.docker("rm", "-f", name)


def test_authz_plugin_refuses(own_engine: Callable[..., Engine], built: Built) -> None:
    engine = own_engine()
    engine.docker("plugin", "create", "guard", built("authz"), timeout=120)
    engine.docker("plugin", "set", "guard", "DENY=* DELETE /volumes")
    engine.docker("plugin", "enable", "guard")
    engine.stop()
    engine.flags.append("--authorization-plugin=guard")
    engine.start()
    # The API answers before managed plugins are up again, and until then nothing passes.
    eventually(lambda: engine.docker("volume", "create", "precious", check=False).returncode == 0, timeout=15)
    refused = engine.docker("volume", "rm", "precious", check=False)
    assert "guard" in refused.stderr and "you may not DELETE /volumes/precious" in refused.stderr
    assert "precious" in engine.docker("volume", "ls").stdout
    engine.stop()
    engine.flags.remove("--authorization-plugin=guard")
    engine.start()
    engine.docker("plugin", "rm", "-f", "guard")


def test_metrics_plugin_collects(engine: Client, enabled: Enabled) -> None:
    plugin = enabled("metrics", "INTERVAL=0.2", "PREFIXES=engine_daemon_events")
    identity = json.loads(engine.docker("plugin", "inspect", plugin).stdout)[0]["Id"]
    assert isinstance(engine, Engine)

    def rows() -> list[str]:
        found = [path for path in engine.root.rglob("metrics.jsonl") if identity in str(path)]
        return found[0].read_text().splitlines() if found else []

    eventually(lambda: len(rows()) > 2, timeout=10)
    assert "engine_daemon_events_total" in json.loads(rows()[-1])


def test_the_tree_is_the_same_every_time(engine: Client, built: Built, tmp_path: Path) -> None:
    first = built("volume")
    engine.engine("plugin", "build", first.parent / "project", "-o", tmp_path / "again", timeout=300)
    assert listing(tmp_path / "again") == listing(first)
    differing = subprocess.run(
        ["diff", "-r", "--no-dereference", first, tmp_path / "again"], capture_output=True, text=True, check=False
    )
    assert differing.returncode == 0, differing.stdout


def listing(folder: Path) -> list[tuple[str, int, int, float]]:
    """Name, mode, size and time of all in it."""
    found = []
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        size = 0 if path.is_dir() else status.st_size
        found.append((str(path.relative_to(folder)), status.st_mode, size, status.st_mtime))
    return found


def test_dependencies_come_from_this_environment(engine: Client, tmp_path: Path) -> None:
    create("acme-volume", "volume", tmp_path / "project", managed=True)
    settings = tmp_path / "project/pyproject.toml"
    settings.write_text(
        settings.read_text().replace(
            "dependencies = []", 'dependencies = ["engine", "orjson>=3", "tomli; python_version < \'3\'"]'
        )
    )
    driver = tmp_path / "project/acme_volume/driver.py"
    driver.write_text(driver.read_text().replace("import os\n", "import os\nimport orjson\n"))
    engine.engine("plugin", "build", tmp_path / "project", timeout=300)
    library = tmp_path / "project/build/rootfs/plugin/lib"
    assert (library / "orjson/__init__.py").exists()
    assert not (library / "fastapi").exists(), "of the engine itself only the SDK goes along"
    engine.engine("plugin", "build", tmp_path / "project", timeout=300)
    assert not (library / "build").exists(), "what was built before is replaced, and not taken along"
    config = json.loads((tmp_path / "project/build/config.json").read_text())
    assert config["interface"]["types"] == ["docker.volumedriver/1.0"]
    settings.write_text(settings.read_text().replace("orjson>=3", "no-such-distribution-of-anybody>=9"))
    failed = engine.engine("plugin", "build", tmp_path / "project", check=False, timeout=300)
    assert failed.returncode == 1 and "no-such-distribution-of-anybody" in failed.stderr
    assert (library / "orjson/__init__.py").exists(), "a build that fails leaves the last one"


def test_the_root_file_system_needs_nothing_else(engine: Client, built: Built, tmp_path: Path) -> None:
    archive = tmp_path / "rootfs.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(built("volume") / "rootfs", arcname=".")
    image = engine.name()
    engine.docker("import", archive, image, timeout=120)
    try:
        code = "import ssl, sqlite3, ctypes, socket, bz2, lzma; print(len(ssl.create_default_context().get_ca_certs()))"
        done = engine.docker("run", "--rm", image, "/usr/local/bin/python3", "-I", "-c", code)
        assert done.stdout.strip().isdecimal()
        code = "import sys; sys.path.insert(0, '/plugin/lib'); import plugin_sdk.serving.server as s; print(s.__file__)"
        done = engine.docker("run", "--rm", image, "/usr/local/bin/python3", "-I", "-c", code)
        assert done.stdout == "/plugin/lib/plugin_sdk/serving/server.py\n"
        listed = engine.docker(
            "run", "--rm", image, "/usr/local/bin/python3", "-c", "import os; print(os.listdir('/plugin/lib'))"
        )
        assert not {"fastapi", "grpc", "pyroute2", "docker", "aiohttp"} & set(
            json.loads(listed.stdout.replace("'", '"'))
        )
    finally:
        engine.docker("rmi", image)


def test_a_plugin_out_of_an_image(engine: Client, tmp_path: Path) -> None:
    config = {
        "description": "shell",
        "interface": {"types": [], "socket": ""},
        "entrypoint": ["/bin/sh", "-c", "echo it runs; sleep 1000"],
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    engine.engine("plugin", "-H", engine.host, "build", tmp_path, "-o", tmp_path / "out", "--from-image", engine.image)
    name = engine.name()
    engine.docker("plugin", "create", name, tmp_path / "out")
    try:
        engine.docker("plugin", "enable", name)
        eventually(lambda: b"it runs" in engine.http("GET", f"/engine/managed/{name}/logs").body, timeout=5)
    finally:
        engine.docker("plugin", "rm", "-f", name)
    missing = engine.engine(
        "plugin", "-H", engine.host, "build", tmp_path, "-o", tmp_path / "no", "--from-image", "nope", check=False
    )
    assert missing.returncode == 1 and "nope" in missing.stderr
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("kind", ["volume", "network", "ipam", "log", "authz", "metrics"])
def test_in_process_plugin(own_engine: Callable[..., Engine], tmp_path: Path, kind: str) -> None:
    site = tmp_path / "site"
    create(f"acme-{kind}", kind, tmp_path / "project", managed=False)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    install = [sys.executable, "-m", "pip", "install", *options, "--target", site, tmp_path / "project"]
    subprocess.run(install, check=True, timeout=120)
    engine = own_engine(environment={"PYTHONPATH": str(site)})
    listed = engine.engine("plugin", "-H", engine.host, "ls", "--all").stdout
    row = next(line for line in listed.splitlines() if line.startswith(f"acme_{kind}"))
    assert "enabled" in row
    use = {
        "volume": ["volume", "create", "-d", "acme-volume", "data"],
        "network": ["network", "create", "-d", "acme-network", "net"],
        "ipam": ["network", "create", "--ipam-driver", "acme-ipam", "net"],
        "log": ["run", "--name", "box", "--log-driver", "acme-log", "busybox", "echo", "hi"],
    }
    if kind in use:
        engine.docker(*use[kind])
    if kind == "log":
        assert engine.docker("logs", "box").stdout == "hi\n"

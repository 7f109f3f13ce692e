"""What docs/plugins/replacing.md says of an engine without one of its plugins."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from harness import Engine

pytestmark = pytest.mark.real


def states(engine: Engine) -> dict[str, str]:
    return {plugin["Name"]: plugin["State"] for plugin in engine.http("GET", "/engine/plugins").json()}


def test_without_logging(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine("--block-plugin", "logging")
    assert engine.docker("run", "--name", "quiet", engine.image, "echo", "attached").stdout == "attached\n"
    assert "page not found" in engine.docker("logs", "quiet", check=False).stderr


def test_without_net_bridge(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine("--block-plugin", "net_bridge")
    refused = engine.docker("run", "--rm", engine.image, "true", check=False)
    assert "network bridge not found" in refused.stderr
    shown = engine.docker("run", "--rm", "--network", "none", engine.image, "ls", "/sys/class/net").stdout
    assert shown == "lo\n"


def test_without_a_storage_driver(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine("--block-plugin", "storage_overlay2", image=False)
    found = states(engine)
    assert (found["images"], found["containers"]) == ("failed", "failed")
    assert found["networks"] == "enabled"


def test_without_system_or_plugin_admin(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine("--block-plugin", "system", "--block-plugin", "plugin_admin")
    assert engine.docker("run", "--rm", engine.image, "echo", "runs").stdout == "runs\n"
    assert engine.http("GET", "/plugins").status == 404


def test_without_networks_or_volumes_what_is_asked_of_them_is_refused(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine("--block-plugin", "networks", "--block-plugin", "volumes")
    for mode in ("none", "bridge"):
        refused = engine.docker("run", "--rm", "--network", mode, engine.image, "true", check=False)
        assert refused.returncode == 125
        assert f"--network {mode}: no enabled plugin provides Networks" in refused.stderr
    refused = engine.docker("run", "--rm", "--network", "host", "-v", "/etc:/x", engine.image, "true", check=False)
    assert "no enabled plugin provides Volumes" in refused.stderr
    assert engine.docker("run", "--rm", "--network", "host", engine.image, "echo", "runs").stdout == "runs\n"

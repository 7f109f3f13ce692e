"""Each hook comes when the author's page (docs/plugins/hooks.md) says, seen by a plugin from outside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Engine, eventually

pytestmark = pytest.mark.real


@pytest.fixture
def engine(own_engine: Callable[..., Engine], thirdparty: Path) -> Engine:
    return own_engine("--block-plugin", "sample", environment={"PYTHONPATH": str(thirdparty)})


def seen(engine: Engine, hook: str = "engine_") -> list[list[object]]:
    """What the witness was asked so far: [hook, facts...]."""
    rows: list[list[object]] = engine.http("GET", "/v1.45/witness").json()
    return [row for row in rows if str(row[0]).startswith(hook)]


def test_the_hooks_of_a_containers_life_come_in_order(engine: Engine) -> None:
    done = engine.docker(
        "create", "--name", "life", "-v", "/anonymous", engine.image, "sh", "-c", "echo $WITNESSED; exit 3"
    )
    assert "the witness is watching" in done.stderr
    assert seen(engine, "engine_container") == [["engine_container_validate"], ["engine_container_create", True]]
    for _ in range(2):
        assert engine.docker("start", "-a", "life", check=False).stdout == "yes\n"
    engine.docker("rm", "-v", "life")
    run = [
        ["engine_container_prepare", "life", True],
        ["engine_oci_spec", "life"],
        ["engine_container_started", "life"],
        ["engine_container_release", "life", 3],
    ]

    def life() -> list[list[object]]:
        return [row for row in seen(engine) if str(row[0]).startswith(("engine_container", "engine_oci_spec"))]

    expected = [["engine_container_validate"], ["engine_container_create", True], *run, *run]
    expected.append(["engine_container_remove", "life", True])
    eventually(lambda: len(life()) >= len(expected))
    # `started` is told after the fact, and may come behind the end of a short run.
    assert sorted(map(str, life())) == sorted(map(str, expected))
    assert [row for row in life() if row[0] != "engine_container_started"] == [
        row for row in expected if row[0] != "engine_container_started"
    ]


def test_a_start_that_fails_is_released_without_an_exit(engine: Engine) -> None:
    done = engine.docker("run", "--rm", "--name", "bad", engine.image, "/no/such/program", check=False)
    assert done.returncode == 127
    eventually(lambda: seen(engine, "engine_container_remove"))
    assert ["engine_container_prepare", "bad", True] in seen(engine)
    assert ["engine_container_release", "bad", None] in seen(engine)
    assert not seen(engine, "engine_container_started")


def test_engine_authorize_refuses_and_names_the_reason(engine: Engine) -> None:
    answer = engine.http("GET", "/v1.45/containers/json?filters=%7B%7D&forbidden=1")
    assert answer.status == 403
    assert "GET /containers/json: the witness objects" in answer.message
    assert engine.http("GET", "/_ping?forbidden=1").status == 403


def test_engine_driver_missing_brings_a_driver_at_its_first_use(engine: Engine) -> None:
    engine.docker("volume", "create", "-d", "late", "v1")
    engine.docker("volume", "create", "-d", "late", "v2")
    asked = [row for row in seen(engine, "engine_driver_missing") if row[2] == "late"]
    assert asked == [["engine_driver_missing", "VolumeDriver", "late"]]
    refused = engine.docker("volume", "create", "-d", "never", "v3", check=False)
    assert refused.returncode == 1
    engine.docker("volume", "rm", "v1", "v2")


def test_engine_ready_event_info_and_drivers(engine: Engine) -> None:
    eventually(lambda: seen(engine, "engine_ready"))
    assert seen(engine, "engine_ready") == [["engine_ready", engine.host]]
    assert seen(engine, "engine_drivers") == [["engine_drivers"]]
    engine.docker("volume", "create", "vol")
    engine.docker("volume", "rm", "vol")
    told = [row[1:] for row in seen(engine, "engine_event")]
    eventually(lambda: ["volume", "destroy"] in [row[1:] for row in seen(engine, "engine_event")])
    told = [row[1:] for row in seen(engine, "engine_event")]
    assert told.index(["volume", "create"]) < told.index(["volume", "destroy"])
    assert "WARNING: a witness is present" in engine.http("GET", "/v1.45/info").json()["Warnings"]


def test_engine_holders_keeps_an_object(engine: Engine) -> None:
    engine.docker("volume", "create", "precious")
    refused = engine.docker("volume", "rm", "precious", check=False)
    assert refused.returncode == 1
    assert "volume is in use" in refused.stderr
    assert "w1" in refused.stderr or "the-witness" in refused.stderr
    engine.engine("plugin", "disable", "witness")
    engine.docker("volume", "rm", "precious")


def test_the_hooks_of_networks(engine: Engine) -> None:
    # engine_predefined_networks
    assert "stage" in engine.docker("network", "ls", "--format", "{{.Name}}").stdout.split()
    assert engine.docker("network", "rm", "stage", check=False).returncode == 1
    engine.docker("network", "create", "net")
    engine.docker("run", "-d", "--name", "actor", "--network", "net", engine.image, "sleep", "600")
    # engine_resolve_name
    shown = engine.docker("exec", "actor", "nslookup", "oracle", check=False).stdout
    assert "192.0.2.99" in shown
    assert ["engine_resolve_name", "net", "oracle"] in seen(engine)
    # engine_endpoint_changed
    engine.docker("network", "connect", "stage", "actor")
    engine.docker("network", "disconnect", "stage", "actor")
    engine.docker("rm", "-f", "actor")
    expected = [["connected", "net"], ["connected", "stage"], ["disconnected", "stage"], ["disconnected", "net"]]
    eventually(lambda: [row[1:3] for row in seen(engine, "engine_endpoint_changed")] == expected)
    engine.docker("network", "rm", "net")

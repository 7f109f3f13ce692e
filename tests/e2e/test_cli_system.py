"""version, info, events and the headers that clients read."""

from __future__ import annotations

import json
import time

import pytest
from harness import Client, eventually

pytestmark = pytest.mark.real


def test_version(engine: Client) -> None:
    shown = json.loads(engine.docker("version", "--format", "{{json .}}").stdout)
    server = shown["Server"]
    assert server["Os"] == "linux"
    assert server["MinAPIVersion"] == "1.24"
    assert tuple(map(int, server["ApiVersion"].split("."))) >= (1, 45)
    assert server["Version"]
    assert server["KernelVersion"]
    assert "Server:" in engine.docker("version").stdout


def test_info(engine: Client) -> None:
    info = json.loads(engine.docker("info", "--format", "{{json .}}").stdout)
    assert info["Driver"] == "overlay2"
    assert info["OSType"] == "linux"
    assert info["NCPU"] > 0
    assert info["MemTotal"] > 2**20
    assert info["Containers"] == info["ContainersRunning"] + info["ContainersPaused"] + info["ContainersStopped"]
    assert {"json-file", "local", "none"} <= set(info["Plugins"]["Log"]) | {"none"}
    assert "local" in info["Plugins"]["Volume"]
    assert {"bridge", "host", "null"} <= set(info["Plugins"]["Network"])
    assert info["CgroupVersion"] in ("1", "2")
    assert info["DefaultRuntime"] in info["Runtimes"]
    assert info["Swarm"]["LocalNodeState"] == "inactive"
    text = engine.docker("info").stdout
    assert " Storage Driver: overlay2" in text


def test_ping_has_the_headers(engine: Client) -> None:
    for method in ("GET", "HEAD"):
        answer = engine.http(method, "/_ping")
        assert answer.status == 200
        assert answer.body == (b"OK" if method == "GET" else b"")
        assert answer.headers["Api-Version"]
        assert answer.headers["Docker-Experimental"] in ("true", "false")
        assert answer.headers["Ostype"] == "linux"
        assert answer.headers["Server"].startswith("Docker/")


@pytest.mark.parametrize("prefix", ["", "/v1.24", "/v1.45"])
def test_paths_work_bare_and_versioned(engine: Client, prefix: str) -> None:
    assert engine.http("GET", f"{prefix}/containers/json").status == 200
    assert engine.http("GET", f"{prefix}/version").json()["MinAPIVersion"] == "1.24"


def test_versions_outside_are_refused(engine: Client) -> None:
    new = engine.http("GET", "/v1.99/info")
    assert new.status == 400
    assert new.message.startswith("client version 1.99 is too new. Maximum supported API version is ")
    old = engine.http("GET", "/v1.12/info")
    assert old.status == 400
    assert "client version 1.12 is too old. Minimum supported API version is 1.24" in old.message


def test_unknown_path_is_404(engine: Client) -> None:
    answer = engine.http("GET", "/v1.45/no/such/page")
    assert answer.status == 404
    assert answer.message == "page not found"


def test_events_of_a_containers_life(engine: Client) -> None:
    name = engine.name()
    since = str(int(time.time()) - 1)
    engine.docker("run", "--name", name, "--label", "k=v", engine.image, "sh", "-c", "exit 5", check=False)
    engine.docker("rm", name)

    def actions() -> list[str]:
        span = ["--since", since, "--until", str(int(time.time()) + 1), "--filter", f"container={name}"]
        lines = engine.docker("events", *span, "--format", "{{json .}}").stdout.splitlines()
        events.clear()
        events.update({event["Action"]: event for event in map(json.loads, lines)})
        return list(events)

    events: dict[str, dict[str, object]] = {}
    wanted = ["create", "attach", "start", "die", "destroy"]
    eventually(lambda: [action for action in actions() if action in wanted] == wanted)
    actor = events["die"]["Actor"]
    assert isinstance(actor, dict)
    assert actor["Attributes"]["exitCode"] == "5"
    assert actor["Attributes"]["name"] == name
    assert actor["Attributes"]["image"] == engine.image
    assert actor["Attributes"]["k"] == "v"
    assert events["die"]["Type"] == "container"


def test_events_arrive_live(engine: Client) -> None:
    name = engine.name("vol")
    listener = engine.popen("events", "--filter", "type=volume", "--format", "{{.Action}} {{.Actor.ID}}")
    try:
        assert listener.stdout is not None
        time.sleep(0.5)
        engine.docker("volume", "create", name)
        assert listener.stdout.readline() == f"create {name}\n"
        engine.docker("volume", "rm", name)
        assert listener.stdout.readline() == f"destroy {name}\n"
    finally:
        listener.kill()
        listener.communicate()


def test_events_of_networks_and_images(engine: Client) -> None:
    net, image = engine.name("net"), f"{engine.name('image')}:x"
    since = str(int(time.time()) - 1)
    engine.docker("network", "create", net)
    engine.docker("network", "rm", net)
    engine.docker("tag", "busybox", image)
    engine.docker("rmi", image)
    span = ["--since", since, "--until", str(int(time.time()) + 1)]
    rows = engine.docker("events", *span, "--format", "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}").stdout
    seen = rows.splitlines()
    for expected in (f"network create {net}", f"network destroy {net}", f"image tag {image}"):
        assert expected in seen
    assert any(row.startswith("image untag") for row in seen)


def test_docker_py_works_with_its_defaults(engine: Client) -> None:
    client = engine.api()
    try:
        assert client.ping() is True
        out = client.containers.run(engine.image, ["echo", "from python"], remove=True)
        assert out == b"from python\n"
        container = client.containers.run(engine.image, ["sleep", "600"], detach=True)
        try:
            assert container.exec_run(["echo", "inside"]).output == b"inside\n"
            container.reload()
            assert container.status == "running"
        finally:
            container.remove(force=True)
    finally:
        client.close()

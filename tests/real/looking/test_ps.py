"""`docker ps`: every filter, its errors, order, texts and sizes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from harness import Client, eventually

pytestmark = pytest.mark.real


class Zoo:
    """Containers of each kind. `self["name"]` is the whole name; questions go to containers of this zoo alone."""

    def __init__(self, engine: Client) -> None:
        self.engine = engine
        self.prefix = engine.name("zoo")
        self.network = f"{self.prefix}-net"
        self.volume = f"{self.prefix}-vol"
        self.image = f"{self.prefix}-child"

    def __getitem__(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    def make(self, verb: str, name: str, *options: str, image: str = "", command: tuple[str, ...] = ()) -> str:
        detach = ["-d"] if verb == "run" else []
        words = [verb, *detach, "--name", self[name], *options, image or self.engine.image, *command]
        return self.engine.docker(*words).stdout.strip()

    def ps(self, *filters: str, all: bool = True) -> list[str]:
        options = [part for text in (f"name={self.prefix}-", *filters) for part in ("-f", text)]
        every = ["-a"] if all else []
        shown = self.engine.docker("ps", *every, *options, "--format", "{{.Names}}").stdout.split()
        return [name.removeprefix(f"{self.prefix}-") for name in shown]

    def row(self, name: str, *options: str) -> dict[str, str]:
        found = self.engine.docker(
            "ps", "-a", "--no-trunc", *options, "-f", f"name=^{self[name]}$", "--format", "{{json .}}"
        )
        return dict(json.loads(found.stdout))


@pytest.fixture(scope="module")
def zoo(engine: Client) -> Iterator[Zoo]:
    zoo = Zoo(engine)
    engine.docker("network", "create", zoo.network)
    engine.docker("volume", "create", zoo.volume)
    try:
        zoo.make("run", "base", "--label", "kind=base", "--label", "first", command=("sleep", "600"))
        zoo.make(
            "run", "web", "--network", zoo.network, "-p", "127.0.0.1::80", "--expose", "90-91/udp",
            "-v", f"{zoo.volume}:/data", "-v", "/etc:/host-etc:ro", "--tmpfs", "/scratch", "--label", "kind=web",
            command=("sleep", "600"),
        )  # fmt: skip
        zoo.make("create", "made", "--expose", "80", "--label", "com.docker.swarm.task.id=t1",
                 "--label", "com.docker.swarm.service.name=s1")  # fmt: skip
        zoo.make("run", "failed", "--network", "none", command=("sh", "-c", "exit 3"))
        engine.docker("wait", zoo["failed"])
        zoo.make("run", "ended", "--network", "none", command=("true",))
        engine.docker("wait", zoo["ended"])
        zoo.make("run", "still", "--network", "none", command=("sleep", "600"))
        engine.docker("pause", zoo["still"])
        engine.docker("commit", "-c", "LABEL more=1", zoo["ended"], zoo.image)
        zoo.make("create", "child", image=zoo.image, command=("true",))
        yield zoo
    finally:
        names = engine.docker("ps", "-aq", "-f", f"name={zoo.prefix}-").stdout.split()
        engine.docker("rm", "-fv", *names, check=False)
        engine.docker("network", "rm", zoo.network, check=False)
        engine.docker("volume", "rm", zoo.volume, check=False)
        engine.docker("rmi", "-f", zoo.image, check=False)


ALL = ["child", "still", "ended", "failed", "made", "web", "base"]


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ([], ALL),
        (["status=running"], ["web", "base"]),
        (["status=paused"], ["still"]),
        (["status=created"], ["child", "made"]),
        (["status=exited", "status=paused"], ["still", "ended", "failed"]),
        (["status=dead"], []),
        (["exited=3"], ["failed"]),
        (["exited=0"], ["ended"]),
        (["exited=0", "exited=3"], ["ended", "failed"]),
        (["label=kind"], ["web", "base"]),
        (["label=kind=web"], ["web"]),
        (["label=kind", "label=first"], ["base"]),
        (["label=kind=no"], []),
        (["health=none"], ALL),
        (["health=healthy"], []),
        (["is-task=true"], ["made"]),
        (["is-task=0"], ["child", "still", "ended", "failed", "web", "base"]),
        (["network=bridge"], ["child", "made", "base"]),
        (["network=none"], ["still", "ended", "failed"]),
        (["network=nosuch"], []),
        (["expose=90/udp"], ["web"]),
        (["expose=80-85"], ["web"]),
        (["expose=90/tcp"], []),
        (["volume=/data"], ["web"]),
        (["volume=/etc"], ["web"]),
        (["volume=/host-etc"], ["web"]),
        (["volume=/nowhere"], []),
        (["ancestor=no-such-image"], []),
        (["status=running", "label=first"], ["base"]),
    ],
)  # fmt: skip
def test_filter(zoo: Zoo, filters: list[str], names: list[str]) -> None:
    assert zoo.ps(*filters) == names


def test_filters_that_name_objects(zoo: Zoo) -> None:
    assert zoo.ps(f"before={zoo['made']}") == ["web", "base"]
    assert zoo.ps(f"since={zoo['made']}") == ["child", "still", "ended", "failed"]
    assert zoo.ps(f"since={zoo['web']}", f"before={zoo['ended']}") == ["failed", "made"]
    assert zoo.ps(f"volume={zoo.volume}") == ["web"]
    assert zoo.ps(f"network={zoo.network}") == ["web"]
    network = zoo.engine.docker("network", "inspect", "-f", "{{.Id}}", zoo.network).stdout.strip()
    assert zoo.ps(f"network={network}") == ["web"]
    whole = zoo.engine.inspect(zoo["web"])["Id"]
    assert zoo.ps(f"id={whole}") == zoo.ps(f"id={whole[:9]}") == ["web"]
    port = zoo.engine.inspect(zoo["web"])["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]
    assert zoo.ps(f"publish={port}") == zoo.ps(f"publish={port}/tcp") == ["web"]
    assert zoo.ps(f"publish={port}/udp") == zoo.ps("publish=80") == []
    for pattern in (f"^/{zoo['web']}$", f"^{zoo['web']}$", f"{zoo.prefix}-w.b"):
        found = zoo.engine.docker("ps", "-a", "-f", f"name={pattern}", "--format", "{{.Names}}").stdout.split()
        assert found == [zoo["web"]]


def test_ancestor_by_name_id_and_descent(zoo: Zoo) -> None:
    engine = zoo.engine
    base, child = (
        engine.docker("image", "inspect", "-f", "{{.Id}}", image).stdout.strip() for image in (engine.image, zoo.image)
    )
    assert zoo.ps(f"ancestor={engine.image}") == zoo.ps(f"ancestor={base}") == ALL
    assert zoo.ps(f"ancestor={base.removeprefix('sha256:')[:12]}") == ALL
    assert zoo.ps(f"ancestor={zoo.image}") == zoo.ps(f"ancestor={child}") == ["child"]
    assert zoo.ps(f"ancestor={zoo.image}", f"ancestor={engine.image}") == ALL


@pytest.mark.parametrize(
    ("filters", "status", "message"),
    [
        ({"status": ["foo"]}, 400, "invalid filter 'status=foo'"),
        ({"status": ["EXITED"]}, 400, "invalid filter 'status=EXITED'"),
        ({"exited": ["x"]}, 400, "invalid filter 'exited=x': strconv.Atoi: parsing \"x\": invalid syntax"),
        ({"exited": ["1_0"]}, 400, "invalid filter 'exited=1_0': strconv.Atoi: parsing \"1_0\": invalid syntax"),
        ({"exited": ["9" * 20]}, 400, f"invalid filter 'exited={'9' * 20}': strconv.Atoi: parsing \"{'9' * 20}\": value out of range"),
        ({"health": ["bad"]}, 400, "unrecognized filter value for health: bad"),
        ({"is-task": ["T"]}, 400, "invalid filter 'is-task=[T]'"),
        ({"is-task": ["true", "false"]}, 400, "invalid filter 'is-task=[false true]'"),
        ({"before": ["no-such"]}, 404, "No such container: no-such"),
        ({"since": ["no-such"]}, 404, "No such container: no-such"),
        ({"publish": ["abc"]}, 400, 'error while looking up for publish abc: strconv.ParseUint: parsing "abc": invalid syntax'),
        ({"publish": ["90-80"]}, 400, "error while looking up for publish 90-80: Invalid range specified for the Port: 90-80"),
        ({"publish": ["99999"]}, 400, 'error while looking up for publish 99999: strconv.ParseUint: parsing "99999": value out of range'),
        ({"expose": ["/tcp"]}, 400, "error while looking up for expose /tcp: Empty string specified for ports."),
        ({"expose": ["80-"]}, 400, 'error while looking up for expose 80-: strconv.ParseUint: parsing "": invalid syntax'),
        ({"nosuch": ["x"]}, 400, "invalid filter 'nosuch'"),
        ({"name": ["["]}, 200, ""),
        ({"publish": ["80/sctp"]}, 200, ""),
    ],
)  # fmt: skip
def test_bad_filter(engine: Client, filters: dict[str, list[str]], status: int, message: str) -> None:
    answer = engine.http("GET", f"/containers/json?filters={quote(json.dumps(filters))}")
    assert answer.status == status
    assert answer.json() == [] if status == 200 else answer.message == message


@pytest.mark.parametrize("limit", ["x", "1.5", "1_0", "%201"])
def test_bad_limit(engine: Client, limit: str) -> None:
    answer = engine.http("GET", f"/containers/json?limit={limit}")
    assert answer.status == 400 and answer.message.endswith(": invalid syntax")


def test_order_last_and_limit(zoo: Zoo) -> None:
    assert zoo.ps(all=False) == ["still", "web", "base"]
    assert zoo.ps("status=exited", all=False) == ["ended", "failed"]
    api = zoo.engine.api().api
    wanted = {"name": f"{zoo.prefix}-"}
    names = [item["Names"][0] for item in api.containers(limit=2, filters=wanted)]
    assert names == [f"/{zoo['child']}", f"/{zoo['still']}"]
    assert len(api.containers(limit=0, filters=wanted)) == len(api.containers(limit=-1, filters=wanted)) == 3
    last = zoo.engine.docker("ps", "--last", "1", "-f", f"name={zoo.prefix}-", "--format", "{{.Names}}").stdout.split()
    assert last == [zoo["child"]]
    done = zoo.engine.docker("ps", "--last", "x", check=False)
    assert done.returncode != 0 and "invalid argument" in done.stderr


def test_texts(zoo: Zoo) -> None:
    web = zoo.row("web")
    port = zoo.engine.inspect(zoo["web"])["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]
    assert web["Ports"] == f"90-91/udp, 127.0.0.1:{port}->80/tcp"
    assert web["Networks"] == zoo.network and web["State"] == "running"
    assert {*web["Mounts"].split(",")} == {zoo.volume, "/etc"} and web["LocalVolumes"] == "1"
    assert web["Status"].startswith("Up ") and web["Command"] == '"sleep 600"'
    assert zoo.row("still")["Status"].startswith("Up ") and zoo.row("still")["Status"].endswith(" (Paused)")
    assert zoo.row("made")["Status"] == "Created" and zoo.row("made")["Ports"] == ""
    assert zoo.row("failed")["Status"].startswith("Exited (3) ") and zoo.row("failed")["Status"].endswith(" ago")
    assert zoo.row("failed")["Command"] == "\"sh -c 'exit 3'\"" and zoo.row("failed")["Networks"] == "none"
    assert (zoo.row("base")["Image"], zoo.row("child")["Image"]) == (zoo.engine.image, zoo.image)


def test_fields_follow_the_version(zoo: Zoo) -> None:
    wanted = quote(json.dumps({"name": [f"^{zoo['web']}$"]}))

    def endpoint(version: str) -> dict[str, Any]:
        (item,) = zoo.engine.http("GET", f"/{version}/containers/json?filters={wanted}").json()
        return dict(item["NetworkSettings"]["Networks"][zoo.network])

    assert endpoint("v1.48")["GwPriority"] == 0
    assert "GwPriority" not in endpoint("v1.47")
    assert endpoint("v1.47").items() <= endpoint("v1.51").items()


def inspected(engine: Client, name: str) -> dict[str, Any]:
    return dict(json.loads(engine.docker("inspect", "--size", name).stdout)[0])


def test_sizes(engine: Client) -> None:
    name = engine.name("size")
    script = "dd if=/dev/zero of=/big bs=1000 count=3000 2>/dev/null; sleep 600"
    engine.docker("run", "-d", "--network", "none", "--name", name, engine.image, "sh", "-c", script)
    try:
        image = int(engine.docker("image", "inspect", "-f", "{{.Size}}", engine.image).stdout)
        eventually(lambda: inspected(engine, name)["SizeRw"] >= 3_000_000)
        seen = inspected(engine, name)
        assert 3_000_000 <= seen["SizeRw"] < 3_100_000
        assert seen["SizeRootFs"] == image + seen["SizeRw"]
        assert "SizeRw" not in engine.inspect(name)
        row = engine.docker("ps", "-s", "-f", f"name={name}", "--format", "{{.Size}}").stdout.strip()
        assert row.startswith("3MB (virtual ")
        (item,) = engine.api().api.containers(size=True, filters={"name": name})
        assert (item["SizeRw"], item["SizeRootFs"]) == (seen["SizeRw"], seen["SizeRootFs"])
    finally:
        engine.docker("rm", "-f", name)


def test_health(engine: Client) -> None:
    prefix = engine.name("health")
    kinds = {
        "well": ("--health-cmd", "true", "--health-interval", "1s"),
        "ill": ("--health-cmd", "false", "--health-interval", "1s", "--health-retries", "1"),
        "new": ("--health-cmd", "true", "--health-interval", "600s"),
        "off": ("--no-healthcheck",),
    }
    names = [f"{prefix}-{kind}" for kind in kinds]

    def ps(text: str, what: str) -> list[str]:
        options = ["-f", f"name=^/{prefix}-", *(["-f", f"health={text}"] if text else [])]
        return engine.docker("ps", *options, "--format", what).stdout.splitlines()

    try:
        for kind, options in kinds.items():
            command = ["-d", "--network", "none", "--name", f"{prefix}-{kind}", *options, engine.image, "sleep", "600"]
            engine.docker("run", *command)
        assert ps("starting", "{{.Names}}")[:1] == [f"{prefix}-new"]
        eventually(lambda: ps("healthy", "{{.Names}}") == [f"{prefix}-well"])
        eventually(lambda: ps("unhealthy", "{{.Names}}") == [f"{prefix}-ill"])
        assert ps("none", "{{.Names}}") == [f"{prefix}-off"]
        (well,), (ill,), (new,) = (ps(text, "{{.Status}}") for text in ("healthy", "unhealthy", "starting"))
        assert well.endswith(" (healthy)") and ill.endswith(" (unhealthy)") and new.endswith(" (health: starting)")
    finally:
        engine.docker("rm", "-f", *names, check=False)

"""Events: every action of the engine's objects with its facts, and none lost or told twice over a kill of the daemon."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Client, Engine, eventually

pytestmark = pytest.mark.real


def told(engine: Client, since: float, *options: str) -> list[dict[str, Any]]:
    span = ("--since", f"{since:.6f}", "--until", f"{time.time():.6f}")
    return [
        json.loads(line)
        for line in engine.docker("events", *span, "--format", "{{json .}}", *options).stdout.splitlines()
    ]


def test_every_action(engine: Client, tmp_path: Path) -> None:
    name, net, volume, image = engine.name("c"), engine.name("net"), engine.name("vol"), f"{engine.name('image')}:1"
    label = f"pruned={engine.name()}"
    since = time.time()
    engine.docker("network", "create", net)
    engine.docker("volume", "create", volume)
    where = ("--network", net, "-v", f"{volume}:/data", "--label", "k=v")
    engine.docker("run", "-d", "--name", name, *where, engine.image, "sleep", "600")
    try:
        engine.docker("exec", name, "true")
        engine.docker("exec", "-d", name, "true")
        for verb in ("top", "pause", "unpause"):
            engine.docker(verb, name)
        engine.docker("rename", name, f"{name}-x")
        engine.docker("rename", f"{name}-x", name)
        engine.docker("update", "--cpu-shares", "512", name)
        engine.docker("cp", f"{name}:/etc/passwd", tmp_path / "passwd")
        engine.docker("cp", tmp_path / "passwd", f"{name}:/tmp/passwd")
        engine.docker("export", "-o", tmp_path / "tar", name)
        committed = engine.docker("commit", name, image).stdout.strip()
        engine.docker("kill", "-s", "HUP", name)
        engine.docker("restart", "-t", "0", name)
        engine.docker("stop", "-t", "0", name)
    finally:
        engine.docker("rm", "-f", name)
    engine.docker("create", "--label", label, engine.image)
    engine.docker("container", "prune", "-f", "--filter", f"label={label}")
    engine.docker("tag", image, f"{image}-tag")
    engine.docker("save", "-o", tmp_path / "saved", image)
    engine.docker("rmi", f"{image}-tag", image)
    engine.docker("load", "-i", tmp_path / "saved")
    engine.docker("rmi", image)
    engine.docker("volume", "rm", volume)
    engine.docker("network", "rm", net)
    for kind in ("volume", "network"):
        engine.docker(kind, "create", "--label", label, engine.name("pruned"))
        engine.docker(kind, "prune", "-f", "--filter", f"label={label}", *(["-a"] if kind == "volume" else []))

    events = told(engine, since)
    mine = {"container": name, "network": net, "volume": volume, "image": committed}
    actions: dict[str, list[str]] = {kind: [] for kind in mine}
    for event in events:
        facts = event["Actor"]["Attributes"]
        names = (event["Actor"]["ID"], facts.get("name", ""))
        prune = event["Action"] == "prune"
        if event["Type"] in mine and (prune or any(mine[event["Type"]] in known for known in names)):
            actions[event["Type"]].append(event["Action"].partition(":")[0])
    wanted = (
        "archive-path commit create destroy die exec_create exec_die exec_start export extract-to-dir kill pause prune"
        " rename restart start stop top unpause update"
    )
    assert sorted({*actions["container"]}) == wanted.split()
    assert actions["container"][:2] == ["create", "start"] and actions["container"].count("die") == 2
    assert actions["network"] == ["create", "connect", "disconnect", "connect", "disconnect", "destroy", "prune"]
    assert actions["volume"] == ["create", "mount", "unmount", "mount", "unmount", "destroy", "prune"]
    assert {"tag", "untag", "save", "load"} <= {*actions["image"]}
    assert [event["timeNano"] for event in events] == sorted({event["timeNano"] for event in events})
    found = {event["Action"]: event["Actor"]["Attributes"] for event in events if event["Type"] == "container"}
    assert found["die"]["exitCode"] == "137" and found["die"]["k"] == "v" and found["die"]["image"] == engine.image
    assert (
        found["kill"]["signal"] == "9"
        and found["exec_die"]["exitCode"] == "0"
        and len(found["exec_die"]["execID"]) == 64
    )
    assert found["commit"]["imageRef"].endswith(image) and found["rename"]["oldName"] == f"/{name}-x"


def test_filters(engine: Client) -> None:
    first, second = engine.name("one"), engine.name("two")
    since = time.time()
    for name in (first, second):
        engine.docker("run", "--rm", "--name", name, "--label", f"is={name}", "--network", "none", engine.image, "true")
    eventually(lambda: len(told(engine, since, "--filter", "event=destroy")) >= 2)

    def seen(*filters: str) -> set[tuple[str, str]]:
        options = [part for text in filters for part in ("--filter", text)]
        events = told(engine, since, *options)
        return {(event["Actor"]["Attributes"].get("name", ""), event["Action"]) for event in events}

    assert seen(f"container={first}", "event=start") == {(first, "start")}
    assert seen(f"label=is={second}", "event=die", "event=destroy") == {(second, "die"), (second, "destroy")}
    assert {(first, "start"), (second, "start")} <= seen(f"image={engine.image}", "type=container", "event=start")
    assert seen("type=volume", f"container={first}") == set()
    assert engine.docker("events", "--since", "2", "--until", "1", check=False).returncode == 1


def test_none_is_lost_or_told_twice_when_the_daemon_is_killed(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine()
    since = time.time()
    follower = engine.popen("events", "--format", "{{json .}}")
    live: list[str] = []

    def follow() -> None:
        assert follower.stdout is not None
        live.extend(line.strip() for line in follower.stdout)

    reader = threading.Thread(target=follow)
    reader.start()
    try:
        eventually(lambda: engine.http("GET", "/info").json()["NEventsListener"] == 1)
        for _ in range(5):
            engine.docker("run", "--rm", engine.image, "true")
        engine.docker("run", "-d", "--name", "ends", engine.image, "sleep", "2")
        eventually(lambda: any('"start"' in line and '"ends"' in line for line in live))
        engine.kill9()
    finally:
        follower.wait(10)
        reader.join(10)
    time.sleep(2)
    engine.start()
    eventually(lambda: told(engine, since, "--filter", "container=ends", "--filter", "event=die"))
    again = told(engine, since)
    key = [(event["timeNano"], event["Type"], event["Action"], event["Actor"]["ID"]) for event in again]
    before = [json.loads(line) for line in live]
    assert len(before) > 30
    assert key[: len(before)] == [(e["timeNano"], e["Type"], e["Action"], e["Actor"]["ID"]) for e in before]
    assert again[: len(before)] == before
    assert sorted(set(key)) == key
    middle = before[len(before) // 2]["timeNano"]
    span = ("--since", f"{middle // 10**9}.{middle % 10**9:09d}", "--until", f"{time.time():.6f}")
    exact = engine.docker("events", *span, "--format", "{{.TimeNano}}").stdout.split()
    assert exact == [str(event["timeNano"]) for event in again[len(before) // 2 :]]

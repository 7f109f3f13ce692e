"""The differential test itself: what it must notice, and what it must not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from differential import transcript
from differential.comparing import Difference, Listed, compare, gone, load_listed, unlisted
from differential.normalise import Facts, Normaliser, flatten
from differential.scenario import given, scenario
from differential.scenarios import SCENARIOS

FACTS = Facts("/var/lib/x", "box", 1, apparmor=False)
ID = "0123456789abcdef" * 4


def normaliser(text: str = "", facts: Facts = FACTS) -> Normaliser:
    return Normaliser(facts, text, "/tmp/client")


def listed(ours: Any, *scenarios: str, field: str = "err", pending: bool = False) -> Listed:
    return Listed(0, scenarios or ("*",), "*", field, ours, "because", pending)


def test_steps_are_read() -> None:
    read = scenario(
        "x",
        "! docker run a",
        "docker ps -q | sort",
        given("docker load", "abc"),
        'POST /a {"b": 1}',
        "docker ps -q | sort",
    )
    assert [(step.kind, step.words) for step in read.steps] == [
        ("docker", ("run", "a")),
        ("docker", ("ps", "-q")),
        ("docker", ("load",)),
        ("http", ("POST", "/a")),
        ("docker", ("ps", "-q")),
    ]
    assert [step.quiet for step in read.steps] == [True, False, False, False, False]
    assert [step.sort for step in read.steps] == [False, True, False, False, True]
    assert read.steps[2].input == b"abc"
    assert read.steps[3].input == b'{"b": 1}'
    assert read.steps[4].key == "docker ps -q | sort (2)"


def test_what_is_no_step_is_refused() -> None:
    with pytest.raises(ValueError, match="not a step"):
        scenario("x", "podman ps")


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (ID, "<ID>"),
        (f"sha256:{ID}", "<DIGEST>"),
        (ID[:12], "<ID12>"),
        ("/var/lib/x/volumes", "<ROOT>/volumes"),
        ("at 2026-11-26T10:08:32.123456789Z", "at <TIME>"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("Up 2 seconds", "Up <AGE>"),
        ("172.17.0.2 and 10.1.2.3", "<IP> and 10.1.2.3"),
        ("0.0.0.0:32768->80/tcp", "0.0.0.0:<PORT>->80/tcp"),
        ("0.0.0.0:18080->80/tcp", "0.0.0.0:18080->80/tcp"),
        ("exit code 137", "exit code 137"),
    ],
)
def test_only_what_differs_by_nature_goes(text: str, plain: str) -> None:
    assert normaliser().text(text) == plain


def test_what_the_scenario_chose_stays() -> None:
    assert normaliser("docker run --ip 172.20.0.9").text("172.20.0.9 172.20.0.1") == "172.20.0.9 <IP>"


def test_versions_of_the_cli_say_one_thing() -> None:
    old = normaliser().errors("docker: Error response from daemon: No.\nSee 'docker run --help'.\n")
    new = normaliser().errors(
        "docker: Error response from daemon: No\n\nRun 'docker run --help' for more information\n"
    )
    assert old == new == ["docker: Error response from daemon: No"]


def test_markers_keep_empty_values_apart() -> None:
    assert normaliser().value({"Pid": 7}) == {"Pid": "<PID>"}
    assert normaliser().value({"Pid": 0, "SandboxKey": ""}) == {"Pid": 0, "SandboxKey": ""}


def test_defaults_of_the_host() -> None:
    newer = normaliser(facts=Facts("/x/y", "box", 2, apparmor=True))
    shown = {"CgroupnsMode": "private", "OomKillDisable": None, "AppArmorProfile": "docker-default"}
    assert newer.value(shown) == {"CgroupnsMode": "host", "OomKillDisable": False, "AppArmorProfile": ""}
    assert normaliser().value(shown) == shown


def test_leaves() -> None:
    value = {"A": {"B": 1, "C": {}}, "D": [2], "Mounts": [{"Destination": "/v", "RW": True}]}
    assert flatten(value) == {"/A/B": 1, "/A/C": {}, "/D": [2], "/Mounts//v/Destination": "/v", "/Mounts//v/RW": True}


def test_every_kind_of_difference_is_found() -> None:
    reference = {"s": {"exit": 0, "out": ["a"], "json": {"/x": 1, "/y": None}}, "only": {"exit": 0}}
    ours = {"s": {"exit": 1, "out": ["a"], "err": ["no"], "json": {"/x": 1, "/z": None}}}
    found = {(each.step, each.field) for each in compare("n", reference, ours)}
    assert {("s", "exit"), ("s", "err"), ("s", "/y"), ("s", "/z"), ("only", "exit")} <= found
    assert not {("s", "out"), ("s", "/x")} & found
    assert compare("n", reference, reference) == []


def test_the_list_covers_its_own_and_no_more() -> None:
    difference = Difference("n", "docker x", "err", ["old"], ["new words"])
    met: set[tuple[Listed, str]] = set()
    assert unlisted([difference], [listed("new *")], met) == []
    assert {name for _, name in met} == {"n"}
    assert unlisted([difference], [listed("other")], set()) == [difference]
    assert unlisted([difference], [listed("new *", "m")], set()) == [difference]
    assert unlisted([difference], [listed("new *", field="out")], set()) == [difference]
    assert unlisted([Difference("n", "x", "/A", 1, 3)], [listed(2, field="/A")], set()) != []


def test_what_has_gone_is_told() -> None:
    entry = listed("new", "n", "m")
    assert gone([entry], set(), {"n", "m"}, whole=False) == [entry]
    assert [each.scenarios for each in gone([entry], {(entry, "n")}, {"n", "m"}, whole=False)] == [("m",)]
    assert gone([entry], {(entry, "n"), (entry, "m")}, {"n", "m"}, whole=True) == []
    assert gone([entry], set(), {"n"}, whole=False) == []
    anywhere = listed("new")
    assert gone([anywhere], set(), {"n"}, whole=False) == []
    assert gone([anywhere], set(), {"n"}, whole=True) == [anywhere]


def test_transcripts_come_back_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcript, "FOLDER", tmp_path)
    plain = {"/Config/Image": "i", "/HostConfig/NetworkMode": "default", "/HostConfig/Memory": 0}
    other = {"/Config/Image": "i", "/HostConfig/NetworkMode": "none", "/New": 1}
    newest = {"plain": {"inspect": {"json": plain}}, "s": {"inspect": {"json": other}, "docker x": {"exit": 1}}}
    older = {"plain": {"inspect": {"json": plain}}, "s": {"inspect": {"json": other}, "docker x": {"exit": 125}}}
    transcript.write("26", {"28.2.2": newest, "20.10.24": older})
    assert transcript.Transcript.load("28.2.2").answers == newest
    assert transcript.Transcript.load("29.0.0").answers == newest
    assert transcript.Transcript.load("27.0.0").answers == older
    assert transcript.Transcript.load("19.3.0").answers == older


def test_the_transcript_has_every_scenario() -> None:
    names = {each.name for each in SCENARIOS}
    for cli in transcript.recorded():
        recorded = transcript.Transcript.load(cli)
        assert recorded.answers.keys() == names, "scripts/record-reference writes it anew"
        for each in SCENARIOS:
            driven = {step.key for step in each.steps if not step.quiet and step.kind not in ("wait", "logged")}
            assert driven <= recorded.answers[each.name].keys(), each.name


def test_the_list_names_scenarios_that_exist() -> None:
    names = {each.name for each in SCENARIOS}
    for entry in load_listed("99.0"):
        assert {each for each in entry.scenarios if "*" not in each} <= names


def test_there_are_many_invocations() -> None:
    assert sum(step.kind == "docker" and not step.quiet for each in SCENARIOS for step in each.steps) >= 200

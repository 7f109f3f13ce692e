"""Pure rules: merging with an image, signals, restart delays, names, limits."""

from __future__ import annotations

import pytest

from plugin_sdk import Conflict, InvalidParameter
from plugin_sdk.containers import ContainerConfig, HealthConfig, HostConfig, Resources
from plugins.containers.limits import changed_limits
from plugins.containers.merge import command_line, with_image
from plugins.containers.names import random_name
from plugins.containers.restart import Backoff
from plugins.containers.signals import parse_signal


@pytest.mark.parametrize(
    ("asked", "image", "line"),
    [
        ({}, {"Cmd": ["sh"]}, ["sh"]),
        ({"Cmd": ["ls"]}, {"Cmd": ["sh"]}, ["ls"]),
        ({"Cmd": ["ls"]}, {"Entrypoint": ["/e", "x"], "Cmd": ["sh"]}, ["/e", "x", "ls"]),
        ({}, {"Entrypoint": ["/e"], "Cmd": ["sh"]}, ["/e", "sh"]),
        ({"Entrypoint": ["/mine"]}, {"Entrypoint": ["/e"], "Cmd": ["sh"]}, ["/mine"]),
        ({"Entrypoint": ["/mine"], "Cmd": ["a"]}, {"Entrypoint": ["/e"], "Cmd": ["sh"]}, ["/mine", "a"]),
        ({"Entrypoint": [""], "Cmd": ["a"]}, {"Entrypoint": ["/e"], "Cmd": ["sh"]}, ["a"]),
        ({"Entrypoint": [], "Cmd": ["a"]}, {"Entrypoint": ["/e"]}, ["a"]),
        ({"Cmd": "ls"}, {}, ["ls"]),
    ],
)
def test_command(asked: dict[str, object], image: dict[str, object], line: list[str]) -> None:
    merged = with_image(ContainerConfig.model_validate(asked), ContainerConfig.model_validate(image))
    path, arguments = command_line(merged)
    assert [path, *arguments] == line


def test_merge_joins_lists_and_the_client_wins() -> None:
    merged = with_image(
        ContainerConfig(Env=["A=1"], Labels={"a": "1"}, ExposedPorts={"80": {}}, User="me", StopTimeout=0),
        ContainerConfig(
            Env=["A=0", "PATH=/bin"],
            Labels={"a": "0", "b": "0"},
            ExposedPorts={"443/tcp": {}},
            User="root",
            WorkingDir="/w",
            StopSignal="INT",
            StopTimeout=5,
            Volumes={"/d": {}},
            Healthcheck=HealthConfig(Test=["CMD", "x"], Retries=4),
        ),
    )
    assert merged.Env == ["A=1", "PATH=/bin"]
    assert merged.Labels == {"a": "1", "b": "0"}
    assert set(merged.ExposedPorts) == {"80/tcp", "443/tcp"}
    assert (merged.User, merged.WorkingDir, merged.StopSignal, merged.StopTimeout) == ("me", "/w", "INT", 0)
    assert merged.Volumes == {"/d": {}}
    assert merged.Healthcheck is not None
    assert merged.Healthcheck.Retries == 4


def test_health_inherits_field_by_field() -> None:
    merged = with_image(
        ContainerConfig(Healthcheck=HealthConfig(Interval=10**9)),
        ContainerConfig(Healthcheck=HealthConfig(Test=["CMD", "x"], Interval=1, Retries=4)),
    )
    assert merged.Healthcheck == HealthConfig(Test=["CMD", "x"], Interval=10**9, Retries=4)


@pytest.mark.parametrize(
    ("text", "number"),
    [("TERM", 15), ("SIGTERM", 15), ("sigkill", 9), ("9", 9), ("RTMIN", 34), ("SIGRTMIN+3", 37), ("RTMAX-1", 63)],
)
def test_signals(text: str, number: int) -> None:
    assert parse_signal(text) == number


@pytest.mark.parametrize("text", ["FOO", "", "0", "RTMIN+99", "RTMIN3"])
def test_bad_signals(text: str) -> None:
    with pytest.raises(InvalidParameter, match=f"invalid signal: {text}".replace("+", r"\+")):
        parse_signal(text)


@pytest.mark.parametrize("text", ["65", "99", "-1"])
def test_numbers_that_are_no_signals(text: str) -> None:
    with pytest.raises(InvalidParameter, match=f"the linux daemon does not support signal {text}"):
        parse_signal(text)


def test_backoff_doubles_and_calms_down() -> None:
    backoff = Backoff()
    assert [round(backoff.next(0.1), 3) for _ in range(5)] == [0.1, 0.2, 0.4, 0.8, 1.6]
    assert [backoff.next(1) for _ in range(7)][-1] == 60.0
    assert backoff.next(11) == 0.1


def test_random_names_avoid_those_taken() -> None:
    names: set[str] = set()
    for _ in range(500):
        names.add(random_name(names))
    assert len(names) == 500
    assert all("_" in name for name in names)


def test_limits() -> None:
    host = HostConfig(Memory=64 << 20, MemorySwap=64 << 20, CpuShares=5)
    changed = changed_limits(host, Resources(Memory=32 << 20, PidsLimit=7), "x: ")
    assert (changed.Memory, changed.PidsLimit, changed.CpuShares) == (32 << 20, 7, 5)
    with pytest.raises(Conflict, match="x: Memory limit should be smaller than already set memoryswap limit"):
        changed_limits(host, Resources(Memory=128 << 20), "x: ")
    with pytest.raises(Conflict, match="Nano CPUs cannot be updated"):
        changed_limits(HostConfig(CpuQuota=5), Resources(NanoCpus=5), "x: ")

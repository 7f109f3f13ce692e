"""What a health check's configuration means, and what its results do."""

from __future__ import annotations

import pytest

from plugin_sdk.containers import ContainerConfig, Health, HealthConfig, HealthResult
from plugins.health import probe
from plugins.health.probe import Probe

S = 10**9


def wanted(**fields: object) -> Probe:
    found = probe.of(ContainerConfig(Healthcheck=HealthConfig(**fields)))  # type: ignore[arg-type]
    assert found is not None
    return found


def result(code: int, output: str = "") -> HealthResult:
    return HealthResult(Start="a", End="b", ExitCode=code, Output=output)


def test_forms_and_defaults() -> None:
    assert wanted(Test=["CMD", "a", "b"]) == Probe(["a", "b"], 30 * S, 30 * S, 0, 5 * S, 3)
    assert wanted(Test=["CMD-SHELL", "a b"]).argv == ["/bin/sh", "-c", "a b"]
    shell = ContainerConfig(Healthcheck=HealthConfig(Test=["CMD-SHELL", "x"]), Shell=["/bin/bash", "-ec"])
    found = probe.of(shell)
    assert found is not None and found.argv == ["/bin/bash", "-ec", "x"]
    for test in ([], ["NONE"], ["CMD"], ["ODD", "x"]):
        assert probe.of(ContainerConfig(Healthcheck=HealthConfig(Test=test))) is None
    assert probe.of(ContainerConfig()) is None


def test_failures_in_a_row_make_it_unhealthy_and_one_success_heals() -> None:
    check, health = wanted(Test=["CMD", "x"], Retries=2), Health(Status="starting")
    seen = []
    for code in (1, 0, 1, 1, 1, 0):
        health = check.after(health, result(code), 0)
        seen.append((health.Status, health.FailingStreak))
    assert seen == [("starting", 1), ("healthy", 0), ("healthy", 1), ("unhealthy", 2), ("unhealthy", 3), ("healthy", 0)]
    assert [entry.ExitCode for entry in health.Log] == [0, 1, 1, 1, 0], "the last five"


def test_failures_within_the_start_period_do_not_count() -> None:
    check, health = wanted(Test=["CMD", "x"], Retries=1, StartPeriod=10 * S), Health(Status="starting")
    health = check.after(health, result(1), 9 * S)
    assert (health.Status, health.FailingStreak, len(health.Log)) == ("starting", 0, 1)
    assert check.after(health, result(1), 11 * S).Status == "unhealthy"
    healthy = check.after(health, result(0), 5 * S)
    assert check.after(healthy, result(1), 6 * S).Status == "unhealthy", "it was healthy before"


def test_pauses() -> None:
    check = wanted(Test=["CMD", "x"], Interval=60 * S, StartPeriod=10 * S, StartInterval=2 * S)
    assert check.pause(Health(Status="starting"), 1 * S) == 2 * S
    assert check.pause(Health(Status="starting"), 11 * S) == 60 * S
    assert check.pause(Health(Status="healthy"), 1 * S) == 60 * S


@pytest.mark.parametrize(
    ("output", "kept"), [(b"a\xff", "a\N{REPLACEMENT CHARACTER}"), (b"x" * 5000, "x" * 4096 + "...")]
)
def test_output(output: bytes, kept: str) -> None:
    assert probe.shown(output) == kept

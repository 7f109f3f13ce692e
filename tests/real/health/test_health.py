"""Health checks of real containers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness import Client, Engine, eventually

pytestmark = pytest.mark.real

FAST = ("--health-interval", "200ms", "--health-retries", "2")


@pytest.fixture
def start(engine: Client) -> Iterator[Callable[..., str]]:
    """Starts containers that go with the test."""
    names: list[str] = []

    def run(*options: str, image: str = "") -> str:
        names.append(engine.name())
        engine.docker(
            "run", "-d", "--network", "none", "--name", names[-1], *options, image or engine.image, "sleep", "600"
        )
        return names[-1]

    yield run
    engine.docker("rm", "-f", *names, check=False)


def health(engine: Client, name: str) -> Any:
    return engine.inspect(name)["State"].get("Health")


def becomes(engine: Client, name: str, status: str) -> Any:
    return eventually(lambda: (found := health(engine, name))["Status"] == status and found)


def status(engine: Client, name: str) -> str:
    return engine.docker("ps", "-a", "--filter", f"name={name}", "--format", "{{.Status}}").stdout.strip()


def test_from_starting_to_healthy_to_unhealthy_and_back(engine: Client, start: Callable[..., str]) -> None:
    since = time.time()
    name = start("--health-cmd", "echo seen $HOME; test -e /ok", "--health-interval", "400ms", "--health-retries", "3")
    first = health(engine, name)
    assert (first["Status"], first["FailingStreak"]) == ("starting", 0)
    assert "(health: starting)" in status(engine, name)
    engine.docker("exec", name, "touch", "/ok")
    healthy = becomes(engine, name, "healthy")
    assert status(engine, name).endswith("(healthy)") and healthy["FailingStreak"] == 0
    last = healthy["Log"][-1]
    assert (last["ExitCode"], last["Output"]) == (0, "seen /root\n") and last["Start"] < last["End"]
    engine.docker("exec", name, "rm", "/ok")
    unhealthy = becomes(engine, name, "unhealthy")
    assert status(engine, name).endswith("(unhealthy)") and unhealthy["FailingStreak"] >= 3
    eventually(lambda: len(health(engine, name)["Log"]) == 5)
    engine.docker("exec", name, "touch", "/ok")
    becomes(engine, name, "healthy")
    span = ("--since", f"{since:.3f}", "--until", f"{time.time():.3f}")
    told = engine.docker(
        "events", *span, "--filter", f"container={name}", "--format", "{{.Action}}"
    ).stdout.splitlines()
    changes = [action for action in told if action.startswith("health_status")]
    assert changes == ["health_status: healthy", "health_status: unhealthy", "health_status: healthy"]
    assert {action.partition(":")[0] for action in told} >= {"exec_create", "exec_start", "exec_die"}
    only = engine.docker("events", *span, "--filter", f"container={name}", "--filter", "event=health_status").stdout
    assert len(only.splitlines()) == 3


def test_the_filter_of_ps(engine: Client, start: Callable[..., str]) -> None:
    well = start("--health-cmd", "true", *FAST)
    ill = start("--health-cmd", "false", *FAST)
    new = start("--health-cmd", "true", "--health-interval", "1h")
    plain = start()
    becomes(engine, well, "healthy")
    becomes(engine, ill, "unhealthy")
    for value, expected in (("healthy", well), ("unhealthy", ill), ("starting", new), ("none", plain)):
        names = engine.docker("ps", "--filter", f"health={value}", "--format", "{{.Names}}").stdout.split()
        assert {well, ill, new, plain} & {*names} == {expected}
    assert health(engine, plain) is None
    failed = engine.docker("ps", "--filter", "health=odd", check=False)
    assert failed.returncode == 1


def test_one_that_takes_too_long_is_killed(engine: Client, start: Callable[..., str]) -> None:
    name = start("--health-cmd", "exec sleep 987", "--health-timeout", "300ms", *FAST)
    found = becomes(engine, name, "unhealthy")
    assert found["Log"][0]["ExitCode"] == -1
    assert found["Log"][0]["Output"] == "Health check exceeded timeout (300ms)"
    engine.docker("update", "--cpu-shares", "512", name)
    assert health(engine, name)["Status"] == "unhealthy"
    sleeping = engine.docker("top", name, "-eo", "pid,args").stdout.count("sleep 987")
    assert sleeping <= 1, "probes that took too long are gone"


def test_a_command_that_cannot_run(engine: Client, start: Callable[..., str]) -> None:
    name = engine.name()
    config = {"Test": ["CMD", "/no/such"], "Interval": 2 * 10**8, "Retries": 1}
    made = engine.api().api.create_container(
        engine.image, ["sleep", "600"], name=name, healthcheck={key.lower(): value for key, value in config.items()}
    )
    try:
        engine.docker("start", made["Id"])
        found = becomes(engine, name, "unhealthy")
        assert found["Log"][0]["ExitCode"] != 0 and "/no/such" in found["Log"][0]["Output"]
    finally:
        engine.docker("rm", "-f", name)


def test_stop_start_pause(engine: Client, start: Callable[..., str]) -> None:
    name = start("--health-cmd", "echo run >> /runs", *FAST)
    becomes(engine, name, "healthy")
    engine.docker("pause", name)
    time.sleep(0.3)  # what a probe had told before is stored
    before = len(health(engine, name)["Log"]), health(engine, name)["Log"][-1]
    time.sleep(0.8)
    assert (len(health(engine, name)["Log"]), health(engine, name)["Log"][-1]) == before
    assert "(Paused)" in status(engine, name)
    engine.docker("unpause", name)
    eventually(lambda: health(engine, name)["Log"][-1] != before[1])
    engine.docker("stop", "-t", "0", name)
    assert health(engine, name)["Status"] == "unhealthy" and status(engine, name).startswith("Exited")
    engine.docker("start", name)
    assert health(engine, name)["Status"] in ("starting", "healthy")
    becomes(engine, name, "healthy")


def test_the_start_period(engine: Client, start: Callable[..., str]) -> None:
    name = start(
        *(
            "--health-cmd",
            "test -e /ok",
            "--health-interval",
            "100ms",
            "--health-retries",
            "1",
            "--health-start-period",
            "1h",
        )
    )
    started = engine.api().api.inspect_container(name)
    assert started["Config"]["Healthcheck"]["StartPeriod"] == 3600 * 10**9
    assert health(engine, name)["Log"] == [], "the start interval is 5 s"
    quick = start(
        *(
            "--health-cmd",
            "test -e /ok",
            "--health-interval",
            "1h",
            "--health-retries",
            "1",
            "--health-start-period",
            "1h",
        ),
        *("--health-start-interval", "200ms"),
    )
    eventually(lambda: len(health(engine, quick)["Log"]) >= 2)
    assert (health(engine, quick)["Status"], health(engine, quick)["FailingStreak"]) == ("starting", 0)
    engine.docker("exec", quick, "touch", "/ok")
    becomes(engine, quick, "healthy")


def test_what_the_image_says_and_the_client_changes(engine: Client, start: Callable[..., str]) -> None:
    image = engine.name("checked")
    base = start()
    engine.docker("commit", "--change", 'HEALTHCHECK --interval=250ms CMD ["test", "-e", "/ok"]', base, image)
    try:
        inherited = start(image=image)
        config = engine.inspect(inherited)["Config"]["Healthcheck"]
        assert config == {"Test": ["CMD", "test", "-e", "/ok"], "Interval": 250_000_000}
        eventually(lambda: health(engine, inherited)["FailingStreak"] >= 1)
        changed = start("--health-retries", "1", image=image)
        becomes(engine, changed, "unhealthy")
        assert engine.inspect(changed)["Config"]["Healthcheck"]["Interval"] == 250_000_000
        switched_off = start("--no-healthcheck", image=image)
        assert health(engine, switched_off) is None
        assert engine.inspect(switched_off)["Config"]["Healthcheck"]["Test"] == ["NONE"]
        engine.docker("rm", "-f", inherited, changed, switched_off)
    finally:
        engine.docker("rmi", "-f", image)


def test_a_killed_daemon_goes_on_probing(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine()
    check = ("--health-cmd", "test -e /ok", *FAST)
    engine.docker("run", "-d", "--name", "web", *check, engine.image, "sh", "-c", "touch /ok; sleep 600")
    becomes(engine, "web", "healthy")
    engine.kill9()
    engine.start()
    assert health(engine, "web")["Status"] == "healthy" and len(health(engine, "web")["Log"]) >= 1
    engine.docker("exec", "web", "rm", "/ok")
    becomes(engine, "web", "unhealthy")
    assert json.loads(engine.docker("inspect", "-f", "{{json .State.Health.FailingStreak}}", "web").stdout) >= 2


def test_many_at_once_do_not_hold_each_other_up(engine: Client, start: Callable[..., str]) -> None:
    hangs = [start("--health-cmd", "sleep 500", "--health-timeout", "1h", *FAST) for _ in range(8)]
    well = [start("--health-cmd", "true", *FAST) for _ in range(8)]
    for name in well:
        becomes(engine, name, "healthy")
    assert {health(engine, name)["Status"] for name in hangs} == {"starting"}

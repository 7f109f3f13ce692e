"""`docker stats`: known loads are seen as what they are."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Client, Engine, eventually

pytestmark = pytest.mark.real

MIB = 1 << 20


@pytest.fixture
def start(engine: Client) -> Iterator[Callable[..., str]]:
    """Starts containers that go with the test."""
    names: list[str] = []

    def run(*options: str, script: str = "sleep 600") -> str:
        names.append(engine.name())
        engine.docker("run", "-d", "--name", names[-1], *options, engine.image, "sh", "-c", script)
        return names[-1]

    yield run
    engine.docker("rm", "-f", *names, check=False)


def stats(engine: Client, name: str, query: str = "stream=false", version: str = "") -> Any:
    answer = engine.http("GET", f"{version}/containers/{name}/stats?{query}")
    assert answer.status == 200, answer.message
    return answer.json()


def cpu_percent(reading: Any) -> float:
    """As the docker CLI computes it."""
    now, before = reading["cpu_stats"], reading["precpu_stats"]
    used = now["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
    return 100.0 * float(used) / (now["system_cpu_usage"] - before["system_cpu_usage"]) * float(now["online_cpus"])


class Watched:
    """What the scheduler has given to a container's first process: on a busy machine, less than its limit allows."""

    def __init__(self, engine: Client, name: str) -> None:
        self._file = Path(f"/proc/{engine.inspect(name)['State']['Pid']}/schedstat")
        self._before = self._now()

    def _now(self) -> tuple[int, int]:
        return time.monotonic_ns(), int(self._file.read_text().split()[0])

    def percent(self) -> float:
        """Since the last call."""
        before, self._before = self._before, self._now()
        return 100.0 * (self._before[1] - before[1]) / (self._before[0] - before[0])


def test_processor_time_of_a_limited_loop(engine: Client, start: Callable[..., str]) -> None:
    name = start("--cpus", "0.3", "--network", "none", script="while :; do :; done")
    stats(engine, name)
    watched = Watched(engine, name)
    stats(engine, name)
    time.sleep(2)
    reading = stats(engine, name)
    # The quota is dealt out by tenths of a second, so that a few milliseconds between two looks may hold all of one.
    assert cpu_percent(reading) == pytest.approx(watched.percent(), rel=0.05, abs=1.5)
    assert cpu_percent(reading) < 33
    cpu = reading["cpu_stats"]
    assert sum(cpu["cpu_usage"]["percpu_usage"]) == pytest.approx(cpu["cpu_usage"]["total_usage"], rel=0.05)
    assert cpu["throttling_data"]["periods"] > 10
    held_back = start("--cpus", "0.02", "--network", "none", script="while :; do :; done")
    eventually(lambda: stats(engine, held_back)["cpu_stats"]["throttling_data"]["throttled_periods"] > 5)
    throttled = stats(engine, held_back)["cpu_stats"]["throttling_data"]
    assert throttled["throttled_periods"] <= throttled["periods"] and throttled["throttled_time"] > 10**8
    idle = start("--network", "none")
    eventually(lambda: 0 <= cpu_percent(stats(engine, idle)) < 2)


def test_memory_and_processes(engine: Client, start: Callable[..., str]) -> None:
    fill = "head -c 40m /dev/zero > /mem/file; sleep 600 & sleep 600 & wait"
    name = start("-m", "100m", "--pids-limit", "50", "--tmpfs", "/mem", "--network", "none", script=fill)
    eventually(lambda: stats(engine, name)["pids_stats"] == {"current": 3, "limit": 50})
    memory = stats(engine, name)["memory_stats"]
    assert memory["limit"] == 100 * MIB
    used = memory["usage"] - memory["stats"].get("total_inactive_file", memory["stats"].get("inactive_file", 0))
    assert used == pytest.approx(40 * MIB, rel=0.08)
    shown = engine.docker("stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", name).stdout
    assert shown.split()[1:] == ["/", "100MiB", "3"] and 38 < float(shown.partition("MiB")[0]) < 44
    unlimited = stats(engine, start("--network", "none"))
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert unlimited["memory_stats"]["limit"] == pytest.approx(total, rel=0.01)
    assert "limit" not in unlimited["pids_stats"] and "networks" not in unlimited


def test_network_counts(engine: Client, start: Callable[..., str]) -> None:
    name = start(script="sleep 600 | nc -l -p 9 > /tmp/got")
    before = stats(engine, name)["networks"]["eth0"]
    address = engine.inspect(name)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    sender = start(script=f"head -c 5m /dev/zero | nc {address} 9; sleep 600")
    eventually(lambda: engine.docker("exec", name, "stat", "-c", "%s", "/tmp/got").stdout.strip() == str(5 * MIB))
    after = stats(engine, name)["networks"]["eth0"]
    assert 5 * MIB < after["rx_bytes"] - before["rx_bytes"] < 5.4 * MIB
    assert after["rx_packets"] > before["rx_packets"] and after["tx_packets"] > before["tx_packets"]
    assert after["rx_errors"] == after["rx_dropped"] == after["tx_errors"] == after["tx_dropped"] == 0
    sent = stats(engine, sender)["networks"]["eth0"]["tx_bytes"]
    assert sent == pytest.approx(after["rx_bytes"], rel=0.05)
    assert "networks" not in stats(engine, start("--network", "host"))
    shared = start("--network", f"container:{name}")
    assert stats(engine, shared)["networks"].keys() == {"eth0"}


def test_block_io(engine: Client, start: Callable[..., str]) -> None:
    name = start(
        "--network", "none", script="dd if=/dev/zero of=/big bs=1M count=16 oflag=direct; echo done; sleep 600"
    )
    eventually(lambda: "done" in engine.docker("logs", name).stdout)
    found = stats(engine, name)["blkio_stats"]
    written = sum(entry["value"] for entry in found["io_service_bytes_recursive"] if entry["op"].lower() == "write")
    assert written == pytest.approx(16 * MIB, rel=0.05)
    operations = [entry for entry in found["io_serviced_recursive"] or () if entry["op"] == "Write"]
    assert not operations or 16 <= sum(entry["value"] for entry in operations) < 1000


def test_shapes_and_errors(engine: Client, start: Callable[..., str]) -> None:
    name = start()
    reading = stats(engine, name, "stream=0&one-shot=1")
    assert {
        "read",
        "preread",
        "pids_stats",
        "blkio_stats",
        "cpu_stats",
        "precpu_stats",
        "memory_stats",
        "networks",
    } <= {*reading}
    assert (reading["name"], reading["id"]) == (f"/{name}", engine.inspect(name)["Id"])
    assert reading["preread"] < reading["read"]
    engine.docker("pause", name)
    assert stats(engine, name)["pids_stats"]["current"] == 1
    engine.docker("unpause", name)
    engine.docker("kill", name)
    stopped = stats(engine, name)
    assert stopped["read"] == "0001-01-01T00:00:00Z" and stopped["memory_stats"] == {} == stopped["pids_stats"]
    assert "system_cpu_usage" not in stopped["cpu_stats"] and stopped["blkio_stats"]["io_serviced_recursive"] is None
    shown = engine.docker("stats", "--no-stream", "--format", "{{.CPUPerc}} {{.MemUsage}} {{.PIDs}}", name).stdout
    assert shown == "0.00% 0B / 0B 0\n"
    answer = engine.http("GET", "/containers/no-such/stats?stream=0")
    assert (answer.status, answer.message) == (404, "No such container: no-such")
    answer = engine.http("GET", f"/containers/{name}/stats?stream=1&one-shot=1")
    assert (answer.status, answer.message) == (400, "cannot have stream=true and one-shot=true")


def test_the_stream_goes_on_until_the_container_is_removed(engine: Client, start: Callable[..., str]) -> None:
    name = start("--cpus", "0.2", "--network", "none", script="while :; do :; done")
    readings = engine.api().containers.get(name).stats(decode=True)
    first, second = next(readings), next(readings)
    watched = Watched(engine, name)
    third = next(readings)
    assert first["read"] < second["read"] < third["read"] and third["preread"] >= first["read"]
    assert cpu_percent(third) == pytest.approx(watched.percent(), rel=0.15, abs=3)
    engine.docker("kill", name)
    assert any(reading["read"].startswith("0001") for _, reading in zip(range(3), readings, strict=False))
    engine.docker("rm", name)
    assert len(list(readings)) <= 2


def test_all_that_run_at_once(engine: Client, start: Callable[..., str]) -> None:
    names = {start("--network", "none") for _ in range(3)}
    answer = engine.http("GET", "/containers/stats?stream=0")
    assert names <= {reading["name"][1:] for reading in answer.json()}
    assert all(reading["memory_stats"]["usage"] > 0 for reading in answer.json())


def test_a_reading_has_an_earlier_one_also_after_a_restart_of_the_daemon(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine()
    engine.docker("run", "-d", "--name", "busy", "--cpus", "0.2", engine.image, "sh", "-c", "while :; do :; done")
    watched = Watched(engine, "busy")
    time.sleep(1)
    engine.restart()
    reading = eventually(lambda: (now := stats(engine, "busy"))["cpu_stats"]["cpu_usage"]["total_usage"] and now)
    assert cpu_percent(reading) == pytest.approx(watched.percent(), rel=0.3, abs=3)
    assert json.loads(engine.docker("stats", "--no-stream", "--format", "{{json .}}").stdout)["Name"] == "busy"

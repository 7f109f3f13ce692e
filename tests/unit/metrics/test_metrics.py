"""The numbers become Prometheus' text, and are served over TCP and a unix socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from plugin_sdk import (
    EngineError,
    HookStats,
    InvalidParameter,
    PluginAdmin,
    PluginState,
    PluginStatus,
    Unavailable,
    Wire,
)
from plugin_sdk.api import ApiServer, RouteTimes, Stalls
from plugins.metrics import collect
from plugins.metrics.adapter import MetricsAdapter
from plugins.metrics.facts import Numbers
from plugins.metrics.serving import MetricsServer, parse_address


class Context:
    """An engine as the kernel shows it to a plugin."""

    def __init__(self, *, api: bool = True) -> None:
        self.times = {
            ("POST", "/containers/{ref}/start"): RouteTimes(
                done=3, failed=1, seconds=1.25, buckets=[0, 1] + [0] * 4 + [2] + [0] * 5
            )
        }
        self.hooks = SimpleNamespace(
            sync=lambda hook: [
                ("a", {"ContainersRunning": 2, "ContainersPaused": 0, "ContainersStopped": 5}),
                ("b", {"Driver": "overlay2"}),
            ]
        )
        server = SimpleNamespace(route_times=lambda: self.times, stalls=lambda: Stalls(2, 0.75, "here"))
        admin = SimpleNamespace(
            facts=SimpleNamespace(version="9.9", id="the-id"),
            statuses=lambda: [
                PluginStatus("good", PluginState.ENABLED, failures=0),
                PluginStatus("bad", PluginState.FAILED, failures=11),
            ],
            stats=lambda: {("good", "engine_event"): HookStats(7, 2, 0.5, 0.25), ("good", "idle"): HookStats()},
        )
        self._services: Mapping[Any, Any] = {PluginAdmin: admin, **({ApiServer: server} if api else {})}

    def find(self, contract: Any) -> Any:
        return self._services.get(contract)

    def require(self, contract: Any) -> Any:
        return self._services[contract]


def samples(context: Context, *, events: int = 4) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    numbers = Numbers(context)  # type: ignore[arg-type]
    numbers.events = events
    text = collect.render(collect.make_registry(numbers)).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_names_and_values() -> None:
    found = samples(Context())
    plain = {name: value for (name, labels), value in found.items() if not labels}
    assert plain["engine_daemon_events_total"] == 4
    assert plain["engine_daemon_engine_cpus_cpus"] >= 1
    assert plain["engine_daemon_engine_memory_bytes"] > 1 << 28
    assert plain["engine_event_loop_stalls_total"] == 2
    assert plain["engine_event_loop_longest_stall_seconds"] == 0.75
    assert plain["process_resident_memory_bytes"] > 1 << 20
    state = "engine_daemon_container_states_containers"
    assert [found[state, (("state", name),)] for name in ("paused", "running", "stopped")] == [0, 2, 5]
    (info,) = [dict(labels) for name, labels in found if name == "engine_daemon_engine_info"]
    assert (info["version"], info["daemon_id"], info["graphdriver"]) == ("9.9", "the-id", "overlay2")
    assert set(info) == {
        "architecture", "commit", "daemon_id", "graphdriver", "kernel", "os", "os_type", "os_version", "version"
    }  # fmt: skip
    assert found["engine_plugin_enabled", (("plugin", "bad"),)] == 0
    assert found["engine_plugin_failures_total", (("plugin", "bad"),)] == 11
    call = (("call", "engine_event"), ("plugin", "good"))
    assert found["engine_plugin_calls_total", call] == 7
    assert found["engine_plugin_calls_failed_total", call] == 2
    assert found["engine_plugin_calls_seconds_total", call] == 0.5
    assert ("engine_plugin_calls_total", (("call", "idle"), ("plugin", "good"))) not in found


def test_histograms_are_cumulative() -> None:
    found = samples(Context())
    for name, labels in (
        ("engine_daemon_container_actions_seconds", {"action": "start"}),
        ("engine_api_request_seconds", {"method": "POST", "route": "/containers/{ref}/start"}),
    ):
        values = [
            found[f"{name}_bucket", tuple(sorted({**labels, "le": bound}.items()))]
            for bound in ("0.005", "0.01", "0.25", "0.5", "10.0", "+Inf")
        ]
        assert values == [0, 1, 1, 3, 3, 3]
        assert found[f"{name}_sum", tuple(sorted(labels.items()))] == 1.25
        assert found[f"{name}_count", tuple(sorted(labels.items()))] == 3
    assert found["engine_daemon_container_actions_seconds_count", (("action", "commit"),)] == 0
    failed = (("method", "POST"), ("route", "/containers/{ref}/start"))
    assert found["engine_api_requests_failed_total", failed] == 1


def test_what_is_missing_is_left_out() -> None:
    context = Context(api=False)
    context.hooks = SimpleNamespace(sync=lambda hook: [])
    names = {name for name, _ in samples(context)}
    assert "engine_daemon_engine_info" in names
    assert not {name for name in names if "container" in name or "stall" in name}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("127.0.0.1:9323", ("127.0.0.1", 9323)),
        ("[::1]:9323", ("::1", 9323)),
        (":9323", (None, 9323)),
        ("host:0", ("host", 0)),
    ],
)
def test_addresses(text: str, meant: tuple[str | None, int]) -> None:
    assert parse_address(text) == meant


@pytest.mark.parametrize(
    "text", ["x", "127.0.0.1", "http://127.0.0.1:1", "1.2.3.4:99999", "1.2.3.4:", "a@b:1", "[::1:9"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(InvalidParameter, match="metrics-addr"):
        parse_address(text)


async def fetch(path: Path, what: str = "/metrics") -> tuple[int, str, str]:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
        session.get(f"http://x{what}") as got,
    ):
        return got.status, got.headers["Content-Type"], await got.text()


async def test_served_on_a_unix_socket_and_tcp(tmp_path: Path) -> None:
    server = MetricsServer(lambda: (b"metric 1\n", collect.CONTENT_TYPE))
    path = tmp_path / "m.sock"
    path.write_bytes(b"left over")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InvalidParameter, match="cannot serve metrics"):
            await server.listen_tcp(*taken.getsockname())
    await server.listen_unix(path)
    try:
        assert await fetch(path) == (200, "text/plain; version=0.0.4; charset=utf-8", "metric 1\n")
        assert (await fetch(path, "/"))[0] == 404
    finally:
        await server.stop()
    await server.stop()
    with pytest.raises(EngineError, match="cannot serve metrics on"):
        await MetricsServer(lambda: (b"", "")).listen_unix(tmp_path / "no" / "m.sock")


class Peer:
    interfaces = ("docker.metricscollector/1.0",)
    name = "collector"

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls: list[tuple[str, Any]] = []

    async def call(self, method: str, arguments: Any, reply: type[Wire], *, deadline: float) -> Any:
        self.calls.append((method, arguments))
        if self.error is not None:
            raise self.error
        return reply()


async def test_collectors_are_told_and_given_the_socket(tmp_path: Path) -> None:
    server = MetricsServer(lambda: (b"metric 1\n", collect.CONTENT_TYPE))
    adapter = MetricsAdapter(server, tmp_path / "docker")
    try:
        (mount,) = (await asyncio.gather(adapter.mounts(), adapter.mounts()))[0]
        assert (mount.destination, mount.source) == ("/run/docker", str(tmp_path / "docker"))
        assert "ro" in mount.options
        assert (await fetch(tmp_path / "docker/metrics.sock"))[2] == "metric 1\n"
        peer, deaf = Peer(), Peer(Unavailable("no answer"))
        for one in (peer, deaf):
            assert await adapter.connect(one) == ()  # type: ignore[arg-type]
            await adapter.disconnect(one)  # type: ignore[arg-type]
            assert one.calls == [("MetricsCollector.StartMetrics", None), ("MetricsCollector.StopMetrics", None)]
    finally:
        await server.stop()

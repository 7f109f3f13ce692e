"""Prometheus and metrics plugins read what the engine did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Engine, OldStylePlugin, eventually
from harness.answering import make_answering
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.real

ADDRESS = "127.0.0.1:9323"


def value(engine: Engine, name: str, **labels: str) -> float | None:
    """Of one sample, as Prometheus' own parser reads it."""
    for family in text_string_to_metric_families(engine.fetch(f"http://{ADDRESS}/metrics")):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return float(sample.value)
    return None


def test_prometheus_sees_what_was_done(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine("--metrics-addr", ADDRESS)
    name = engine.name()
    engine.docker("run", "-d", "--name", name, "--network", "none", engine.image, "sleep", "60")
    engine.docker("create", "--network", "none", engine.image, "true")
    states = "engine_daemon_container_states_containers"
    assert value(engine, states, state="running") == 1
    assert value(engine, states, state="stopped") == 1
    actions = "engine_daemon_container_actions_seconds_count"
    assert value(engine, actions, action="create") == 2
    assert value(engine, actions, action="start") == 1
    started = value(engine, "engine_daemon_container_actions_seconds_sum", action="start")
    assert started is not None and 0.001 < started < 30
    engine.docker("start", "no-such-container", check=False)
    assert value(engine, actions, action="start") == 1, "a start that failed is none"
    failed = "engine_api_requests_failed_total"
    assert value(engine, failed, method="POST", route="/containers/{ref}/start") == 1
    eventually(lambda: (value(engine, "engine_daemon_events_total") or 0) >= 3)
    assert (value(engine, "engine_plugin_calls_total", call="engine_container_prepare") or 0) >= 1
    assert value(engine, "engine_plugin_enabled", plugin="containers") == 1
    assert value(engine, "engine_event_loop_stalls_total") is not None
    assert value(engine, "engine_daemon_engine_info", os_type="linux", graphdriver="overlay2") == 1
    engine.docker("rm", "-f", name)
    assert value(engine, actions, action="delete") == 1


def test_an_address_that_cannot_be_stops_the_start(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine("--metrics-addr", "nonsense", start=False)
    assert engine.spawn().wait(30) != 0
    assert "invalid --metrics-addr 'nonsense'" in engine.log()


def test_an_old_style_collector_is_told(own_engine: Callable[..., Engine]) -> None:
    """It is activated when it is first asked for, here for another interface; the socket's path is in the README."""
    engine = own_engine(image=False)
    ok = {"MetricsCollector.StartMetrics": lambda _: {}, "MetricsCollector.StopMetrics": lambda _: {"Err": "no matter"}}
    with OldStylePlugin(engine.plugin_dir, "both", ["VolumeDriver", "MetricsCollector"], ok) as plugin:
        engine.docker("volume", "create", "-d", "both", check=False)
        eventually(lambda: plugin.called("MetricsCollector.StartMetrics"))
        assert engine.root.joinpath("run/metrics/docker/metrics.sock").is_socket()
        engine.stop()
        assert plugin.called("MetricsCollector.StopMetrics") == [{}]
        engine.start()


def test_a_managed_collector_reads_the_socket_and_does_so_after_a_restart(
    own_engine: Callable[..., Engine], tmp_path: Path
) -> None:
    engine = own_engine(image=False)
    name = "me/collector:1.0"
    engine.docker("plugin", "create", name, make_answering(tmp_path / "plugin", "docker.metricscollector/1.0"))
    mark = engine.mark()
    engine.docker("plugin", "enable", name)
    eventually(lambda: "metrics: engine_daemon_engine_cpus_cpus " in engine.log(mark), what=engine.log(mark))
    eventually(lambda: "metrics: the socket cannot be removed" in engine.log(mark))
    engine.stop()
    mark = engine.mark()
    engine.start()
    # The plugin's process outlived the daemon, and finds the new daemon's socket in the same place.
    eventually(lambda: "metrics: engine_daemon_engine_cpus_cpus " in engine.log(mark), what="metrics after a restart")
    engine.docker("plugin", "disable", name)
    engine.docker("plugin", "rm", name)

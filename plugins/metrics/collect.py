"""What is measured, as Prometheus metrics. Everything is read from memory when somebody asks.

Names and labels are dockerd's where it has the same thing (read off a dockerd 26.1); `engine_plugin_*`, `engine_api_*` and
`engine_event_loop_*` are our own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from plugin_sdk import HookStats, PluginStatus
from plugin_sdk.api import ApiServer, RouteTimes
from plugins.metrics.facts import ACTIONS, Numbers

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class EngineCollector(Collector):
    """Makes metrics of a Numbers."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client's `Collector`."""
        info = self._numbers.info()
        yield from _engine(info, self._numbers)
        yield from _containers(info)
        yield CounterMetricFamily("engine_daemon_events", "The number of events logged", value=self._numbers.events)
        if (api := self._numbers.api()) is not None:
            yield from _routes(api.route_times())
            yield from _loop(api)
        yield from _plugins(self._numbers.statuses(), self._numbers.stats())


def make_registry(numbers: Numbers) -> CollectorRegistry:
    """The engine's metrics, and those of its process (`process_*`)."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(EngineCollector(numbers))
    ProcessCollector(registry=registry)
    return registry


def render(registry: CollectorRegistry) -> bytes:
    """The text format, version 0.0.4."""
    return generate_latest(registry)


def _engine(info: Mapping[str, Any], numbers: Numbers) -> Iterator[Metric]:
    # An info of Prometheus is a gauge of 1 whose name ends in _info.
    described = InfoMetricFamily(
        "engine_daemon_engine", "The information related to the engine and the OS it is running on"
    )
    facts = numbers.facts
    ours = {"version": facts.version, "commit": "", "daemon_id": facts.id, "graphdriver": str(info.get("Driver", ""))}
    described.add_metric([], numbers.host | ours)
    yield described
    yield GaugeMetricFamily(
        "engine_daemon_engine_cpus_cpus",
        "The number of cpus that the host system of the engine has",
        value=numbers.processors,
    )
    yield GaugeMetricFamily(
        "engine_daemon_engine_memory_bytes",
        "The number of bytes of memory that the host system of the engine has",
        value=numbers.memory,
    )


def _containers(info: Mapping[str, Any]) -> Iterator[Metric]:
    states = GaugeMetricFamily(
        "engine_daemon_container_states_containers", "The count of containers in various states", labels=["state"]
    )
    for state in ("paused", "running", "stopped"):
        if (count := info.get(f"Containers{state.title()}")) is not None:
            states.add_metric([state], float(count))
    if states.samples:
        yield states


def _routes(times: Mapping[tuple[str, str], RouteTimes]) -> Iterator[Metric]:
    actions = HistogramMetricFamily(
        "engine_daemon_container_actions_seconds",
        "The number of seconds it takes to process each container action",
        labels=["action"],
    )
    # Every action is there from the start, so that a rate over it is.
    for route, action in ACTIONS.items():
        _histogram(actions, [action], times.get(route, RouteTimes()))
    yield actions
    requests = HistogramMetricFamily(
        "engine_api_request_seconds",
        "Seconds until requests were answered; a stream ends with its end",
        labels=["method", "route"],
    )
    failed = CounterMetricFamily(
        "engine_api_requests_failed", "Requests that were refused or failed", labels=["method", "route"]
    )
    for (method, path), route_times in sorted(times.items()):
        _histogram(requests, [method, path], route_times)
        failed.add_metric([method, path], route_times.failed)
    yield requests
    yield failed


def _histogram(family: HistogramMetricFamily, labels: list[str], times: RouteTimes) -> None:
    total = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip([*map(str, times.BOUNDS), "+Inf"], times.buckets, strict=True):
        total += count
        buckets.append((bound, total))
    family.add_metric(labels, buckets, times.seconds)


def _loop(api: ApiServer) -> Iterator[Metric]:
    stalls = api.stalls()
    yield CounterMetricFamily(
        "engine_event_loop_stalls",
        "Times that the event loop stood still for more than 0.2 seconds",
        value=stalls.count,
    )
    yield GaugeMetricFamily(
        "engine_event_loop_longest_stall_seconds", "Longest standstill of the event loop", value=stalls.longest
    )


def _plugins(statuses: list[PluginStatus], stats: Mapping[tuple[str, str], HookStats]) -> Iterator[Metric]:
    enabled = GaugeMetricFamily("engine_plugin_enabled", "1 for plugins that run, 0 for others", labels=["plugin"])
    failures = CounterMetricFamily("engine_plugin_failures", "Failures of a plugin since it started", labels=["plugin"])
    for status in statuses:
        enabled.add_metric([status.name], float(status.state == "enabled"))
        failures.add_metric([status.name], status.failures)
    yield enabled
    yield failures
    labels = ["plugin", "call"]
    calls = CounterMetricFamily("engine_plugin_calls", "Calls of a plugin's hooks and drivers", labels=labels)
    failed = CounterMetricFamily("engine_plugin_calls_failed", "Of these, those that failed", labels=labels)
    seconds = CounterMetricFamily("engine_plugin_calls_seconds", "Seconds that they took together", labels=labels)
    for call, counted in sorted(stats.items()):
        if counted.calls:
            calls.add_metric(call, counted.calls)
            failed.add_metric(call, counted.failures)
            seconds.add_metric(call, counted.seconds)
    yield calls
    yield failed
    yield seconds

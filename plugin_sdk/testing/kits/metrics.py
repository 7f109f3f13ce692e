"""The kit of the interface `docker.metricscollector/1.0`: there is no driver, the plugin is told over its peer.

Source: Docker's "Docker metrics collector plugins"; both calls have empty bodies and replies that nobody reads.
"""

from __future__ import annotations

from kernel.contracts.common import Wire
from kernel.contracts.managed import PluginPeer
from plugin_sdk.testing.kit import Bench, Kit

TELL_SECONDS = 10.0


class Told(Wire):
    """The reply, whatever it is."""


class MetricsBench(Bench[PluginPeer]):
    """Tells it to start and to stop; in the end it is started, as an engine leaves it."""

    async def start(self) -> None:
        """`StartMetrics`."""
        await self.fine("StartMetrics", self._call("StartMetrics"))

    async def stop(self) -> None:
        """`StopMetrics`."""
        self.later("StartMetrics", lambda: self._call("StartMetrics"))
        await self.fine("StopMetrics", self._call("StopMetrics"))

    async def _call(self, method: str) -> Told:
        return await self.driver.call(f"MetricsCollector.{method}", None, Told, deadline=TELL_SECONDS)


KIT = Kit("metricscollector", PluginPeer, MetricsBench)

_SAID_START = "MetricsCollector.StartMetrics: the plugin may read the metrics socket from now on."
_SAID_STOP = "MetricsCollector.StopMetrics: the plugin must not read it any more."


@KIT.check("it can be started", says=_SAID_START)
async def start(bench: MetricsBench) -> None:
    await bench.start()


@KIT.check("starting what is started is fine", says=_SAID_START)
async def start_again(bench: MetricsBench) -> None:
    await bench.start()
    await bench.start()


@KIT.check("it can be stopped, twice too", says=_SAID_STOP)
async def stop(bench: MetricsBench) -> None:
    await bench.start()
    await bench.stop()
    await bench.stop()


@KIT.check("it can be started after a stop", says=_SAID_START)
async def start_after_stop(bench: MetricsBench) -> None:
    await bench.start()
    await bench.stop()
    await bench.start()

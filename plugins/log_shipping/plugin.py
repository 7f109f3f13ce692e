"""Wires the drivers into the engine."""

from __future__ import annotations

from collections.abc import Iterable

from plugin_sdk import DriverSpec, Plugin, PluginContext, PluginMeta, hookimpl
from plugin_sdk.logs import LogDriver

from .awslogs import AwsLogsDriver
from .fluentd import FluentdDriver
from .gcplogs import GcpLogsDriver
from .gelf import GelfDriver
from .journald import JournaldDriver
from .shipping import ShippingDriver
from .splunk import SplunkDriver
from .syslog import SyslogDriver


class LogShippingPlugin(Plugin):
    """The log drivers that send to a receiver."""

    meta = PluginMeta(
        name="log_shipping",
        description="log drivers syslog, journald, fluentd, gelf, splunk, awslogs and gcplogs",
        drivers=(LogDriver,),
    )

    async def start(self, ctx: PluginContext) -> None:
        """See `Plugin.start`."""
        self._aws, self._gcp = AwsLogsDriver(), GcpLogsDriver()
        self._drivers: list[ShippingDriver] = [
            SyslogDriver(),
            JournaldDriver(),
            FluentdDriver(),
            GelfDriver(),
            SplunkDriver(),
            self._aws,
            self._gcp,
        ]

    async def stop(self) -> None:
        """See `Plugin.stop`."""
        if hasattr(self, "_drivers"):
            self._aws.close()
            self._gcp.close()

    @hookimpl
    def engine_drivers(self) -> Iterable[DriverSpec]:
        """The drivers."""
        return [DriverSpec(LogDriver, driver.name, driver) for driver in self._drivers]

"""Wires the drivers into the engine: each is a plugin of its own, which can be blocked in favour of another of its name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

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


def _meta(driver: type[ShippingDriver], what: str) -> PluginMeta:
    return PluginMeta(name=f"log_{driver.name}", description=f"log driver {driver.name}: {what}", drivers=(LogDriver,))


class LogShippingPlugin(Plugin):
    """What the plugins of this module have in common."""

    driver: ClassVar[type[ShippingDriver]]

    async def start(self, ctx: PluginContext) -> None:
        """See `Plugin.start`."""
        self._driver = self.driver()

    async def stop(self) -> None:
        """See `Plugin.stop`."""
        if hasattr(self, "_driver"):
            self._driver.close()

    @hookimpl
    def engine_drivers(self) -> Iterable[DriverSpec]:
        """The driver."""
        return [DriverSpec(LogDriver, self.driver.name, self._driver)]


class SyslogPlugin(LogShippingPlugin):
    """The driver `syslog`."""

    driver = SyslogDriver
    meta = _meta(SyslogDriver, "RFC 3164 and 5424 over UDP, TCP, TLS and local sockets")


class JournaldPlugin(LogShippingPlugin):
    """The driver `journald`."""

    driver = JournaldDriver
    meta = _meta(JournaldDriver, "systemd's journal")


class FluentdPlugin(LogShippingPlugin):
    """The driver `fluentd`."""

    driver = FluentdDriver
    meta = _meta(FluentdDriver, "Fluentd's forward protocol, which Fluent Bit speaks too")


class GelfPlugin(LogShippingPlugin):
    """The driver `gelf`."""

    driver = GelfDriver
    meta = _meta(GelfDriver, "Graylog's format over UDP and TCP")


class SplunkPlugin(LogShippingPlugin):
    """The driver `splunk`."""

    driver = SplunkDriver
    meta = _meta(SplunkDriver, "Splunk's HTTP Event Collector")


class AwsLogsPlugin(LogShippingPlugin):
    """The driver `awslogs`."""

    driver = AwsLogsDriver
    meta = _meta(AwsLogsDriver, "Amazon CloudWatch Logs; needs the extra awslogs")


class GcpLogsPlugin(LogShippingPlugin):
    """The driver `gcplogs`."""

    driver = GcpLogsDriver
    meta = _meta(GcpLogsDriver, "Google Cloud Logging; needs the extra gcplogs")

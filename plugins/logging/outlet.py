"""The way out of a buffer: the log driver that a container names, and the sink that it opened."""

from __future__ import annotations

import asyncio

from plugin_sdk import PluginContext, PluginError, Unavailable
from plugin_sdk.logs import LogDriver, LogInfo, LogSink

CLOSE_DEADLINE = 5.0


class Outlet:
    """One container's driver and sink. The driver may go away, with its plugin, and come again.

    Attributes:
        driver: the one that was known last.
        sink: open now, if any.
    """

    def __init__(self, ctx: PluginContext, info: LogInfo, driver: LogDriver) -> None:
        self._ctx = ctx
        self._info = info
        self.driver = driver
        self.sink: LogSink | None = None

    @property
    def name(self) -> str:
        """The driver's name, as the container's user gave it."""
        return self._info.container.HostConfig.LogConfig.Type

    @property
    def raw(self) -> bool:
        """Its sinks take the monitor's lines as they are."""
        return bool(getattr(self.driver, "raw", False))

    @property
    def buffered(self) -> bool:
        """The buffer is the log, there is no sink."""
        return bool(getattr(self.driver, "buffered", False))

    @property
    def retained(self) -> bool:
        """The buffer is what is read back, so it keeps what was taken."""
        return self.buffered or not self.driver.readable

    async def opened(self) -> LogSink:
        """The sink of the driver that goes by the name now. Raises what the driver's `open` raises, or Unavailable."""
        driver = self._ctx.drivers.all(LogDriver).get(self.name)
        if driver is None:
            await self.close()
            raise Unavailable(f"no plugin offers the log driver {self.name} now")
        if driver is not self.driver:
            await self.close()
            self.driver = driver
        if self.sink is None:
            sink = await driver.open(self._info)
            if not all(callable(getattr(sink, method, None)) for method in ("write", "close")):
                raise PluginError(self.name, "LogDriver.open", f"{sink!r:.80} is no sink")
            self.sink = sink
        return self.sink

    async def close(self) -> None:
        """Close the sink; a failure is logged."""
        sink, self.sink = self.sink, None
        if sink is None:
            return
        try:
            async with asyncio.timeout(CLOSE_DEADLINE):
                await sink.close()
        except Exception as error:  # noqa: BLE001 - a sink of anybody's
            self._ctx.log.warning("container %s: its log could not be closed: %s", self._info.container.Id[:12], error)

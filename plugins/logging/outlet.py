"""The way out of a buffer: the log driver that a container names, and the sink that it opened."""

from __future__ import annotations

import asyncio

from plugin_sdk import EngineError, NotFound, PluginContext, PluginError, Unavailable
from plugin_sdk.logoptions import boolean_option
from plugin_sdk.logs import LogDriver, LogInfo, LogSink

CLOSE_DEADLINE = 5.0


class Outlet:
    """One container's driver and sink. The driver may go away, with its plugin, and come again.

    Attributes:
        driver: the one that was known last; None before there was any.
        sink: open now, if any.
    """

    def __init__(self, ctx: PluginContext, info: LogInfo, driver: LogDriver | None) -> None:
        self._ctx = ctx
        self._info = info
        self.driver = driver
        self.sink: LogSink | None = None
        self._opening: asyncio.Task[LogSink] | None = None

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
        return self.buffered or (self.cached and (self.driver is None or not self.driver.readable))

    @property
    def cached(self) -> bool:
        """What a driver cannot read back is kept here: no `cache-disabled`."""
        return not boolean_option(self._info.options, "cache-disabled")

    @property
    def used(self) -> bool:
        """A sink is open, or is being opened."""
        return self.sink is not None or self._opening is not None

    def meet(self, driver: LogDriver | None) -> None:
        """This is the driver, if none was known."""
        self.driver = self.driver or driver

    async def opened(self) -> LogSink:
        """The sink of the driver that goes by the name now. An opening once begun goes on when its caller does not wait.

        Raises what the driver's `open` raises; Unavailable when no plugin offers the driver.
        """
        if self.sink is not None and known(self._ctx, self.name) is self.driver:
            return self.sink
        opening = self._opening
        if opening is None:
            opening = self._opening = asyncio.create_task(self._open(), name=f"log of {self._info.container.Id[:12]}")
            opening.add_done_callback(self._over)
        await asyncio.wait([opening])
        if opening.cancelled():
            raise Unavailable(f"log driver {self.name}: closed before it was open")
        return opening.result()

    def _over(self, opening: asyncio.Task[LogSink]) -> None:
        self._opening = None
        if not opening.cancelled():
            # Told to whoever waits; there may be nobody any more, and the next one tries again.
            opening.exception()

    async def _open(self) -> LogSink:
        here = known(self._ctx, self.name)
        if here is None or here is not self.driver:
            await self._close_sink()
        self.driver = driver = here or await self._found()
        if self.sink is None:
            sink = await driver.open(self._info)
            if not all(callable(getattr(sink, method, None)) for method in ("write", "close")):
                raise PluginError(self.name, "LogDriver.open", f"{sink!r:.80} is no sink")
            self.sink = sink
        return self.sink

    async def _found(self) -> LogDriver:
        try:
            return await self._ctx.drivers.find(LogDriver, self.name)
        except NotFound as error:
            raise Unavailable(f"no plugin offers it now: {error}") from None

    async def close(self) -> None:
        """Close the sink, and give up one that is being opened; a failure is logged."""
        opening = self._opening
        if opening is not None:
            opening.cancel()
            await asyncio.wait([opening], timeout=CLOSE_DEADLINE)
        await self._close_sink()

    async def _close_sink(self) -> None:
        sink, self.sink = self.sink, None
        if sink is None:
            return
        try:
            async with asyncio.timeout(CLOSE_DEADLINE):
                await sink.close()
        except EngineError as error:
            self._say(str(error))
        except TimeoutError:
            self._say(f"log driver {self.name} did not answer within {CLOSE_DEADLINE:g} s")
        except Exception as error:  # noqa: BLE001 - a sink of anybody's
            self._say(f"log driver {self.name}: {type(error).__name__}: {error}")

    def _say(self, what: str) -> None:
        self._ctx.log.warning("container %s: its log could not be closed: %s", self._info.container.Id[:12], what)


def known(ctx: PluginContext, name: str) -> LogDriver | None:
    """The log driver of that name if its plugin runs; nobody is waited for."""
    try:
        return ctx.drivers.get(LogDriver, name)
    except NotFound:
        return None

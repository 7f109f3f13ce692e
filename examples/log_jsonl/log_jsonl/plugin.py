"""Wires the driver "jsonl" into the engine."""

from __future__ import annotations

from collections.abc import Iterable

from log_jsonl.driver import JsonLines
from plugin_sdk import DriverSpec, Plugin, PluginMeta, hookimpl
from plugin_sdk.logs import LogDriver


class LogJsonlPlugin(Plugin):
    """Contributes one log driver."""

    meta = PluginMeta(
        name="log_jsonl",
        description="Log driver jsonl: one JSON object a line",
        drivers=(LogDriver,),
    )

    @hookimpl
    def engine_drivers(self) -> Iterable[DriverSpec]:
        """The driver."""
        return [DriverSpec(LogDriver, "jsonl", JsonLines(), deadline=20.0)]

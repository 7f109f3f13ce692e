"""Where the numbers come from. No Prometheus is needed here."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import Any

from plugin_sdk import EngineFacts, HookStats, PluginAdmin, PluginContext, PluginStatus
from plugin_sdk.api import ApiServer

ACTIONS = {
    ("POST", "/containers/create"): "create",
    ("POST", "/containers/{ref}/start"): "start",
    ("DELETE", "/containers/{ref}"): "delete",
    ("GET", "/containers/{ref}/changes"): "changes",
    ("POST", "/commit"): "commit",
}
"""Route to dockerd's name of what it does. dockerd times its own functions, this engine the whole request."""


def host() -> dict[str, str]:
    """Labels of `engine_daemon_engine_info` that the machine decides."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:  # an image without os-release
        release = {}
    uname = os.uname()
    return {
        "architecture": uname.machine,
        "kernel": uname.release,
        "os": release.get("PRETTY_NAME", "Linux"),
        "os_type": "linux",
        "os_version": release.get("VERSION_ID", ""),
    }


class Numbers:
    """Reads what plugins and kernel count.

    Attributes:
        events: published since the start.
        host: see `host`.
        processors, memory: of the machine; memory in bytes.
    """

    def __init__(self, ctx: PluginContext) -> None:
        self._ctx = ctx
        self.events = 0
        self.host = host()
        self.processors = os.cpu_count() or 0
        self.memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    @property
    def facts(self) -> EngineFacts:
        """Of the daemon."""
        return self._ctx.require(PluginAdmin).facts

    def info(self) -> Mapping[str, Any]:
        """What plugins contribute to `info`, for the fields that are no lists."""
        told: dict[str, Any] = {}
        for _, part in self._ctx.hooks.sync("engine_info"):
            told |= part
        return told

    def api(self) -> ApiServer | None:
        """The API server."""
        return self._ctx.find(ApiServer)

    def statuses(self) -> list[PluginStatus]:
        """Plugins in the daemon."""
        return self._ctx.require(PluginAdmin).statuses()

    def stats(self) -> Mapping[tuple[str, str], HookStats]:
        """Their calls."""
        return self._ctx.require(PluginAdmin).stats()

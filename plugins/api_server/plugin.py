"""The API server: binds the sockets, collects the plugins' routes, answers requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

from pydantic import BaseModel

from plugin_sdk import (
    Event,
    Plugin,
    PluginAdmin,
    PluginContext,
    PluginMeta,
    PluginState,
    PluginStatus,
    hookimpl,
    setting,
)
from plugin_sdk.api import (
    API_VERSION,
    ApiServer,
    Denial,
    RequestGuard,
    RequestView,
    ResponseView,
    RouterSpec,
    RouteTimes,
    Stalls,
)
from plugins.api_server.watchdog import Watchdog

_UNPROTECTED = (
    "API is accessible on {address} without encryption. "
    "Access to the remote API is equivalent to root access on the host."
)

SLOW_START = 1.0
"""Seconds after which requests no longer wait for the slowest plugin's start."""

_CERTIFICATES = Path.home() / ".docker"


class Settings(BaseModel):
    """Where and how the API is served."""

    hosts: list[str] = setting(
        [], "Address to listen on: unix://PATH, tcp://HOST:PORT or fd://", flag="--host", short="-H", key="hosts"
    )
    group: str = setting("docker", "Group of the unix socket", flag="--group", short="-G")
    tls: bool = setting(False, "Use TLS; implied by --tlsverify", flag="--tls")
    tlsverify: bool = setting(False, "Use TLS and let in only clients with a certificate of the CA", flag="--tlsverify")
    tlscacert: str = setting(
        str(_CERTIFICATES / "ca.pem"), "CA that signs the clients' certificates", flag="--tlscacert"
    )
    tlscert: str = setting(str(_CERTIFICATES / "cert.pem"), "TLS certificate", flag="--tlscert")
    tlskey: str = setting(str(_CERTIFICATES / "key.pem"), "Key of the TLS certificate", flag="--tlskey")
    experimental: bool = setting(False, "Say that experimental features are on", flag="--experimental")
    api_cors_header: str = setting(
        "",
        "Set CORS headers in the API",
        flag="--api-cors-header",
        ignored="the engine answers no other site's scripts; put a proxy in front of it for that",
    )


class ApiServerPlugin(Plugin):
    """See the module."""

    meta = PluginMeta(
        name="api_server",
        description="Serves the Docker Engine API over HTTP: versions, TLS, hijacked streams",
        provides=(ApiServer,),
        settings=Settings,
        essential=True,
        wants=(RequestGuard,),
    )

    def __init__(self) -> None:
        self._ctx: PluginContext | None = None
        self._server: Any = None
        self._api: Any = None
        self._watchdog = Watchdog()
        self._own: Any = None
        self._enabled: frozenset[str] = frozenset()
        self._began = 0.0

    async def start(self, ctx: PluginContext) -> None:
        """Bind and serve; routes of plugins that start later are found when they are first asked for."""
        # FastAPI takes a fifth of a second to import, and the command line needs these settings without it.
        from plugins.api_server import api, listeners, tls
        from plugins.api_server.app import Api
        from plugins.api_server.leave import Guards
        from plugins.api_server.routes import RouteTable
        from plugins.api_server.server import Server

        self._ctx = ctx
        settings: Settings = ctx.settings
        secured = settings.tls or settings.tlsverify
        context = None
        if secured:
            ca = settings.tlscacert if settings.tlsverify else None
            context = tls.server_context(cert=settings.tlscert, key=settings.tlskey, ca=ca)
        self._began = monotonic()
        self._own = api.router()
        self._api = Api(Guards(self._authorize, self._authorize_response), self._recollect)
        self._api.table = RouteTable([(ctx.name, RouterSpec(self._own))])
        version = ctx.require(PluginAdmin).facts.version
        self._server = Server(self._api, common_headers(version, experimental=settings.experimental))
        opened = listeners.open_all(settings.hosts, tls=secured, group=settings.group)
        await self._server.serve(opened, context)
        self._watchdog.start()
        ctx.provide(ApiServer, self)
        ctx.log.info("listening on %s", ", ".join(self.addresses()))

    async def stop(self) -> None:
        """Stop listening, let running answers end, cut off the rest."""
        self._watchdog.stop()
        if self._server is not None:
            await self._server.stop()

    def addresses(self) -> list[str]:
        """See `ApiServer.addresses`."""
        return self._server.addresses() if self._server is not None else []

    def route_times(self) -> Mapping[tuple[str, str], RouteTimes]:
        """See `ApiServer.route_times`."""
        times: dict[tuple[str, str], RouteTimes] = self._api.table.times() if self._api is not None else {}
        return times

    def stalls(self) -> Stalls:
        """See `ApiServer.stalls`."""
        return self._watchdog.stalls

    @hookimpl
    def engine_info(self) -> dict[str, Any]:
        """The event loop's health, and `ExperimentalBuild`."""
        stalls = self._watchdog.stalls
        bare = self._server.unprotected() if self._server is not None else []
        return {
            "Warnings": [_UNPROTECTED.format(address=address.replace("tcp", "http", 1)) for address in bare],
            "ExperimentalBuild": self._ctx.settings.experimental if self._ctx else False,
            "EventLoop": {
                "LongestStallMilliseconds": round(stalls.longest * 1000, 1),
                "Stalls": stalls.count,
                "Where": stalls.where,
            },
        }

    @hookimpl
    async def engine_ready(self, addresses: list[str]) -> None:
        """From now on, what is not found does not exist."""
        if self._enabled != enabled(self._statuses()):
            self._collect()
        self._api.starting = False

    @hookimpl
    async def engine_event(self, event: Event) -> None:
        """A plugin came or went."""
        if event.type == "plugin" and event.action in ("enable", "disable"):
            self._collect()

    @hookimpl(order=0)
    def engine_api_routers(self) -> Iterable[RouterSpec]:
        """`/_ping`."""
        return [RouterSpec(self._own)]

    async def _authorize(self, view: RequestView) -> Denial | None:
        assert self._ctx is not None
        answered = await self._ctx.hooks.first("engine_authorize", request=view)
        return answered[1] if answered else None

    async def _authorize_response(self, view: RequestView, response: ResponseView) -> Denial | None:
        assert self._ctx is not None
        answered = await self._ctx.hooks.first("engine_authorize_response", request=view, response=response)
        return answered[1] if answered else None

    def _recollect(self) -> bool:
        """Collect the routes anew if a plugin came or went since; says whether.

        Making a hundred routes takes FastAPI a tenth of a second: while the engine starts, it is put off until all
        plugins have, or one of them takes too long.
        """
        statuses = self._statuses()
        if enabled(statuses) == self._enabled:
            return False
        if self._api.starting and any(map(pending, statuses)) and monotonic() - self._began < SLOW_START:
            return False
        self._collect()
        return True

    def _collect(self) -> None:
        from plugins.api_server.routes import RouteTable

        assert self._ctx is not None
        self._enabled = enabled(self._statuses())
        specs = [(plugin, spec) for plugin, given in self._ctx.hooks.sync("engine_api_routers") for spec in given]
        self._api.table = RouteTable(specs, before=self._api.table)

    def _statuses(self) -> list[PluginStatus]:
        assert self._ctx is not None
        return self._ctx.require(PluginAdmin).statuses()


def enabled(statuses: Iterable[PluginStatus]) -> frozenset[str]:
    """Names of the plugins that run."""
    return frozenset(status.name for status in statuses if status.state is PluginState.ENABLED)


def pending(status: PluginStatus) -> bool:
    """Not started yet, but to come: a plugin that shall not run has a reason."""
    return status.state in (PluginState.PENDING, PluginState.STARTING)


def common_headers(version: str, *, experimental: bool) -> bytes:
    """Header lines of every answer."""
    newest = ".".join(map(str, API_VERSION))
    return (
        f"Api-Version: {newest}\r\n"
        f"Docker-Experimental: {'true' if experimental else 'false'}\r\n"
        "Ostype: linux\r\n"
        f"Server: Docker/{version} (linux)\r\n"
    ).encode()

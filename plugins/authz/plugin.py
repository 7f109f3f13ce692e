"""Wires authorization plugins into the engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, field_validator

from plugin_sdk import Holder, Plugin, PluginContext, PluginMeta, hookimpl, setting
from plugin_sdk.api import Denial, RequestGuard, RequestView, ResponseView
from plugin_sdk.managed import InterfaceAdapter, ManagedPlugins, PluginPeer
from plugins.authz.chain import Chain, plain

CAPABILITY = "authz"


class Settings(BaseModel):
    """Who is asked."""

    authorization_plugins: list[str] = setting(
        [],
        "Authorization plugin to put every request to; several are asked in this order, and all must allow",
        flag="--authorization-plugin",
        key="authorization-plugins",
        reloadable=True,
    )

    @field_validator("authorization_plugins")
    @classmethod
    def _named(cls, names: list[str]) -> list[str]:
        for name in names:
            if not name or name != name.strip():
                raise ValueError(f"{name!r} is no plugin's name")
        return names


class AuthZAdapter(InterfaceAdapter):
    """Makes authz an interface that plugins can have. They are called by name, so there is nothing to keep."""

    legacy = "authz"


class AuthZPlugin(Plugin):
    """Puts requests and replies to the chain; see `chain.py`."""

    meta = PluginMeta(
        name="authz",
        description="Puts each API request and reply to the authorization plugins of the setting",
        requires=(ManagedPlugins,),
        drivers=(RequestGuard,),
        settings=Settings,
        # Without it requests would pass that the setting wants judged.
        essential=True,
    )

    def __init__(self) -> None:
        self._ctx: PluginContext
        self._chain: Chain | None = None
        self._adapter = AuthZAdapter()

    async def start(self, ctx: PluginContext) -> None:
        """See `Plugin.start`."""
        self._ctx = ctx
        await self.reload(ctx.settings)

    async def reload(self, settings: Settings) -> None:
        """See `Plugin.reload`; requests under way are judged by the chain that is in force when they ask."""
        names = settings.authorization_plugins
        self._chain = Chain(names, self._find, self._chain) if names else None

    async def _find(self, name: str) -> PluginPeer:
        return await self._ctx.require(ManagedPlugins).peer(name, CAPABILITY)

    @property
    def _names(self) -> list[str]:
        return self._chain.names if self._chain is not None else []

    @hookimpl
    async def engine_authorize(self, request: RequestView) -> Denial | None:
        """The chain's verdict on the request."""
        if self._chain is None:
            return None
        request.judge_response()
        return await self._chain.request(request)

    @hookimpl
    async def engine_authorize_response(self, request: RequestView, response: ResponseView) -> Denial | None:
        """The chain's verdict on the reply."""
        return await self._chain.response(request, response) if self._chain is not None else None

    @hookimpl
    def engine_managed_interfaces(self) -> Mapping[str, InterfaceAdapter]:
        """`docker.authz/1.0`."""
        return {"docker.authz/1.0": self._adapter}

    @hookimpl
    def engine_holders(self, kind: str, key: str) -> Iterable[Holder]:
        """The setting holds the plugins that it names."""
        if kind != "plugin":
            return []
        held = any(plain(name) == plain(key) for name in self._names)
        return [Holder("setting", "authorization-plugins", "authorization-plugins")] if held else []

    @hookimpl
    def engine_info(self) -> dict[str, Any]:
        """`Plugins.Authorization`."""
        return {"Plugins": {"Authorization": self._names}}

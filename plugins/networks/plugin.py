"""Wiring of the plugin `networks`."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from plugin_sdk import (
    DriverSpec,
    Event,
    Holder,
    Plugin,
    PluginAdmin,
    PluginContext,
    PluginMeta,
    hookimpl,
    setting,
)
from plugin_sdk.api import RouterSpec
from plugin_sdk.containers import ContainerDraft, ContainerRecord, Preparation
from plugin_sdk.managed import InterfaceAdapter
from plugin_sdk.network import IpamDriver, NetworkDriver, Networks
from plugin_sdk.runtime import Exit
from plugins.networks import modes
from plugins.networks.base import Base
from plugins.networks.hosts import DnsChoice
from plugins.networks.ipam import DefaultIpam, NullIpam, parse_pools
from plugins.networks.records import Attachments
from plugins.networks.remote_driver import NetworkAdapter
from plugins.networks.remote_ipam import IpamAdapter
from plugins.networks.sandbox import SandboxPool
from plugins.networks.service import NetworksService

if TYPE_CHECKING:
    import asyncio


class NetworksSettings(BaseModel):
    """Settings."""

    dns: list[str] = setting([], "DNS server for containers (repeatable)", flag="--dns")
    dns_opts: list[str] = setting([], "DNS option for containers (repeatable)", flag="--dns-opt", key="dns-opts")
    dns_search: list[str] = setting([], "DNS search domain for containers (repeatable)", flag="--dns-search")
    default_address_pools: list[Any] = setting(
        [],
        "Address pool for networks without a subnet, base=CIDR,size=N (repeatable)",
        flag="--default-address-pool",
        key="default-address-pools",
    )
    host_gateway_ip: list[str] = setting(
        [], "Address that host-gateway of --add-host means", flag="--host-gateway-ip", key="host-gateway-ips"
    )
    network_control_plane_mtu: int = setting(
        1500,
        "MTU of the control plane",
        flag="--network-control-plane-mtu",
        ignored="the control plane of this engine has no MTU of its own",
    )
    sandbox_stock: int = setting(4, "Network sandboxes kept ready for containers to come")


class NetworksPlugin(Plugin):
    """Network objects, address management, sandboxes and service discovery."""

    meta = PluginMeta(
        name="networks",
        description="Network objects, address management, sandboxes and service discovery",
        provides=(Networks,),
        drivers=(IpamDriver,),
        requires=(PluginAdmin,),
        wants=(NetworkDriver,),
        settings=NetworksSettings,
    )

    async def start(self, ctx: PluginContext) -> None:
        """Load what is stored."""
        settings: NetworksSettings = ctx.settings
        for server in (*settings.dns, *settings.host_gateway_ip):
            modes.check_server(server)
        folder = ctx.run / "netns"
        folder.mkdir(mode=0o711, exist_ok=True)
        self._ctx = ctx
        self._pool = SandboxPool(folder, max(0, settings.sandbox_stock), ctx.log.warning)
        self._attachments = Attachments(ctx.state)
        base = Base(ctx, self._attachments, self._pool)
        dns = DnsChoice(settings.dns, settings.dns_search, settings.dns_opts)
        self._service = NetworksService(base, dns, settings.host_gateway_ip)
        self._discovery = base.discovery
        digest = hashlib.sha256(ctx.require(PluginAdmin).facts.id.encode()).digest()
        pool6 = ipaddress.IPv6Network((b"\xfd" + digest[:5] + bytes(10), 48))
        self._ipam = DefaultIpam(parse_pools(settings.default_address_pools), pool6, base.objects.owner_of)
        self._tasks: list[asyncio.Task[Any]] = [ctx.spawn(self._attachments.keep_flushed(), name="flush")]
        restorer = self._service.restorer
        self._adapters: dict[str, InterfaceAdapter] = {
            "docker.networkdriver/1.0": NetworkAdapter(ctx, partial(restorer.arrived, NetworkDriver), restorer.left),
            "docker.ipamdriver/1.0": IpamAdapter(ctx, partial(restorer.arrived, IpamDriver), restorer.left),
        }
        ctx.provide(Networks, self._service)

    async def restore(self) -> None:
        """Adopt, settle, and make sandboxes ready."""
        await self._service.restore()
        self._tasks.append(self._ctx.spawn(self._pool.keep_stocked(), name="sandboxes"))

    async def stop(self) -> None:
        """Let go; running containers keep their sandboxes."""
        if not hasattr(self, "_attachments"):
            return
        for task in self._tasks:
            task.cancel()
        self._discovery.close()
        await self._attachments.flush()
        await self._pool.close()

    @hookimpl
    def engine_drivers(self) -> Iterable[DriverSpec]:
        """The IPAM drivers."""
        return [DriverSpec(IpamDriver, "default", self._ipam), DriverSpec(IpamDriver, "null", NullIpam())]

    @hookimpl
    def engine_managed_interfaces(self) -> Mapping[str, InterfaceAdapter]:
        """Network and IPAM plugins in a process of their own."""
        return self._adapters

    @cached_property
    def _routers(self) -> list[RouterSpec]:
        from plugins.networks.api import router

        return [RouterSpec(router(self._ctx, self._service))]

    @hookimpl
    def engine_api_routers(self) -> Iterable[RouterSpec]:
        """`/networks`."""
        return self._routers

    @hookimpl
    def engine_holders(self, kind: str, key: str) -> Iterable[Holder]:
        """Containers on a network; networks of a plugin's driver."""
        if kind == "network":
            return self._service.users(key)
        return self._service.networks_of(key) if kind == "plugin" else ()

    @hookimpl(order=30)
    async def engine_container_validate(self, draft: ContainerDraft) -> None:
        """Modes, endpoints, ports."""
        await self._service.validate(draft)

    @hookimpl(order=30)
    async def engine_container_create(self, draft: ContainerDraft) -> None:
        """Remember what is wanted."""
        self._service.create(draft)

    @hookimpl(order=30)
    async def engine_container_prepare(self, container: ContainerRecord, preparation: Preparation) -> None:
        """Plug in."""
        await self._service.ready()
        await self._service.runs.prepare(container, preparation)

    @hookimpl(order=30)
    async def engine_container_release(self, container: ContainerRecord, exit: Exit | None) -> None:
        """Unplug."""
        await self._service.runs.release(container.Id)

    @hookimpl(order=30)
    async def engine_container_remove(self, container: ContainerRecord, volumes: bool) -> None:
        """Forget."""
        await self._service.remove(container.Id)

    @hookimpl
    async def engine_ready(self, addresses: list[str]) -> None:
        """Managed plugins that still run have claimed their networks by now."""
        self._ctx.spawn(self._service.guests.drop_unclaimed(), name="guests")

    @hookimpl
    async def engine_event(self, event: Event) -> None:
        """A renamed container is found under its new name."""
        if event.type == "container" and event.action == "rename":
            self._service.renamed(event.actor, event.attributes.get("name", "").removeprefix("/"))

    @hookimpl
    def engine_info(self) -> dict[str, Any]:
        """Part of `GET /info`."""
        if not self._ctx.settings.default_address_pools:
            return {}
        return {"DefaultAddressPools": [{"Base": str(base), "Size": size} for base, size in self._ipam.pools]}

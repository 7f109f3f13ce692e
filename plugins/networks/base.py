"""What the parts of the service share: the memory of attachments and networks, and small questions about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from plugin_sdk import EngineError, Event, Holder, PluginContext
from plugin_sdk.containers import ContainerRecord, Containers, EndpointConfig
from plugin_sdk.network import EndpointRecord
from plugin_sdk.text import new_id
from plugins.networks import modes, names
from plugins.networks.debts import Debt, Debts, Failure
from plugins.networks.discovery import Discovery
from plugins.networks.finding import Finder
from plugins.networks.objects import NetworkObjects
from plugins.networks.plugging import Plugger
from plugins.networks.records import Attachment, Attachments, StoredNetwork
from plugins.networks.sandbox import SandboxPool
from plugins.networks.turns import Turns
from plugins.networks.wanted import wanted_of


class Base:
    """Shared state; one per plugin.

    Attributes:
        coming: container ID to the networks (ID to the container's name) that it is about to be plugged into.
    """

    def __init__(self, ctx: PluginContext, attachments: Attachments, pool: SandboxPool) -> None:
        self.ctx, self.attachments, self.pool = ctx, attachments, pool
        self.finder = Finder(ctx)
        self.debts = Debts(ctx)
        self.plugger = Plugger(ctx, self.finder, self.debts)
        self.objects = NetworkObjects(ctx, self.finder, self.debts, self.users)
        self.debts.pay = self._pay
        self.discovery = Discovery(ctx)
        self.turns = Turns()
        self.coming: dict[str, dict[str, str]] = {}

    async def _pay(self, debt: Debt) -> Sequence[Failure]:
        if debt.Endpoint is not None:
            return await self.plugger.settle(debt, debt.Endpoint)
        return await self.objects.undo(debt.Network, driver=debt.Driver, pools=debt.Addresses)

    def attachment(self, container: ContainerRecord) -> Attachment:
        """The container's attachment; one that was never changed follows from the container's record."""
        known = self.attachments.get(container.Id)
        if known is not None:
            return known.model_copy(update={"ContainerName": name_of(container)})
        return Attachment(
            ContainerID=container.Id,
            ContainerName=name_of(container),
            Wanted=wanted_of(container.HostConfig.NetworkMode, container.Config, container.Networking, self.objects),
        )

    def container(self, container_id: str) -> ContainerRecord | None:
        """The container, if there is one."""
        containers = self.ctx.find(Containers)
        if containers is None:
            return None
        try:
            return containers.get(container_id)
        except EngineError:
            return None

    def plugged_into(self, network_id: str) -> Sequence[EndpointRecord]:
        """Endpoints in use on a network."""
        return [
            endpoint
            for attachment in self.attachments.all()
            for endpoint in attachment.Endpoints
            if endpoint.NetworkID == network_id
        ]

    def users(self, network_id: str) -> Sequence[Holder]:
        """Containers and guests that are plugged into a network, or about to be."""
        running = [
            Holder(
                "plugin" if attachment.Guest else "container", attachment.ContainerID, endpoint.ContainerName, "running"
            )
            for attachment in self.attachments.all()
            for endpoint in attachment.Endpoints
            if endpoint.NetworkID == network_id
        ]
        starting = [
            Holder("container", container_id, networks[network_id], "starting")
            for container_id, networks in self.coming.items()
            if network_id in networks
        ]
        return running + starting

    def draft(
        self, container: ContainerRecord, network: StoredNetwork, config: EndpointConfig, interface: str
    ) -> EndpointRecord:
        """A new endpoint, before addresses are known."""
        hostname = container.Config.Hostname
        name = name_of(container)
        return EndpointRecord(
            Id=new_id(),
            NetworkID=network.Id,
            ContainerID=container.Id,
            ContainerName=name,
            MacAddress=config.MacAddress.lower().replace("-", ":"),
            Aliases=config.Aliases,
            DNSNames=[] if network.Predefined else names.dns_names(name, container.Id, hostname, config.Aliases),
            Exposed=modes.exposed_ports(container.Config.ExposedPorts, container.HostConfig.PortBindings),
            DriverOpts=config.DriverOpts,
            GwPriority=config.GwPriority,
            Asked=config.model_dump(exclude_defaults=True),
            Interface=interface,
        )

    def needs_names(self, attachment: Attachment) -> bool:
        """The container is on a user-defined network, so that the engine answers its DNS questions."""
        return bool(attachment.Sandbox) and any(
            (network := self.objects.find(endpoint.NetworkID)) is not None and not network.Predefined
            for endpoint in attachment.Endpoints
        )

    def tell(self, action: str, network: StoredNetwork, container_id: str) -> None:
        """Publish the event."""
        facts = {"container": container_id, "name": network.Name, "type": network.Driver}
        self.ctx.events.publish(Event(type="network", action=action, actor=network.Id, attributes=facts))

    def announce(
        self, change: Literal["connected", "disconnected"], network: StoredNetwork, endpoint: EndpointRecord
    ) -> None:
        """Call `engine_endpoint_changed`, behind the answer."""
        self.ctx.spawn(
            self.ctx.hooks.notify("engine_endpoint_changed", change=change, network=network, endpoint=endpoint),
            name=f"endpoint {endpoint.Id[:12]} {change}",
        )


def name_of(container: ContainerRecord) -> str:
    """Without the slash that the API puts before it."""
    return container.Name.removeprefix("/")


def plain_addresses(endpoint: EndpointRecord) -> list[str]:
    """IPv4 and IPv6 address without prefix lengths."""
    return [text.partition("/")[0] for text in (endpoint.IPv4Address, endpoint.IPv6Address) if text]


def with_endpoint(attachment: Attachment, endpoint: EndpointRecord) -> Attachment:
    """The attachment with this endpoint added, or in its old place when it is known."""
    endpoints = list(attachment.Endpoints)
    for place, known in enumerate(endpoints):
        if known.Id == endpoint.Id:
            endpoints[place] = endpoint
            break
    else:
        endpoints.append(endpoint)
    return attachment.model_copy(update={"Endpoints": endpoints})

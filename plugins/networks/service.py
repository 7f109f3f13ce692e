"""The `Networks` service."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from plugin_sdk import EngineError, Holder, NotFound, Unavailable
from plugin_sdk.aio import blocking
from plugin_sdk.containers import ContainerDraft, ContainerRecord, Containers, EndpointConfig, Preparation
from plugin_sdk.network import EndpointRecord
from plugins.networks import hosts, names
from plugins.networks.base import Base
from plugins.networks.changes import Changes
from plugins.networks.guests import Guests
from plugins.networks.holding import holders_of_plugin
from plugins.networks.objects import NetworkCreate
from plugins.networks.records import Attachment, StoredNetwork
from plugins.networks.restoring import Restorer
from plugins.networks.runs import Runs
from plugins.networks.sandbox import alive
from plugins.networks.surroundings import Surroundings
from plugins.networks.wanted import normalise, wanted_of

_RESTORE_DEADLINE = 25.0


class NetworksService:
    """See `plugin_sdk.network.Networks`.

    Changes of one container's attachment are made one after the other; different containers never wait for each other.
    """

    def __init__(self, base: Base, dns: hosts.DnsChoice, gateway_ips: Sequence[str]) -> None:
        self._base = base
        self._surroundings = Surroundings(base, dns, gateway_ips)
        self._changes = Changes(base, self._surroundings)
        self.runs = Runs(base, self._surroundings)
        self.guests = Guests(base, self.runs)
        self.restorer = Restorer(base)
        self.objects = base.objects
        self._restored = asyncio.Event()

    def get(self, ref: str) -> StoredNetwork:
        """See `Networks.get`."""
        return self.objects.get(ref)

    def list(self) -> Sequence[StoredNetwork]:
        """See `Networks.list`."""
        return self.objects.list()

    def endpoints(self, container_id: str) -> Sequence[EndpointRecord]:
        """See `Networks.endpoints`."""
        attachment = self._base.attachments.get(container_id)
        if attachment is None:
            container = self._base.container(container_id)
            if container is None:
                return ()
            attachment = self._base.attachment(container)
        by_network = {endpoint.NetworkID: endpoint for endpoint in attachment.Endpoints}
        found = []
        for ref, config in attachment.Wanted.items():
            network = (self.objects.find(config.NetworkID) if config.NetworkID else None) or self.objects.find(ref)
            if network is not None:
                plugged = by_network.get(network.Id)
                by_network.pop(network.Id, None)
                found.append(plugged or self._unplugged(attachment, network, config))
        return [*found, *by_network.values()]

    def sandbox(self, container_id: str) -> Path | None:
        """See `Networks.sandbox`."""
        attachment = self._base.attachments.get(container_id)
        return Path(attachment.Sandbox) if attachment is not None and attachment.Sandbox else None

    async def create_network(self, request: NetworkCreate) -> StoredNetwork:
        """See `NetworkObjects.create`."""
        self._base.discovery.expect_questions()
        return await self.objects.create(request)

    def plugged_into(self, network_id: str) -> Sequence[EndpointRecord]:
        """Endpoints in use on a network."""
        return self._base.plugged_into(network_id)

    def users(self, network_id: str) -> Sequence[Holder]:
        """`engine_holders` for networks."""
        return self._base.users(network_id)

    def networks_of(self, plugin: str) -> Sequence[Holder]:
        """`engine_holders` for plugins: what would be lost without the plugin's network and IPAM drivers."""
        return holders_of_plugin(self._base, plugin, self.endpoints)

    async def connect(self, ref: str, container: ContainerRecord, config: EndpointConfig) -> None:
        """See `Networks.connect`."""
        await self._changes.connect(ref, container, config)

    async def disconnect(self, ref: str, container: ContainerRecord, *, force: bool = False) -> None:
        """See `Networks.disconnect`."""
        await self._changes.disconnect(ref, container, force=force)

    async def lend(self, guest: ContainerRecord, preparation: Preparation) -> None:
        """See `Networks.lend`."""
        await self.ready()
        await self.guests.lend(guest, preparation)

    async def keep(self, guest_id: str) -> bool:
        """See `Networks.keep`."""
        return self.guests.keep(guest_id)

    async def take_back(self, guest_id: str) -> None:
        """See `Networks.take_back`."""
        await self.guests.take_back(guest_id)

    async def disconnect_gone(self, ref: str, name: str) -> None:
        """Drop what is left on a network of a container that no longer exists. Raises NotFound."""
        network = self.objects.get(ref)
        for endpoint in self.plugged_into(network.Id):
            attachment = self._base.attachments.get(endpoint.ContainerID)
            if (
                attachment is not None
                and not attachment.Guest
                and name in (endpoint.ContainerName, endpoint.ContainerID)
            ):
                await self.runs.release(endpoint.ContainerID)
                return
        raise NotFound(f"endpoint {name} not found")

    async def ready(self) -> None:
        """Wait until what is stored has been restored: the API listens before that. Raises Unavailable."""
        if not self._restored.is_set():
            try:
                async with asyncio.timeout(_RESTORE_DEADLINE):
                    await self._restored.wait()
            except TimeoutError:
                raise Unavailable("the networks are still being restored") from None

    async def validate(self, draft: ContainerDraft) -> None:
        """`engine_container_validate`."""
        await self.ready()
        normalise(draft, self.objects, self._base.ctx.find(Containers))

    def create(self, draft: ContainerDraft) -> None:
        """`engine_container_create`: nothing is taken, so nothing has to be stored."""
        self._base.attachments.keep(
            Attachment(
                ContainerID=draft.id,
                ContainerName=draft.name.removeprefix("/"),
                Wanted=wanted_of(draft.host.NetworkMode, draft.config, draft.networking, self.objects),
            )
        )

    async def remove(self, container_id: str) -> None:
        """`engine_container_remove`."""
        await self.runs.release(container_id)
        self._base.attachments.forget(container_id)

    def renamed(self, container_id: str, name: str) -> None:
        """A container has another name: its old one no longer resolves."""
        attachment = self._base.attachments.get(container_id)
        if attachment is None or attachment.ContainerName == name:
            return
        old = attachment.ContainerName
        endpoints = []
        for before in attachment.Endpoints:
            known = [name if entry == old else entry for entry in before.DNSNames]
            after = before.model_copy(update={"ContainerName": name, "DNSNames": known})
            self._base.discovery.moved(before, after)
            endpoints.append(after)
        self._base.attachments.settle(attachment.model_copy(update={"ContainerName": name, "Endpoints": endpoints}))

    async def restore(self) -> None:
        """Adopt what runs, give back what does not; bring drivers and name servers back in step."""
        try:
            await self._restore()
        finally:
            self._restored.set()

    async def _restore(self) -> None:
        base = self._base
        containers = base.ctx.find(Containers)
        for attachment in base.attachments.all():
            if attachment.Sandbox and not alive(Path(attachment.Sandbox)):
                # A boot of the machine has taken the namespace, and with it all that hung on it.
                base.attachments.settle(attachment.model_copy(update={"Sandbox": "", "Endpoints": [], "Files": ""}))
        await self.restorer.start()
        await self.objects.make_predefined()
        if containers is not None:
            await self._settle_ended(containers)
        owned = [Path(attachment.Sandbox) for attachment in base.attachments.all() if attachment.Sandbox]
        if dropped := await base.pool.drop_strangers(owned):
            base.ctx.log.info("%d network sandboxes without an owner were removed", dropped)
        await self._restore_names()

    async def _settle_ended(self, containers: Containers) -> None:
        for attachment in self._base.attachments.all():
            if attachment.Guest:
                continue  # it may be claimed until `engine_ready`
            container = self._base.container(attachment.ContainerID)
            if container is not None and (container.State.running or container.State.Starting):
                continue
            try:
                await self.runs.release(attachment.ContainerID, wait=False)
            except EngineError as error:
                self._base.ctx.log.warning("networks of container %s: %s", attachment.ContainerID[:12], error)
            if container is None:
                self._base.attachments.forget(attachment.ContainerID)

    async def _restore_names(self) -> None:
        base = self._base
        host = await blocking(hosts.host_resolv)
        for attachment in base.attachments.all():
            for endpoint in attachment.Endpoints:
                base.discovery.names.add(endpoint)
        for attachment in base.attachments.all():
            container = base.container(attachment.ContainerID)
            if attachment.Sandbox and container is not None:
                try:
                    await self._surroundings.resume(container, attachment, host)
                except EngineError as error:
                    base.ctx.log.warning("name server of container %s: %s", attachment.ContainerName, error)

    def _unplugged(self, attachment: Attachment, network: StoredNetwork, config: EndpointConfig) -> EndpointRecord:
        container = self._base.container(attachment.ContainerID)
        hostname = container.Config.Hostname if container is not None else ""
        known = names.dns_names(attachment.ContainerName, attachment.ContainerID, hostname, config.Aliases)
        return EndpointRecord(
            Id="",
            NetworkID=network.Id,
            ContainerID=attachment.ContainerID,
            ContainerName=attachment.ContainerName,
            MacAddress=config.MacAddress,
            Aliases=config.Aliases,
            DNSNames=[] if network.Predefined else known,
            DriverOpts=config.DriverOpts,
            GwPriority=config.GwPriority,
            Asked=config.model_dump(exclude_defaults=True),
        )

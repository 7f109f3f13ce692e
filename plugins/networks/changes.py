"""Connecting and disconnecting containers that exist, running or not."""

from __future__ import annotations

from pathlib import Path

from plugin_sdk import EngineError, Forbidden, InvalidParameter
from plugin_sdk.containers import ContainerRecord, EndpointConfig
from plugin_sdk.network import EndpointRecord
from plugins.networks import modes
from plugins.networks.base import Base, name_of, with_endpoint
from plugins.networks.gwbridge import settle_gateway
from plugins.networks.modes import parse_mode
from plugins.networks.records import Attachment, StoredNetwork
from plugins.networks.surroundings import Surroundings
from plugins.networks.wanted import check_wanted

_NOT_HOST = "container cannot be disconnected from host network or connected to host network"


class Changes:
    """Connect and disconnect."""

    def __init__(self, base: Base, surroundings: Surroundings) -> None:
        self._base, self._surroundings = base, surroundings

    async def connect(self, ref: str, container: ContainerRecord, config: EndpointConfig) -> None:
        """See `Networks.connect`. Raises Forbidden, InvalidParameter, and what the drivers raise."""
        base = self._base
        async with base.turns.alone(container.Id):
            network = base.objects.usable(ref)
            attachment = base.attachment(container)
            self._may_connect(container, attachment, network)
            check_wanted(network, config, where="")
            modes.check_mac(config.MacAddress, network.Name)
            config = config.model_copy(update={"NetworkID": network.Id})
            running = bool(attachment.Sandbox)
            if running and any(endpoint.NetworkID == network.Id for endpoint in attachment.Endpoints):
                raise Forbidden(f"endpoint with name {name_of(container)} already exists in network {network.Name}")
            wanted = {**attachment.Wanted, network.Name: config}
            attachment = attachment.model_copy(update={"Wanted": wanted})
            if running:
                attachment = await self._plug(container, attachment, network, config)
            await base.attachments.save(attachment)
        base.tell("connect", network, container.Id)

    async def disconnect(self, ref: str, container: ContainerRecord, *, force: bool = False) -> None:
        """See `Networks.disconnect`. Raises EngineError when it is not connected."""
        base = self._base
        async with base.turns.alone(container.Id):
            network = base.objects.get(ref)
            if network.Name == "host":
                raise InvalidParameter(_NOT_HOST)
            attachment = base.attachment(container)
            wanted = {
                key: config
                for key, config in attachment.Wanted.items()
                if network.Id not in (config.NetworkID, getattr(base.objects.find(key), "Id", ""))
            }
            endpoint = next((known for known in attachment.Endpoints if known.NetworkID == network.Id), None)
            if endpoint is None and len(wanted) == len(attachment.Wanted):
                raise EngineError(f"container {container.Id} is not connected to network {network.Name}")
            attachment = attachment.model_copy(update={"Wanted": wanted})
            if endpoint is not None:
                attachment = await self._unplug(container, attachment, network, endpoint, force=force)
            await base.attachments.save(attachment)
        base.tell("disconnect", network, container.Id)

    async def _plug(
        self, container: ContainerRecord, attachment: Attachment, network: StoredNetwork, config: EndpointConfig
    ) -> Attachment:
        base = self._base
        used = {endpoint.Interface for endpoint in attachment.Endpoints}
        interface = next(name for number in range(len(used) + 1) if (name := f"eth{number}") not in used)
        draft = base.draft(container, network, config, interface)
        draft = draft.model_copy(update={"Sandbox": attachment.Sandbox})
        base.coming[container.Id] = {network.Id: name_of(container)}
        before = attachment
        try:
            endpoint = await base.plugger.reserve(network, draft, config)
            attachment = with_endpoint(attachment, endpoint)
            try:
                await base.attachments.save(attachment)
                endpoint = await base.plugger.join(network, endpoint, Path(attachment.Sandbox))
                attachment = with_endpoint(attachment, endpoint)
                attachment = await settle_gateway(base, container, attachment)
                await self._surroundings.added(container, attachment, endpoint)
            except BaseException:
                await base.plugger.let_go(network, endpoint)
                wanted = {key: config for key, config in before.Wanted.items() if key != network.Name}
                base.attachments.settle(before.model_copy(update={"Wanted": wanted}))
                raise
        finally:
            base.coming.pop(container.Id, None)
        base.discovery.names.add(endpoint)
        base.announce("connected", network, endpoint)
        return attachment

    async def _unplug(
        self,
        container: ContainerRecord,
        attachment: Attachment,
        network: StoredNetwork,
        endpoint: EndpointRecord,
        *,
        force: bool,
    ) -> Attachment:
        base = self._base
        if force:
            await base.plugger.let_go(network, endpoint)
        elif failures := await base.plugger.unplug(network, endpoint):
            raise failures[0].error
        base.discovery.names.remove(endpoint)
        left = [known for known in attachment.Endpoints if known.Id != endpoint.Id]
        attachment = attachment.model_copy(update={"Endpoints": left})
        if attachment.Sandbox:
            if endpoint.DefaultRoute:
                attachment = await settle_gateway(base, container, attachment, ports_of=endpoint)
            await self._surroundings.removed(container, attachment, endpoint)
        base.announce("disconnected", network, endpoint)
        return attachment

    @staticmethod
    def _may_connect(container: ContainerRecord, attachment: Attachment, network: StoredNetwork) -> None:
        if network.Name == "host":
            raise InvalidParameter(_NOT_HOST)
        if parse_mode(container.HostConfig.NetworkMode).kind in ("host", "container"):
            raise InvalidParameter(
                "container sharing network namespace with another container or host cannot be connected to any other"
                " network"
            )
        others = attachment.Wanted.keys() - {network.Name}
        if others and (network.Name == "none" or "none" in others):
            raise InvalidParameter(
                "container cannot be connected to multiple networks with one of the networks in private (none) mode"
            )

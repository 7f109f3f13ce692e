"""`docker_gwbridge`: the way out for containers whose network plugin names no gateway and does not decline one.

As in Docker, such a container gets an endpoint on a bridge network of that name besides, made when first needed; containers on
it do not reach each other. It carries the default route and the published ports, and goes when another network gives a gateway.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from plugin_sdk import Conflict
from plugin_sdk.containers import ContainerRecord, EndpointConfig
from plugin_sdk.network import EndpointRecord
from plugins.networks.base import Base, with_endpoint
from plugins.networks.gateways import move_gateway
from plugins.networks.objects import NetworkCreate
from plugins.networks.plugging import choose_gateway
from plugins.networks.records import Attachment, StoredNetwork

NAME = "docker_gwbridge"
_OPTIONS = {"com.docker.network.bridge.enable_icc": "false", "com.docker.network.bridge.enable_ip_masquerade": "true"}
_PATIENCE = 10.0
_LOOK = 0.05


async def settle_gateway(
    base: Base, container: ContainerRecord, attachment: Attachment, *, ports_of: EndpointRecord | None = None
) -> Attachment:
    """`move_gateway`, with an endpoint on `docker_gwbridge` added where it is needed and removed where it is not."""
    ours = _ours(base, attachment)
    others = [endpoint for endpoint in attachment.Endpoints if endpoint is not ours]
    networks = [base.objects.get(endpoint.NetworkID) for endpoint in others]
    needed = any(e.WantsGateway for e in others) and choose_gateway(others, networks) is None
    if needed and ours is None:
        return await _add(base, container, attachment, ports_of)
    if ours is not None and not needed:
        network = base.objects.get(ours.NetworkID)
        await base.plugger.let_go(network, ours)
        base.announce("disconnected", network, ours)
        attachment = attachment.model_copy(update={"Endpoints": others})
        base.attachments.keep(attachment)
        ports_of = ours
    return await move_gateway(base, container, attachment, ports_of=ports_of)


def _ours(base: Base, attachment: Attachment) -> EndpointRecord | None:
    network = base.objects.find(NAME)
    if network is None or NAME in attachment.Wanted:
        return None
    return next((endpoint for endpoint in attachment.Endpoints if endpoint.NetworkID == network.Id), None)


async def _add(
    base: Base, container: ContainerRecord, attachment: Attachment, ports_of: EndpointRecord | None
) -> Attachment:
    network = await _network(base)
    used = {endpoint.Interface for endpoint in attachment.Endpoints}
    interface = next(name for number in range(len(used) + 1) if (name := f"eth{number}") not in used)
    draft = base.draft(container, network, EndpointConfig(), interface)
    draft = draft.model_copy(update={"Sandbox": attachment.Sandbox, "DNSNames": []})
    endpoint = await base.plugger.reserve(network, draft, EndpointConfig())
    try:
        attachment = with_endpoint(attachment, endpoint)
        await base.attachments.save(attachment)
        await base.plugger.join(network, endpoint, Path(attachment.Sandbox))
        attachment = await move_gateway(base, container, attachment, ports_of=ports_of)
    except BaseException:
        known = base.attachments.get(container.Id)
        latest = next((e for e in known.Endpoints if e.Id == endpoint.Id), endpoint) if known is not None else endpoint
        await base.plugger.let_go(network, latest)
        left = [known for known in attachment.Endpoints if known.Id != endpoint.Id]
        base.attachments.settle(attachment.model_copy(update={"Endpoints": left}))
        raise
    base.announce("connected", network, endpoint)
    return attachment


async def _network(base: Base) -> StoredNetwork:
    """The network, made by whoever needs it first; the others wait for it."""
    for _ in range(int(_PATIENCE / _LOOK)):
        network = base.objects.find(NAME)
        if network is not None:
            return base.objects.usable(network.Id)
        try:
            return await base.objects.create(NetworkCreate(Name=NAME, Driver="bridge", Options=_OPTIONS))
        except Conflict:
            await asyncio.sleep(_LOOK)
    raise Conflict(f"network {NAME} is being made or removed, and that does not end")

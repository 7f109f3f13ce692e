"""Which of a container's networks gives it the default route and its published ports."""

from __future__ import annotations

from pathlib import Path

from plugin_sdk.containers import ContainerRecord
from plugin_sdk.network import EndpointRecord
from plugins.networks import modes, placing
from plugins.networks.base import Base, with_endpoint
from plugins.networks.plugging import choose_gateway
from plugins.networks.records import Attachment


async def move_gateway(
    base: Base, container: ContainerRecord, attachment: Attachment, *, ports_of: EndpointRecord | None = None
) -> Attachment:
    """Give the default route and the published ports to the endpoint that is now due to have them.

    Args:
        ports_of: an endpoint that had them and is gone.
    """
    networks = {e.NetworkID: base.objects.get(e.NetworkID) for e in attachment.Endpoints}
    new = choose_gateway(attachment.Endpoints, [networks[e.NetworkID] for e in attachment.Endpoints])
    old = next((endpoint for endpoint in attachment.Endpoints if endpoint.DefaultRoute), None)
    if new is old:
        return attachment
    had = old or ports_of
    ports = list(had.Ports) if had is not None else []
    ports = ports or modes.published_ports(container.Config, container.HostConfig)
    if old is not None:
        await base.plugger.unpublish(networks[old.NetworkID], old)
        attachment = with_endpoint(attachment, old.model_copy(update={"DefaultRoute": False, "Ports": []}))
    sandbox = Path(attachment.Sandbox)
    if new is None:
        await base.plugger.inside(None, sandbox, placing.set_default_route, None)
        return attachment
    network = networks[new.NetworkID]
    new = new.model_copy(update={"DefaultRoute": True, "Ports": ports})
    # Known as the gateway from here on: if what follows fails, it is to be revoked.
    attachment = with_endpoint(attachment, new)
    base.attachments.keep(attachment)
    await base.plugger.inside(network, sandbox, placing.set_default_route, new)
    if ports or await base.plugger.gateway_at_join(network):
        attachment = with_endpoint(attachment, await base.plugger.publish(network, new))
    return attachment

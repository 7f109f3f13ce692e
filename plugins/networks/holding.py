"""Who needs a plugin because of its network or IPAM driver."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from plugin_sdk import Holder, NotFound, PluginContext
from plugin_sdk.containers import Containers
from plugin_sdk.network import EndpointRecord, IpamDriver, NetworkDriver
from plugins.networks.base import Base, name_of
from plugins.networks.records import StoredNetwork


def holders_of_plugin(
    base: Base, plugin: str, endpoints: Callable[[str], Sequence[EndpointRecord]]
) -> Sequence[Holder]:
    """Networks whose driver or address manager the plugin is, and the containers on them, running or not.

    Also while its drivers are not registered: a plugin in a process of its own gives them its own name.
    """
    ctx = base.ctx
    needy = {
        network.Id: network
        for network in base.objects.list()
        if not network.ConfigOnly
        and _needs(ctx, network, plugin)
        and (not network.Predefined or base.users(network.Id))
    }
    found = [Holder("network", network.Id, network.Name) for network in needy.values()]
    containers = ctx.find(Containers)
    for container in containers.list() if containers is not None and needy else ():
        if any(endpoint.NetworkID in needy for endpoint in endpoints(container.Id)):
            detail = "running" if container.State.running else "stopped"
            found.append(Holder("container", container.Id, name_of(container), detail))
    return found


def _needs(ctx: PluginContext, network: StoredNetwork, plugin: str) -> bool:
    for kind, name in ((NetworkDriver, network.Driver), (IpamDriver, network.IPAM.Driver)):
        if name in (plugin, f"{plugin}:latest"):
            return True
        try:
            if ctx.drivers.owner(kind, name) == plugin:
                return True
        except NotFound:
            continue
    return False

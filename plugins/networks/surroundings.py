"""What a container is told about its network: files in /etc, and answers to its DNS questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from plugin_sdk import InvalidParameter
from plugin_sdk.aio import blocking
from plugin_sdk.containers import ContainerRecord, Preparation
from plugin_sdk.network import EndpointRecord
from plugin_sdk.runtime import OciMount
from plugins.networks import hosts, modes, names
from plugins.networks.base import Base, plain_addresses
from plugins.networks.links import Link, split_link
from plugins.networks.modes import Mode
from plugins.networks.records import Attachment

_COMMENT = "Written by the engine at each start of the container."


class Surroundings:
    """Files and name servers.

    Args:
        default: the daemon's DNS settings.
        gateway_ips: what `host-gateway` means; empty: the default bridge's gateway.
    """

    def __init__(self, base: Base, default: hosts.DnsChoice, gateway_ips: Sequence[str]) -> None:
        self._base, self._default, self._gateway_ips = base, default, gateway_ips

    async def furnish(
        self,
        container: ContainerRecord,
        mode: Mode,
        attachment: Attachment,
        links: Sequence[Link],
        preparation: Preparation,
    ) -> None:
        """Write the files, mount them, and start the name server where one is due."""
        lines = [(link.address, f"{link.alias} {link.container_id[:12]} {link.name}") for link in links if link.address]
        extra = map(modes.split_extra_host, container.HostConfig.ExtraHosts)
        lines += [(self._extra_address(address), name) for name, address in extra]
        lines += self._own_lines(container, attachment.Endpoints)
        choice = self._choice(container)
        embedded = self._base.needs_names(attachment)
        make = hosts.embedded_resolv if embedded else hosts.plain_resolv
        if mode.kind == "host":
            make = hosts.host_mode_resolv

        def work() -> tuple[list[OciMount], hosts.ResolvConf]:
            host = hosts.host_resolv()
            files = hosts.HostFiles(
                container.Config.Hostname or container.Id[:12],
                make(choice, host).text(_COMMENT),
                copy_hosts=mode.kind == "host",
                names=lines,
            )
            return hosts.write(Path(attachment.Files), files, container.Ids), host

        mounts, host = await blocking(work)
        add_mounts(preparation, container, hosts.for_guest(mounts) if attachment.Guest else mounts)
        if embedded:
            await self._serve(container, attachment, host)

    async def added(self, container: ContainerRecord, attachment: Attachment, endpoint: EndpointRecord) -> None:
        """A running container has got an endpoint."""
        lines = self._own_lines(container, [endpoint])
        await blocking(hosts.change_names, Path(attachment.Files), add=lines)
        if self._base.needs_names(attachment):
            host = await blocking(hosts.host_resolv)
            if await self._serve(container, attachment, host):
                # Until now its resolv.conf named the host's servers, which know nothing of containers.
                text = hosts.embedded_resolv(self._choice(container), host).text(_COMMENT)
                await blocking(hosts.replace, Path(attachment.Files) / hosts.RESOLV, text)

    async def removed(self, container: ContainerRecord, attachment: Attachment, endpoint: EndpointRecord) -> None:
        """A running container has lost an endpoint."""
        await blocking(hosts.change_names, Path(attachment.Files), drop=plain_addresses(endpoint))
        await self.resume(container, attachment, await blocking(hosts.host_resolv))

    async def resume(self, container: ContainerRecord, attachment: Attachment, host: hosts.ResolvConf) -> None:
        """Let the name server know the present networks; after a restart of the daemon, start it again."""
        if self._base.needs_names(attachment):
            await self._serve(container, attachment, host)

    async def _serve(self, container: ContainerRecord, attachment: Attachment, host: hosts.ResolvConf) -> bool:
        plugged = [(self._base.objects.get(endpoint.NetworkID), endpoint) for endpoint in attachment.Endpoints]
        plugged.sort(key=lambda pair: (not pair[1].DefaultRoute, -pair[1].GwPriority, pair[0].Name))
        # A container that cannot reach the outside must not get messages out in DNS questions either.
        closed = all(network.Internal for network, _ in plugged)
        view = names.View(
            {network.Id: network for network, _ in plugged if not network.Predefined},
            self._aliases(container, attachment),
            () if closed else hosts.upstreams(self._choice(container), host),
        )
        return await self._base.discovery.serve(container.Id, Path(attachment.Sandbox), view)

    def _aliases(self, container: ContainerRecord, attachment: Attachment) -> Mapping[str, str]:
        links = [*container.HostConfig.Links, *(link for config in attachment.Wanted.values() for link in config.Links)]
        return {alias.lower(): target.lower() for target, alias in map(split_link, links)}

    def _choice(self, container: ContainerRecord) -> hosts.DnsChoice:
        host = container.HostConfig
        return hosts.DnsChoice(host.Dns, host.DnsSearch, host.DnsOptions).over(self._default)

    def _own_lines(self, container: ContainerRecord, endpoints: Sequence[EndpointRecord]) -> list[tuple[str, str]]:
        hostname, domain = container.Config.Hostname or container.Id[:12], container.Config.Domainname
        own = f"{hostname}.{domain} {hostname}" if domain else hostname
        return [(address, own) for endpoint in endpoints for address in plain_addresses(endpoint)]

    def _extra_address(self, address: str) -> str:
        if address != "host-gateway":
            return address
        if self._gateway_ips:
            return self._gateway_ips[0]
        bridge = self._base.objects.find("bridge")
        gateways = [pool.Gateway for pool in bridge.IPAM.Config if pool.Gateway] if bridge is not None else []
        if not gateways:
            raise InvalidParameter(
                "unable to derive the IP value for host-gateway: there is no default bridge; set --host-gateway-ip"
            )
        return gateways[0]


def add_mounts(preparation: Preparation, container: ContainerRecord, mounts: Sequence[OciMount]) -> None:
    """Add those whose place the container's own mounts do not take; read-only like the root file system."""
    taken = {mount.Destination for mount in container.Mounts}
    wanted = [mount for mount in mounts if mount.destination not in taken]
    if container.HostConfig.ReadonlyRootfs:
        wanted = hosts.read_only(wanted)
    preparation.mounts += wanted

"""One endpoint's life: addresses, the driver's part, the way into a sandbox, and all of it back."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from pathlib import Path

from plugin_sdk import DeadlineExceeded, EngineError, NotFound, PluginContext, Unavailable
from plugin_sdk.aio import blocking
from plugin_sdk.containers import EndpointConfig
from plugin_sdk.network import EndpointRecord, IpamDriver, NetworkDriver, NetworkRecord
from plugins.networks import placing


class Plugger:
    """Talks to the network and IPAM drivers about endpoints."""

    def __init__(self, ctx: PluginContext) -> None:
        self._ctx = ctx

    async def driver(self, network: NetworkRecord) -> NetworkDriver:
        """The network's driver. Raises NotFound (`plugin "NAME" not found`)."""
        return await find_driver(self._ctx, network.Driver)

    async def ipam(self, network: NetworkRecord) -> IpamDriver:
        """The network's address manager. Raises NotFound (`plugin "NAME" not found`)."""
        return await find_ipam(self._ctx, network.IPAM.Driver)

    async def reserve(self, network: NetworkRecord, endpoint: EndpointRecord, asked: EndpointConfig) -> EndpointRecord:
        """Addresses, and what the driver reserves. A failure leaves nothing behind."""
        ipam_asked = asked.IPAMConfig
        try:
            if network.EnableIPv4:
                address, gateway = await self._address(network, 4, ipam_asked.IPv4Address if ipam_asked else "")
                endpoint = endpoint.model_copy(update={"IPv4Address": address, "Gateway": gateway})
            if network.EnableIPv6:
                address, gateway = await self._address(network, 6, ipam_asked.IPv6Address if ipam_asked else "")
                endpoint = endpoint.model_copy(update={"IPv6Address": address, "IPv6Gateway": gateway})
            driver = await self.driver(network)
            return await driver.create_endpoint(network, endpoint)
        except BaseException:
            await self.give_back(network, endpoint)
            raise

    async def join(self, network: NetworkRecord, endpoint: EndpointRecord, sandbox: Path) -> None:
        """Into the sandbox."""
        driver = await self.driver(network)
        info = await driver.join(network, endpoint, sandbox, endpoint.Interface)
        if info.src_name:
            await blocking(placing.place, info, endpoint, sandbox)
        elif info.routes:
            await blocking(placing.add_routes, info, sandbox, info.dst_name or endpoint.Interface)
        if endpoint.DefaultRoute and not info.routes_set and (info.gateway or info.gateway6):
            told = {"Gateway": info.gateway, "IPv6Gateway": info.gateway6}
            await blocking(placing.set_default_route, sandbox, endpoint.model_copy(update=told))

    async def publish(self, network: NetworkRecord, endpoint: EndpointRecord) -> EndpointRecord:
        """Publish its ports; gives the record with what was bound."""
        return await (await self.driver(network)).program_external(network, endpoint)

    async def unpublish(self, network: NetworkRecord, endpoint: EndpointRecord) -> None:
        """Undo."""
        await (await self.driver(network)).revoke_external(network, endpoint)

    async def unplug(self, network: NetworkRecord, endpoint: EndpointRecord) -> list[EngineError]:
        """Take everything back, in spite of failures, which are returned.

        With an empty `endpoint.Sandbox` the driver knows that the whole sandbox goes, and leaves its inside alone.
        """
        failures: list[EngineError] = []
        try:
            driver = await self.driver(network)
        except EngineError as error:
            failures.append(error)
        else:
            steps = [driver.leave, driver.delete_endpoint]
            if endpoint.DefaultRoute:
                steps.insert(0, driver.revoke_external)
            for step in steps:
                try:
                    await step(network, endpoint)
                except EngineError as error:
                    failures.append(error)
        try:
            await self._release_addresses(network, endpoint)
        except EngineError as error:
            failures.append(error)
        return failures

    async def give_back(self, network: NetworkRecord, endpoint: EndpointRecord) -> None:
        """Undo a `reserve` that failed, or whose endpoint was never plugged in; failures are logged."""
        try:
            await (await self.driver(network)).delete_endpoint(network, endpoint)
        except EngineError as error:
            self._ctx.log.warning("endpoint %s on network %s: %s", endpoint.Id[:12], network.Name, error)
        try:
            await self._release_addresses(network, endpoint)
        except EngineError as error:
            self._ctx.log.warning("addresses of endpoint %s: %s", endpoint.Id[:12], error)

    async def _address(self, network: NetworkRecord, version: int, asked: str) -> tuple[str, str]:
        """(CIDR, gateway) from the first pool that has one; ("", "") for a network without pools of that version."""
        ipam = await self.ipam(network)
        full: Unavailable | None = None
        for pool in network.IPAM.Config:
            if not pool.PoolID or (pool.Subnet and net_version(pool.Subnet) != version):
                continue
            if asked and pool.Subnet and ipaddress.ip_address(asked) not in ipaddress.ip_network(pool.Subnet):
                continue
            try:
                return await ipam.request_address(pool.PoolID, asked, network.IPAM.Options), pool.Gateway
            except DeadlineExceeded:
                raise
            except Unavailable as error:
                full = error
        if full is not None:
            raise Unavailable(
                f"no available IPv{version} addresses on this network's address pools: {network.Name} ({network.Id})"
            )
        return "", ""

    async def _release_addresses(self, network: NetworkRecord, endpoint: EndpointRecord) -> None:
        ipam = await self.ipam(network) if endpoint.IPv4Address or endpoint.IPv6Address else None
        for text in (endpoint.IPv4Address, endpoint.IPv6Address):
            pool = pool_of(network, text)
            if ipam is not None and pool:
                await ipam.release_address(pool, text.partition("/")[0])


def pool_of(network: NetworkRecord, address: str) -> str:
    """ID of the pool that an address (plain or CIDR) came from, or ""."""
    if not address:
        return ""
    ip = ipaddress.ip_interface(address).ip
    for pool in network.IPAM.Config:
        if pool.Subnet and pool.PoolID and ip in ipaddress.ip_network(pool.Subnet, strict=False):
            return pool.PoolID
    return ""


def net_version(text: str) -> int:
    """4 or 6, of an address or a CIDR."""
    return 6 if ":" in text else 4


def choose_gateway(endpoints: Sequence[EndpointRecord], networks: Sequence[NetworkRecord]) -> EndpointRecord | None:
    """The endpoint that gives the default route: highest GwPriority, then the network's name; internal ones never."""
    able = [
        (-endpoint.GwPriority, network.Name, endpoint)
        for endpoint, network in zip(endpoints, networks, strict=True)
        if (endpoint.Gateway or endpoint.IPv6Gateway) and not network.Internal
    ]
    return min(able, key=lambda entry: entry[:2])[2] if able else None


async def find_driver(ctx: PluginContext, name: str) -> NetworkDriver:
    """Raises NotFound in dockerd's words."""
    try:
        return ctx.drivers.get(NetworkDriver, name)
    except NotFound:
        try:
            return await ctx.drivers.find(NetworkDriver, name)
        except NotFound:
            raise NotFound(f'plugin "{name}" not found') from None


async def find_ipam(ctx: PluginContext, name: str) -> IpamDriver:
    """Raises NotFound in dockerd's words."""
    try:
        return ctx.drivers.get(IpamDriver, name)
    except NotFound:
        try:
            return await ctx.drivers.find(IpamDriver, name)
        except NotFound:
            raise NotFound(f'plugin "{name}" not found') from None

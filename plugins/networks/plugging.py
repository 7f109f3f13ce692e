"""One endpoint's life: addresses, the driver's part, the way into a sandbox, and all of it back."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from plugin_sdk import DeadlineExceeded, EngineError, PluginContext, PluginRefusal, Unavailable
from plugin_sdk.aio import blocking
from plugin_sdk.containers import EndpointConfig
from plugin_sdk.network import EndpointRecord, IpamDriver, JoinInfo, NetworkDriver, NetworkRecord
from plugins.networks import placing
from plugins.networks.debts import Debt, Debts, Failure
from plugins.networks.finding import Finder
from plugins.networks.pools import MAC_OPTION, net_version, pool_of
from plugins.networks.records import StoredNetwork

_ANNOUNCEMENTS = (0.0, 0.05, 0.25, 1.0)
"""Seconds before each."""

P = ParamSpec("P")
T = TypeVar("T")


class Plugger:
    """Talks to the network and IPAM drivers about endpoints."""

    def __init__(self, ctx: PluginContext, finder: Finder, debts: Debts) -> None:
        self._ctx, self._finder, self._debts = ctx, finder, debts

    async def driver(self, network: NetworkRecord) -> NetworkDriver:
        """The network's driver. Raises NotFound (`plugin "NAME" not found`)."""
        return await self._finder.network(network.Driver)

    async def ipam(self, network: NetworkRecord) -> IpamDriver:
        """The network's address manager. Raises NotFound (`plugin "NAME" not found`)."""
        return await self._finder.ipam(network.IPAM.Driver)

    async def gateway_at_join(self, network: NetworkRecord) -> bool:
        """See `NetworkCapabilities`."""
        return (await self.driver(network)).capabilities().gateway_at_join

    async def reserve(self, network: StoredNetwork, endpoint: EndpointRecord, asked: EndpointConfig) -> EndpointRecord:
        """Addresses, and what the driver reserves. A failure leaves nothing behind."""
        ipam_asked = asked.IPAMConfig
        reached = False
        try:
            options: Mapping[str, str] = network.IPAM.Options
            if getattr(await self.ipam(network), "requires_mac", False):
                mac = endpoint.MacAddress or random_mac()
                endpoint = endpoint.model_copy(update={"MacAddress": mac})
                options = {**options, MAC_OPTION: mac}
            if network.EnableIPv4:
                wish = ipam_asked.IPv4Address if ipam_asked else ""
                address, gateway = await self._address(network, 4, wish, options)
                endpoint = endpoint.model_copy(update={"IPv4Address": address, "Gateway": gateway})
            if network.EnableIPv6:
                wish = ipam_asked.IPv6Address if ipam_asked else ""
                address, gateway = await self._address(network, 6, wish, options)
                endpoint = endpoint.model_copy(update={"IPv6Address": address, "IPv6Gateway": gateway})
            driver = await self.driver(network)
            reached = True
            return await driver.create_endpoint(network, endpoint)
        except BaseException as error:
            # A plugin that refused has made nothing, and complains about an endpoint that it does not know.
            made = reached and not isinstance(error, PluginRefusal)
            local = self._finder.local(NetworkDriver, network.Driver)
            silent = error if isinstance(error, Unavailable) and not local else None
            await self.give_back(network, endpoint, driver_too=made, silent=silent)
            raise

    async def join(self, network: NetworkRecord, endpoint: EndpointRecord, sandbox: Path) -> EndpointRecord:
        """Into the sandbox; gives the endpoint as it is there.

        Raises EngineError, naming network and driver, for an interface or route that cannot be, besides what the driver
        raises.
        """
        driver = await self.driver(network)
        info = await driver.join(network, endpoint, sandbox, endpoint.Interface)
        if driver.capabilities().gateway_at_join:
            told = {"Gateway": info.gateway, "IPv6Gateway": info.gateway6}
            endpoint = endpoint.model_copy(update={**told, "WantsGateway": wants_gateway(network, info)})
        if info.src_name:
            endpoint = await self._place(network, endpoint, sandbox, info)
        elif info.routes:
            await self.inside(network, sandbox, placing.add_routes, info, info.dst_name or endpoint.Interface)
        if endpoint.DefaultRoute and not info.routes_set and (info.gateway or info.gateway6):
            told = {"Gateway": info.gateway, "IPv6Gateway": info.gateway6}
            await self.inside(network, sandbox, placing.set_default_route, endpoint.model_copy(update=told))
        return endpoint

    async def _place(
        self, network: NetworkRecord, endpoint: EndpointRecord, sandbox: Path, info: JoinInfo
    ) -> EndpointRecord:
        name, mac = await self.inside(network, sandbox, placing.place, info, endpoint)
        endpoint = endpoint.model_copy(update={"Interface": name, "MacAddress": mac, "Source": info.src_name})
        try:
            await self.inside(network, sandbox, placing.add_routes, info, name)
        except BaseException:
            await self._take_out(network, endpoint)
            raise
        if endpoint.IPv4Address:
            self._ctx.spawn(self._announce(endpoint, sandbox), name=f"announce endpoint {endpoint.Id[:12]}")
        return endpoint

    async def _announce(self, endpoint: EndpointRecord, sandbox: Path) -> None:
        """Tell the neighbours of its MAC, more than once: the plugin's end may not pass packets on at once."""
        try:
            with await blocking(placing.announcer, sandbox, endpoint.Interface) as sender:
                for delay in _ANNOUNCEMENTS:
                    await asyncio.sleep(delay)
                    sender.send(placing.announcement(endpoint.MacAddress, endpoint.IPv4Address))
        except (OSError, ValueError) as error:
            # A container that has ended meanwhile, or an interface without ARP.
            self._ctx.log.debug("endpoint %s is not announced: %s", endpoint.Id[:12], error)

    async def publish(self, network: NetworkRecord, endpoint: EndpointRecord) -> EndpointRecord:
        """Publish its ports; gives the record with what was bound."""
        return await (await self.driver(network)).program_external(network, endpoint)

    async def unpublish(self, network: NetworkRecord, endpoint: EndpointRecord) -> None:
        """Undo."""
        await (await self.driver(network)).revoke_external(network, endpoint)

    async def inside(
        self,
        network: NetworkRecord | None,
        sandbox: Path,
        work: Callable[Concatenate[Path, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Blocking work on a sandbox's interfaces. Raises EngineError in place of OSError."""
        try:
            return await blocking(work, sandbox, *args, **kwargs)
        except (OSError, ValueError) as error:
            what = f"network {network.Name} (driver {network.Driver}): " if network is not None else ""
            raise EngineError(f"{what}{error}") from None

    async def unplug(self, network: NetworkRecord, endpoint: EndpointRecord) -> list[Failure]:
        """Take everything back, in spite of failures, which are returned.

        With an empty `endpoint.Sandbox` the driver knows that the whole sandbox goes, and leaves its inside alone.
        """
        failures = await self._leave(network, endpoint)
        return failures + await self._release_addresses(network, endpoint)

    async def let_go(self, network: StoredNetwork, endpoint: EndpointRecord, *, wait: bool = True) -> None:
        """`unplug` that always ends well: failures are logged, and what can be is tried again later.

        Args:
            wait: for plugins in a process of their own too; they are not waited for in any case while they are not there.
        """
        debt = Debt(Id=endpoint.Id, Network=network, Endpoint=endpoint)
        there = self._finder.present(NetworkDriver, network.Driver) and self._finder.present(
            IpamDriver, network.IPAM.Driver
        )
        if there and (wait or self._finder.local_both(network)):
            await self._debts.owe(debt, await self.unplug(network, endpoint))
        else:
            await self._take_out(network, endpoint)
            await self._debts.owe_later(debt)

    async def settle(self, debt: Debt, endpoint: EndpointRecord) -> Sequence[Failure]:
        """Try again to give back what is owed of an endpoint."""
        failures: list[Failure] = []
        gone = endpoint.model_copy(update={"Sandbox": "", "Source": ""})
        if debt.Driver:
            failures += await self._leave(debt.Network, gone)
        if debt.Addresses:
            failures += await self._release_addresses(debt.Network, gone)
        return failures

    async def give_back(
        self,
        network: StoredNetwork,
        endpoint: EndpointRecord,
        *,
        driver_too: bool = True,
        silent: Unavailable | None = None,
    ) -> None:
        """Undo a `reserve` that failed, or whose endpoint was never plugged in; failures are treated as in `let_go`.

        Args:
            driver_too: the network driver may know the endpoint.
            silent: why it is not asked now, but later.
        """
        failures: list[Failure] = []
        if driver_too and silent is not None:
            failures.append(Failure(False, silent))
        elif driver_too:
            try:
                await (await self.driver(network)).delete_endpoint(network, endpoint)
            except EngineError as error:
                failures.append(Failure(False, error))
        failures += await self._release_addresses(network, endpoint)
        await self._debts.owe(Debt(Id=endpoint.Id, Network=network, Endpoint=endpoint), failures)

    async def _leave(self, network: NetworkRecord, endpoint: EndpointRecord) -> list[Failure]:
        failures: list[Failure] = []
        try:
            driver = await self.driver(network)
        except EngineError as error:
            failures.append(Failure(False, error))
            await self._take_out(network, endpoint)
            return failures
        steps = [driver.leave, driver.delete_endpoint]
        if endpoint.DefaultRoute:
            steps.insert(0, driver.revoke_external)
        for step in steps:
            if step is steps[-1]:
                await self._take_out(network, endpoint)
            if failures and isinstance(failures[-1].error, Unavailable):
                continue  # it does not answer: once is enough to wait for it
            try:
                await step(network, endpoint)
            except EngineError as error:
                failures.append(Failure(False, error))
        return failures

    async def _take_out(self, network: NetworkRecord, endpoint: EndpointRecord) -> None:
        if endpoint.Source and endpoint.Sandbox:
            try:
                await self.inside(
                    network, Path(endpoint.Sandbox), placing.take_out, endpoint.Interface, endpoint.Source
                )
            except EngineError as error:
                # It goes with its sandbox, then.
                self._ctx.log.warning(
                    "interface %s of container %s: %s", endpoint.Interface, endpoint.ContainerName, error
                )

    async def _address(
        self, network: NetworkRecord, version: int, asked: str, options: Mapping[str, str]
    ) -> tuple[str, str]:
        """(CIDR, gateway) from the first pool that has one; ("", "") for a network without pools of that version."""
        ipam = await self.ipam(network)
        full: Unavailable | PluginRefusal | None = None
        for pool in network.IPAM.Config:
            if not pool.PoolID or (pool.Subnet and net_version(pool.Subnet) != version):
                continue
            if asked and pool.Subnet and ipaddress.ip_address(asked) not in ipaddress.ip_network(pool.Subnet):
                continue
            try:
                return await ipam.request_address(pool.PoolID, asked, options), pool.Gateway
            except DeadlineExceeded:
                raise
            except (Unavailable, PluginRefusal) as error:
                # Plugins on a socket have no way to say why: their refusal may mean that this pool is full.
                full = error
        if isinstance(full, PluginRefusal):
            raise full
        if full is not None:
            raise Unavailable(
                f"no available IPv{version} addresses on this network's address pools: {network.Name} ({network.Id})"
                f": {full}"
            )
        return "", ""

    async def _release_addresses(self, network: NetworkRecord, endpoint: EndpointRecord) -> list[Failure]:
        failures: list[Failure] = []
        for text in (endpoint.IPv4Address, endpoint.IPv6Address):
            pool = pool_of(network, text)
            if pool:
                try:
                    await (await self.ipam(network)).release_address(pool, text.partition("/")[0])
                except EngineError as error:
                    failures.append(Failure(True, error, text))
        return failures


def wants_gateway(network: NetworkRecord, info: JoinInfo) -> bool:
    """Whether a sandbox that was joined so is to get a gateway of the engine's, unless another network gives one."""
    routed = any(ipaddress.ip_network(route.destination, strict=False).prefixlen == 0 for route in info.routes)
    return not (network.Internal or info.disable_gateway_service or info.gateway or info.gateway6 or routed)


def random_mac() -> str:
    """A hardware address of nobody's: locally administered, unicast."""
    return (b"\x02" + secrets.token_bytes(5)).hex(":")


def choose_gateway(endpoints: Sequence[EndpointRecord], networks: Sequence[NetworkRecord]) -> EndpointRecord | None:
    """The endpoint that gives the default route: highest GwPriority, then the network's name; internal ones never."""
    able = [
        (-endpoint.GwPriority, network.Name, endpoint)
        for endpoint, network in zip(endpoints, networks, strict=True)
        if (endpoint.Gateway or endpoint.IPv6Gateway) and not network.Internal
    ]
    return min(able, key=lambda entry: entry[:2])[2] if able else None

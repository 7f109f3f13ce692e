"""The driver "bridge"."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from plugin_sdk import EngineError, Forbidden, Unavailable
from plugin_sdk.netlink import NetlinkError
from plugin_sdk.network import EndpointRecord, IpamPool, JoinInfo, NetworkCapabilities, NetworkRecord
from plugins.net_bridge import conntrack, foreign
from plugins.net_bridge.firewall import Firewall
from plugins.net_bridge.links import BridgePlan, Links, forward_ipv6, mac_of, write_sysctl
from plugins.net_bridge.options import BridgeOptions, parse_options
from plugins.net_bridge.ports import PortAllocator
from plugins.net_bridge.ruleset import BridgeRules, PortRules, port_rules

P = ParamSpec("P")
T = TypeVar("T")

BRIDGE_ADDRESS = "com.docker.network.bridge.address"
"""Auxiliary address of a pool: the bridge's own, where the containers' gateway is another machine's."""
_SWEEP_AFTER = 2.0


@dataclass(frozen=True, slots=True)
class Bridge:
    """A network's bridge as it is."""

    index: int
    plan: BridgePlan
    options: BridgeOptions


class BridgeDriver:
    """See `plugin_sdk.network.NetworkDriver`. What blocks runs in this driver's own threads.

    Args:
        families: "ip" and "ip6", those whose firewall is managed.
        host_ip: where ports are published that name no address; "": everywhere.
        forward: enable forwarding of packets in the kernel.
    """

    def __init__(
        self,
        links: Links,
        firewall: Firewall,
        families: Sequence[str],
        *,
        host_ip: str,
        forward: bool,
        log: logging.Logger,
    ) -> None:
        self._links, self._firewall, self._families = links, firewall, tuple(families)
        self._host_ip, self._forward, self._log = host_ip, forward, log
        self._ports = PortAllocator()
        self._bridges: dict[str, Bridge] = {}
        self._plugged: set[str] = set()
        self._leaving: dict[tuple[str, str], asyncio.Future[None]] = {}
        self._detached: dict[str, EndpointRecord] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="net-bridge")
        self._background: set[asyncio.Future[None]] = set()
        self._closed = False

    def capabilities(self) -> NetworkCapabilities:
        """Local."""
        return NetworkCapabilities()

    def validate(self, network: NetworkRecord) -> None:
        """Options, and a bridge of one's own. Raises InvalidParameter, Forbidden, NotSupported."""
        options = parse_options(network)
        for other, bridge in self._bridges.items():
            if bridge.options.name == options.name and other != network.Id:
                raise Forbidden(
                    f"cannot create network {network.Id} ({options.name}): conflicts with network {other}"
                    f" ({options.name}): networks have same bridge name"
                )

    async def create_network(self, network: NetworkRecord) -> None:
        """Bridge, addresses, rules."""
        self._bridges[network.Id] = await self._blocking(self._make, network)

    async def delete_network(self, network: NetworkRecord) -> None:
        """Rules and bridge; a bridge that the engine did not make stays."""
        self._bridges.pop(network.Id, None)
        await self._blocking(self._unmake, parse_options(network).name)

    async def create_endpoint(self, network: NetworkRecord, endpoint: EndpointRecord) -> EndpointRecord:
        """A hardware address, and the host ports."""
        changes: dict[str, object] = {}
        if not endpoint.MacAddress and (address := endpoint.IPv4Address or endpoint.IPv6Address):
            changes["MacAddress"] = mac_of(ipaddress.ip_interface(address))
        if endpoint.Ports:
            changes["Ports"] = self._ports.take(endpoint, self._binding(network))
        return endpoint.model_copy(update=changes)

    async def delete_endpoint(self, network: NetworkRecord, endpoint: EndpointRecord) -> None:
        """The host ports are free again."""
        self._ports.give_back(endpoint.Id)

    async def join(self, network: NetworkRecord, endpoint: EndpointRecord, sandbox: Path, interface: str) -> JoinInfo:
        """A veth pair, with addresses and routes. Raises Unavailable when the kernel refuses."""
        bridge = self._bridges.get(network.Id) or await self._remake(network)
        self._plugged.add(endpoint.Id)
        for address in (endpoint.IPv4Address, endpoint.IPv6Address):
            # The one who had the address before may not be off the bridge yet.
            if before := self._leaving.get((network.Id, address)):
                await asyncio.wait([before])
        try:
            try:
                await self._blocking(self._links.plug, bridge.index, bridge.plan, endpoint, sandbox, interface)
            except NetlinkError:
                # The bridge may have been removed behind our back.
                bridge = await self._remake(network)
                await self._blocking(self._links.plug, bridge.index, bridge.plan, endpoint, sandbox, interface)
        except OSError as error:
            self._plugged.discard(endpoint.Id)
            raise Unavailable(
                f"cannot plug container {endpoint.ContainerName} into network {network.Name}: {error}"
            ) from None
        return JoinInfo(dst_name=interface, gateway=endpoint.Gateway, gateway6=endpoint.IPv6Gateway, routes_set=True)

    async def leave(self, network: NetworkRecord, endpoint: EndpointRecord) -> None:
        """Out of a sandbox that lives on: now. With a sandbox that goes: off the bridge in the background, which whoever
        gets the address next waits for; the pair goes with its namespace, or is swept up a little later."""
        self._plugged.discard(endpoint.Id)
        if endpoint.Sandbox:
            try:
                await self._blocking(self._links.unplug, endpoint)
            except OSError as error:
                raise Unavailable(f"cannot unplug container {endpoint.ContainerName}: {error}") from None
            return
        keys = [(network.Id, address) for address in (endpoint.IPv4Address, endpoint.IPv6Address) if address]
        task = self._behind(lambda: self._links.detach(endpoint), f"interface of container {endpoint.ContainerName}")
        self._leaving.update(dict.fromkeys(keys, task))
        task.add_done_callback(lambda _: self._left(keys, task, endpoint))

    def _left(self, keys: Sequence[tuple[str, str]], task: asyncio.Future[None], endpoint: EndpointRecord) -> None:
        for key in keys:
            if self._leaving.get(key) is task:
                del self._leaving[key]
        self._detached[endpoint.Id] = endpoint
        if self._sweeper is None and not self._closed:
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_AFTER, self._sweep_soon)

    async def program_external(self, network: NetworkRecord, endpoint: EndpointRecord) -> EndpointRecord:
        """Ports and their rules."""
        ports = self._ports.take(endpoint, self._binding(network))
        endpoint = endpoint.model_copy(update={"Ports": ports})
        rules = port_rules(endpoint)
        await self._blocking(self._firewall.set_ports, endpoint.Id, rules)
        self._forget_flows(rules)
        return endpoint

    async def revoke_external(self, network: NetworkRecord, endpoint: EndpointRecord) -> None:
        """No rules, no ports."""
        self._ports.give_back(endpoint.Id)
        if endpoint.Ports:
            await self._blocking(self._firewall.set_ports, endpoint.Id, [])
            self._forget_flows(port_rules(endpoint))

    async def restore(self, networks: Sequence[NetworkRecord], endpoints: Sequence[EndpointRecord]) -> None:
        """Bridges and rules as they should be, in one transaction; leftovers gone. One bad network does not stop others."""
        by_id = {network.Id: network for network in networks}
        if self._forward:
            await self._blocking(write_sysctl, "net/ipv4/ip_forward", "1")
        plans: dict[str, BridgeRules] = {}
        for network in networks:
            try:
                options = parse_options(network)
                self._bridges[network.Id] = await self._blocking(self._ensure, network, options)
                plans[network.Id] = rules_of(network, options)
            except (EngineError, OSError) as error:
                self._log.error("network %s cannot be restored: %s", network.Name, error)
        ports: dict[str, Sequence[PortRules]] = {}
        for endpoint in endpoints:
            self._plugged.add(endpoint.Id)
            if endpoint.Ports:
                ports[endpoint.Id] = port_rules(endpoint)
                try:
                    self._ports.take(endpoint, self._binding(by_id[endpoint.NetworkID]))
                except EngineError as error:
                    self._log.warning("a port of a running container was taken by another program meanwhile: %s", error)
        await self._blocking(self._firewall.start, list(plans.values()), ports)
        for plan in plans.values():
            await self._blocking(self._pass_foreign, plan.name)
        gone = await self._blocking(self._links.sweep, set(self._plugged), {plan.name for plan in plans.values()})
        if gone:
            self._log.info("interfaces without an owner were removed: %s", ", ".join(gone))

    async def firewall_changed(self) -> None:
        """Somebody else has removed rules of ours: make them anew."""
        self._log.warning("the firewall's tables were changed by another program; they are made anew")
        try:
            await self._blocking(self._firewall.rebuild)
            for bridge in list(self._bridges.values()):
                await self._blocking(self._pass_foreign, bridge.plan.name)
        except EngineError as error:
            self._log.error("%s", error)

    async def close(self) -> None:
        """Let go of threads and sockets; bridges, containers' interfaces and rules stay."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._background:
            await asyncio.wait(self._background, timeout=5)
        self._ports.close()
        self._threads.shutdown(wait=False)

    def _make(self, network: NetworkRecord) -> Bridge:
        options = parse_options(network)
        bridge = self._ensure(network, options)
        self._firewall.set_bridge(rules_of(network, options))
        self._pass_foreign(options.name)
        return bridge

    def _ensure(self, network: NetworkRecord, options: BridgeOptions) -> Bridge:
        addresses = [address for pool in network.IPAM.Config if (address := bridge_address(pool)) is not None]
        plan = BridgePlan(options.name, addresses, options.mtu, isolated=not options.icc)
        try:
            index = self._links.ensure_bridge(plan)
        except OSError as error:
            raise Unavailable(f"cannot make bridge {options.name}: {error}") from None
        if self._forward and network.EnableIPv6:
            forward_ipv6()
        return Bridge(index, plan, options)

    def _unmake(self, name: str) -> None:
        self._firewall.drop_bridge(name)
        try:
            if self._families:
                foreign.close_forward(name, self._families)
            self._links.remove_bridge(name)
        except OSError as error:
            raise Unavailable(f"cannot remove bridge {name}: {error}") from None

    def _pass_foreign(self, name: str) -> None:
        if not self._families:
            return
        try:
            for chain in foreign.open_forward(name, self._families):
                self._log.info("%s drops by policy: rules for %s were added to it", chain, name)
        except EngineError as error:
            self._log.warning("a foreign FORWARD chain may drop the traffic of %s: %s", name, error)

    async def _remake(self, network: NetworkRecord) -> Bridge:
        bridge = await self._blocking(self._make, network)
        self._bridges[network.Id] = bridge
        return bridge

    def _binding(self, network: NetworkRecord) -> str:
        return parse_options(network).host_ip or self._host_ip

    def _forget_flows(self, rules: Sequence[PortRules]) -> None:
        ports = {rule.host_port for rule in rules if rule.proto == "udp"}
        if ports:
            self._behind(lambda: conntrack.forget_udp(ports), "tracked UDP flows")

    def _sweep_soon(self) -> None:
        self._sweeper = None
        detached, self._detached = self._detached, {}

        def work() -> None:
            for endpoint in detached.values():
                self._links.unplug(endpoint)

        self._behind(work, "interfaces of ended containers")

    def _behind(self, work: Callable[[], object], what: str) -> asyncio.Future[None]:
        async def run() -> None:
            try:
                await self._blocking(work)
            except (OSError, EngineError) as error:
                self._log.warning("%s: %s", what, error)

        task = asyncio.ensure_future(run())
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def _blocking(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        def call() -> T:
            return function(*args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


def bridge_address(pool: IpamPool) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface | None:
    """The bridge's own address in a pool: the gateway, unless another machine is that."""
    address = pool.AuxiliaryAddresses.get(BRIDGE_ADDRESS) or pool.Gateway
    if not address or not pool.Subnet:
        return None
    return ipaddress.ip_interface(f"{address}/{pool.Subnet.partition('/')[2]}")


def rules_of(network: NetworkRecord, options: BridgeOptions) -> BridgeRules:
    """What the network asks of the firewall."""
    subnets = [ipaddress.ip_network(pool.Subnet, strict=False) for pool in network.IPAM.Config if pool.Subnet]
    return BridgeRules(options.name, subnets, options.icc, network.Internal, options.masquerade)

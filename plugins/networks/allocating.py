"""What a network takes of its address manager when it is made, gives back, and asks for anew."""

from __future__ import annotations

import ipaddress
from collections.abc import MutableSequence, Sequence
from typing import cast

from plugin_sdk import EngineError, PluginRefusal
from plugin_sdk.network import EndpointRecord, GatewayChecker, IpamDriver, IpamPool, NetworkDriver, NetworkRecord
from plugins.networks.pools import MAC_OPTION, net_version, pool_of

GATEWAY = {"RequestAddressType": "com.docker.network.gateway"}
"""Option of the request for a gateway's address (IpamDriver protocol)."""
GATEWAY_DATA = "com.docker.network.gateway"
"""Where a pool's data names the gateway that the address manager has chosen (CIDR)."""


async def gateways_to_skip(driver: NetworkDriver, network: NetworkRecord) -> tuple[bool, bool]:
    """Whether the network's driver wants no gateway address for (IPv4, IPv6)."""
    if not driver.capabilities().checks_gateways:
        return False, False
    return await cast(GatewayChecker, driver).check_gateways(network)


async def take_pool(
    ipam: IpamDriver,
    network: NetworkRecord,
    pool: IpamPool,
    pools: MutableSequence[IpamPool],
    *,
    v6: bool,
    skip_gateway: bool,
) -> None:
    """Subnet, gateway and auxiliary addresses; what was taken is in `pools` also after a failure."""
    wanted_gateway, aux = pool.Gateway, pool.AuxiliaryAddresses
    got = await ipam.request_pool(pool.Subnet, pool.IPRange, network.IPAM.Options, v6=v6)
    real = ipaddress.ip_network(got.subnet).prefixlen > 0
    subnet = got.subnet if real else ""
    pool = pool.model_copy(update={"PoolID": got.id, "Subnet": subnet, "Gateway": "", "AuxiliaryAddresses": {}})
    pools.append(pool)
    told = got.data.get(GATEWAY_DATA, "")
    gateway = ""
    if real and told and not wanted_gateway:
        gateway = _inside(told, subnet)
    elif real and (wanted_gateway or not skip_gateway):
        gateway = await ipam.request_address(got.id, wanted_gateway, GATEWAY)
    pools[-1] = pool = pool.model_copy(update={"Gateway": gateway.partition("/")[0]})
    for name, address in aux.items():
        await ipam.request_address(got.id, address, {})
        pools[-1] = pool = pool.model_copy(update={"AuxiliaryAddresses": {**pool.AuxiliaryAddresses, name: address}})


async def release_pools(ipam: IpamDriver, network: NetworkRecord) -> None:
    """Give all of a network's pools back, with the addresses that the network itself has. Raises the first failure of a
    pool; an address that cannot be given back goes with its pool."""
    failure: EngineError | None = None
    for pool in network.IPAM.Config:
        if not pool.PoolID:
            continue
        try:
            for address in filter(None, (pool.Gateway, *pool.AuxiliaryAddresses.values())):
                try:
                    await ipam.release_address(pool.PoolID, address)
                except PluginRefusal:
                    continue
            await ipam.release_pool(pool.PoolID)
        except EngineError as error:
            failure = failure or error
    if failure is not None:
        raise failure


async def replay(ipam: IpamDriver, network: NetworkRecord, plugged: Sequence[EndpointRecord]) -> list[IpamPool]:
    """Ask an address manager that forgets for all that a network and its endpoints have; gives the pools with the IDs of
    now. Raises EngineError, also when it gives something else."""
    pools: list[IpamPool] = []
    for pool in network.IPAM.Config:
        if pool.PoolID:
            v6 = net_version(pool.Subnet) == 6
            got = await ipam.request_pool(pool.Subnet, pool.IPRange, network.IPAM.Options, v6=v6)
            if pool.Gateway:
                await ipam.request_address(got.id, pool.Gateway, GATEWAY)
            for address in pool.AuxiliaryAddresses.values():
                await ipam.request_address(got.id, address, {})
            pool = pool.model_copy(update={"PoolID": got.id})
        pools.append(pool)
    anew = network.model_copy(update={"IPAM": network.IPAM.model_copy(update={"Config": pools})})
    for endpoint in plugged:
        options = {MAC_OPTION: endpoint.MacAddress} if endpoint.MacAddress else {}
        for text in (endpoint.IPv4Address, endpoint.IPv6Address):
            if pool_id := pool_of(anew, text):
                await ipam.request_address(pool_id, text.partition("/")[0], options)
    return pools


def _inside(told: str, subnet: str) -> str:
    """A gateway that an address manager told with the pool. Raises EngineError."""
    try:
        address = ipaddress.ip_interface(told).ip
    except ValueError:
        raise EngineError(f"the IPAM driver gave the gateway {told!r:.80}, which is no address") from None
    if address not in ipaddress.ip_network(subnet):
        raise EngineError(f"the IPAM driver gave the gateway {address}, which is not in the subnet {subnet}")
    return str(address)

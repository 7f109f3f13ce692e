"""Address pools of networks: faults of what is asked for, and what of them is in use."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from plugin_sdk.network import EndpointRecord, IpamPool, NetworkRecord

MAC_OPTION = "com.docker.network.endpoint.macaddress"
"""Option of an address request with the endpoint's hardware address (IpamDriver protocol)."""


def pool_faults(pool: IpamPool, *, ipv6: bool) -> list[str]:
    """What is wrong with an address pool that a client asks for, in dockerd's words."""
    if not pool.Subnet:
        if pool.Gateway or pool.IPRange or pool.AuxiliaryAddresses:
            return ["every ip-range or gateway must have a corresponding subnet"]
        return []
    try:
        subnet = ipaddress.ip_network(pool.Subnet, strict=False)
    except ValueError:
        return [f"invalid subnet {pool.Subnet}: invalid CIDR block notation"]
    if str(subnet) != str(ipaddress.ip_interface(pool.Subnet)):
        return [f"invalid subnet {pool.Subnet}: it should be {subnet}"]
    if subnet.version == 6 and not ipv6:
        return [f"invalid subnet {pool.Subnet}: IPv6 has not been enabled for this network"]
    faults = []
    if pool.IPRange:
        try:
            part = ipaddress.ip_network(pool.IPRange, strict=False)
        except ValueError:
            return [f"invalid ip-range {pool.IPRange}: invalid CIDR block notation"]
        if part.version != subnet.version or not part.subnet_of(subnet):  # type: ignore[arg-type]
            faults.append(f"invalid ip-range {pool.IPRange}: parent subnet {subnet} doesn't contain ip-range")
    for what, text in (
        ("gateway", pool.Gateway),
        *(("auxiliary address", t) for t in pool.AuxiliaryAddresses.values()),
    ):
        if not text:
            continue
        try:
            inside = ipaddress.ip_address(text) in subnet
        except ValueError:
            faults.append(f"invalid {what} {text}: invalid address")
            continue
        if not inside:
            faults.append(f"invalid {what} {text}: parent subnet {subnet} doesn't contain this address")
    return faults


def addresses_in(pool: IpamPool, endpoints: Sequence[EndpointRecord]) -> list[str]:
    """The endpoints' addresses that came from this pool."""
    if not pool.Subnet:
        return []
    net = ipaddress.ip_network(pool.Subnet, strict=False)
    plain = [
        ipaddress.ip_interface(text).ip
        for endpoint in endpoints
        for text in (endpoint.IPv4Address, endpoint.IPv6Address)
        if text
    ]
    return [str(address) for address in plain if address in net]


def pool_of(network: NetworkRecord, address: str) -> str:
    """ID of the pool that an address (plain or CIDR) came from, or ""."""
    if not address:
        return ""
    ip = ipaddress.ip_interface(address).ip
    for pool in network.IPAM.Config:
        if pool.Subnet and pool.PoolID and ip in ipaddress.ip_network(pool.Subnet, strict=False):
            return pool.PoolID
    # A pool of all addresses ("0.0.0.0/0") is stored without a subnet.
    everywhere = [pool.PoolID for pool in network.IPAM.Config if pool.PoolID and not pool.Subnet]
    return everywhere[-1 if ip.version == 6 else 0] if everywhere else ""


def net_version(text: str) -> int:
    """4 or 6, of an address or a CIDR."""
    return 6 if ":" in text else 4

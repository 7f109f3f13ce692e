"""The IPAM drivers "default" and "null"."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence

from plugin_sdk import Conflict, Forbidden, InvalidParameter, NotFound, Unavailable
from plugin_sdk.aio import blocking
from plugin_sdk.netlink import Address, Net, Netlink
from plugin_sdk.network import Pool

BUILT_IN_POOLS: tuple[tuple[str, int], ...] = (
    ("172.17.0.0/16", 16),
    *((f"172.{second}.0.0/16", 20) for second in range(18, 32)),
    ("192.168.0.0/16", 20),
)
"""(base, prefix length of each subnet). The first is the default bridge's, as people know it; the others are cut small
enough for 240 networks."""

DefaultPools = Sequence[tuple[Net, int]]
Taken = Sequence[tuple[Net, str]]
"""(network, what it is in words)."""


class Space:
    """The addresses of one subnet. Lowest free first; all in memory."""

    def __init__(self, subnet: Net, ip_range: Net) -> None:
        self.subnet = subnet
        self.used: set[int] = set()
        first, last = int(ip_range.network_address), int(ip_range.broadcast_address)
        if subnet.num_addresses > 2:
            first = max(first, int(subnet.network_address) + 1)
            if subnet.version == 4:
                last = min(last, int(subnet.broadcast_address) - 1)
        self._first, self._last, self._hint = first, last, first

    def take(self, address: str) -> Address:
        """The address asked for, or a free one for "". Raises Conflict, Unavailable, InvalidParameter."""
        if address:
            wanted = ipaddress.ip_address(address)
            if wanted not in self.subnet:
                raise InvalidParameter(f"invalid address {address}: it is not in subnet {self.subnet}")
            if int(wanted) in self.used:
                raise Conflict(f"Address already in use: {address}")
            self.used.add(int(wanted))
            return wanted
        candidate = self._hint
        while candidate <= self._last and candidate in self.used:
            candidate += 1
        if candidate > self._last:
            raise Unavailable(f"no available addresses in {self.subnet}")
        self.used.add(candidate)
        self._hint = candidate + 1
        return ipaddress.ip_address(candidate) if self.subnet.version == 4 else ipaddress.IPv6Address(candidate)

    def give_back(self, address: str) -> None:
        """Free it."""
        number = int(ipaddress.ip_address(address))
        self.used.discard(number)
        if self._first <= number < self._hint:
            self._hint = number


class DefaultIpam:
    """Subnets from the default pools, addresses from memory; `restore` replays what the stored networks hold.

    Args:
        pools: for IPv4.
        pool6: a network of which IPv6 subnets of 64 bits are cut.
        owner: says in words to which network a subnet belongs.
    """

    def __init__(self, pools: DefaultPools, pool6: Net, owner: Callable[[str], str]) -> None:
        self.pools, self._pools6, self._owner = pools, [(pool6, 64)], owner
        self._spaces: dict[str, Space] = {}

    async def request_pool(self, subnet: str, ip_range: str, options: Mapping[str, str], *, v6: bool = False) -> Pool:
        """See `IpamDriver.request_pool`."""
        if subnet:
            net = ipaddress.ip_network(subnet, strict=False)
            for other in self._spaces.values():
                if other.subnet.version == net.version and other.subnet.overlaps(net):
                    raise Forbidden(f"Pool overlaps with other one on this address space: {self._name(other.subnet)}")
        else:
            if ip_range:
                raise InvalidParameter("an IP range needs a subnet")
            routes = await blocking(host_routes)
            net = self._choose(self._pools6 if v6 else self.pools, routes)
        part = ipaddress.ip_network(ip_range, strict=False) if ip_range else net
        key = f"{net}+{part}" if ip_range else str(net)
        self._spaces[key] = Space(net, part)
        return Pool(key, str(net))

    async def release_pool(self, pool_id: str) -> None:
        """See `IpamDriver.release_pool`."""
        self._spaces.pop(pool_id, None)

    async def request_address(self, pool_id: str, address: str, options: Mapping[str, str]) -> str:
        """See `IpamDriver.request_address`."""
        space = self._spaces.get(pool_id)
        if space is None:
            raise NotFound(f"no address pool {pool_id!r}")
        return f"{space.take(address)}/{space.subnet.prefixlen}"

    async def release_address(self, pool_id: str, address: str) -> None:
        """See `IpamDriver.release_address`."""
        space = self._spaces.get(pool_id)
        if space is not None:
            space.give_back(address)

    async def restore(self, pools: Mapping[str, tuple[str, str]], addresses: Mapping[str, Sequence[str]]) -> None:
        """See `IpamDriver.restore`."""
        self._spaces = {}
        for key, (subnet, ip_range) in pools.items():
            net = ipaddress.ip_network(subnet, strict=False)
            space = Space(net, ipaddress.ip_network(ip_range, strict=False) if ip_range else net)
            space.used.update(int(ipaddress.ip_address(address)) for address in addresses.get(key, ()))
            self._spaces[key] = space

    def _choose(self, pools: DefaultPools, routes: Taken) -> Net:
        taken = [(space.subnet, self._name(space.subnet)) for space in self._spaces.values()]
        taken += [(net, words) for net, words in routes if not any(net == mine for mine, _ in taken)]
        in_the_way: list[str] = []
        for base, length in pools:
            near = [entry for entry in taken if entry[0].version == base.version and entry[0].overlaps(base)]
            for candidate in _subnets(base, length):
                blocker = next((words for net, words in near if net.overlaps(candidate)), None)
                if blocker is None:
                    return candidate
                if blocker not in in_the_way:
                    in_the_way.append(blocker)
        raise NotFound(
            "all predefined address pools have been fully subnetted: name a subnet, or set --default-address-pool."
            f" In the way: {'; '.join(in_the_way[:8])}" + (" ..." if len(in_the_way) > 8 else "")
        )

    def _name(self, subnet: Net) -> str:
        owner = self._owner(str(subnet))
        return f"{subnet} of {owner}" if owner else str(subnet)


class NullIpam:
    """For networks whose driver hands out addresses by itself."""

    async def request_pool(self, subnet: str, ip_range: str, options: Mapping[str, str], *, v6: bool = False) -> Pool:
        """See `IpamDriver.request_pool`."""
        if subnet or ip_range:
            raise InvalidParameter("the null IPAM driver takes no subnet")
        return Pool("null6" if v6 else "null", "::/0" if v6 else "0.0.0.0/0")

    async def release_pool(self, pool_id: str) -> None:
        """Nothing is held."""

    async def request_address(self, pool_id: str, address: str, options: Mapping[str, str]) -> str:
        """No address."""
        if address:
            raise InvalidParameter("the null IPAM driver gives no addresses")
        return ""

    async def release_address(self, pool_id: str, address: str) -> None:
        """Nothing is held."""

    async def restore(self, pools: Mapping[str, tuple[str, str]], addresses: Mapping[str, Sequence[str]]) -> None:
        """Nothing is held."""


def host_routes() -> Taken:
    """What the daemon's network namespace routes elsewhere than to the default gateway. Blocking."""
    with Netlink() as netlink:
        names = {link.index: link.name for link in netlink.links()}
        return [
            (route.destination, f"{route.destination} routed to {names.get(route.link, 'another host')}")
            for route in netlink.routes()
            if route.destination.prefixlen
        ]


def parse_pools(said: Sequence[object]) -> list[tuple[Net, int]]:
    """`--default-address-pool base=10.0.0.0/8,size=24`, or `{"base": ..., "size": ...}`. Raises InvalidParameter."""
    pools: list[tuple[Net, int]] = []
    for entry in said:
        fields = entry if isinstance(entry, dict) else dict(part.partition("=")[::2] for part in str(entry).split(","))
        try:
            base, size = ipaddress.ip_network(str(fields["base"]), strict=False), int(fields["size"])
        except (KeyError, ValueError):
            raise InvalidParameter(
                f"invalid default address pool {entry!r}: want for example base=10.10.0.0/16,size=24"
            ) from None
        if not base.prefixlen <= size <= base.max_prefixlen - 1:
            raise InvalidParameter(f"invalid default address pool {entry!r}: size {size} does not fit in {base}")
        pools.append((base, size))
    return pools or [(ipaddress.ip_network(base), size) for base, size in BUILT_IN_POOLS]


def _subnets(base: Net, length: int) -> Iterator[Net]:
    if isinstance(base, ipaddress.IPv4Network):
        yield from base.subnets(new_prefix=length)
    else:
        yield from base.subnets(new_prefix=length)

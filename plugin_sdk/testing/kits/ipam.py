"""The kit of `IpamDriver`.

Subnets are taken from 198.18.0.0/15, which RFC 2544 sets aside for tests of network devices, so that no real network of
an engine is in the way.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Mapping

from kernel.contracts.network import IpamDriver, Pool
from kernel.errors import Conflict, Forbidden, InvalidParameter, PluginRefusal, Unavailable
from plugin_sdk.testing.kit import Bench, Broken, DoesNotApply, Kit

NOBODYS = ipaddress.IPv4Network("198.18.0.0/15")
GATEWAY = {"RequestAddressType": "com.docker.network.gateway"}
"""Options of a request for a gateway. Source: Docker's IPAM driver documentation."""


def subnet(prefix: int = 24) -> ipaddress.IPv4Network:
    """A subnet by chance, of those that nobody routes."""
    step = 1 << (32 - prefix)
    base = int(NOBODYS.network_address) + secrets.randbelow(NOBODYS.num_addresses // step) * step
    return ipaddress.IPv4Network((base, prefix))


class IpamBench(Bench[IpamDriver]):
    """Takes pools and addresses, and gives them back."""

    async def pool(self, wanted: str = "", ip_range: str = "", *, v6: bool = False) -> Pool:
        """A pool."""
        try:
            pool = await self.driver.request_pool(wanted, ip_range, self.options, v6=v6)
        except InvalidParameter as error:
            if wanted and await self._null():
                raise DoesNotApply("the driver gives no addresses: its networks have them from elsewhere") from error
            raise Broken(f"a pool for {wanted or 'any subnet'}", f"{error}") from error
        self.later(f"release pool {pool.id}", lambda: self.driver.release_pool(pool.id))
        self.expect(pool.id, "a pool to have an ID", pool)
        try:
            ipaddress.ip_network(pool.subnet)
        except ValueError:
            raise Broken("a pool's subnet to be a CIDR", pool) from None
        return pool

    async def _null(self) -> bool:
        """The driver is one for networks that look after addresses themselves, as Docker's "null"."""
        pool = await self.driver.request_pool("", "", self.options)
        await self.driver.release_pool(pool.id)
        return ipaddress.ip_network(pool.subnet).prefixlen == 0

    async def address(self, pool: Pool, wanted: str = "", options: Mapping[str, str] | None = None) -> str:
        """A plain address of the pool, checked."""
        said = await self.fine(
            f"an address of {pool.subnet}", self.driver.request_address(pool.id, wanted, options or {})
        )
        if not said and not wanted:
            raise DoesNotApply("the driver gives no addresses: its networks have them from elsewhere")
        net = ipaddress.ip_network(pool.subnet)
        try:
            found = ipaddress.ip_interface(said)
        except ValueError:
            raise Broken("an address as a CIDR", said) from None
        plain = str(found.ip)
        self.later(f"release {plain}", lambda: self.driver.release_address(pool.id, plain))
        self.expect("/" in said and found.network.prefixlen == net.prefixlen, f"an address/{net.prefixlen}", said)
        self.expect(found.ip in net, f"an address within {net}", said)
        return plain


KIT = Kit("IpamDriver", IpamDriver, IpamBench)


@KIT.check("a pool of the subnet asked for", says=IpamDriver.request_pool)
async def pool_asked_for(bench: IpamBench) -> None:
    wanted = subnet()
    bench.equal((await bench.pool(str(wanted))).subnet, str(wanted), "the pool's subnet")


@KIT.check("pools that the driver chooses do not overlap", says=IpamDriver.request_pool)
async def chosen_pools_are_apart(bench: IpamBench) -> None:
    nets = [ipaddress.ip_network((await bench.pool()).subnet) for _ in range(3)]
    if nets[0].prefixlen == 0:
        raise DoesNotApply("the driver gives no addresses: its networks have them from elsewhere")
    apart = not any(one.overlaps(two) for index, one in enumerate(nets) for two in nets[:index])
    bench.expect(apart, "three pools that do not overlap", [str(net) for net in nets])


@KIT.check("a pool for IPv6 is one of IPv6", says=IpamDriver.request_pool)
async def pool_of_version_6(bench: IpamBench) -> None:
    pool = await bench.pool(v6=True)
    bench.equal(ipaddress.ip_network(pool.subnet).version, 6, f"the version of {pool.subnet}")
    first, second = await bench.address(pool), await bench.address(pool)
    bench.expect(first != second, "two different addresses", first)


@KIT.check("a subnet that is in use is refused with Forbidden", says=IpamDriver.request_pool)
async def overlap_is_refused(bench: IpamBench) -> None:
    wanted = subnet()
    await bench.pool(str(wanted))
    part = str(next(wanted.subnets(new_prefix=26)))
    await bench.refused(f"the pool {part} within {wanted}", _kept(bench, part), Forbidden)


@KIT.check(
    "a released pool can be had again; releasing it again, or an unknown one, is fine", says=IpamDriver.release_pool
)
async def release_pool(bench: IpamBench) -> None:
    wanted = subnet()
    pool = await bench.pool(str(wanted))
    await bench.address(pool)
    await bench.twice("release_pool", lambda: bench.driver.release_pool(pool.id))
    await bench.fine("release_pool of an unknown pool", bench.driver.release_pool(bench.unique("pool")))
    await bench.fine("the same subnet after its release", _kept(bench, str(wanted)))


@KIT.check("addresses differ, lie in the subnet, and carry its prefix length", says=IpamDriver.request_address)
async def addresses_differ(bench: IpamBench) -> None:
    pool = await bench.pool(str(subnet()))
    got = [await bench.address(pool) for _ in range(20)]
    bench.equal(len(set(got)), 20, "the number of different addresses among twenty")


@KIT.check("an address asked for is given once, then refused with Conflict", says=IpamDriver.request_address)
async def address_asked_for(bench: IpamBench) -> None:
    net = subnet()
    pool = await bench.pool(str(net))
    wanted = str(net[77])
    bench.equal(await bench.address(pool, wanted), wanted, "the address asked for")
    await bench.refused(f"{wanted} again", bench.driver.request_address(pool.id, wanted, {}), Conflict)


@KIT.check("a gateway can be had like any address", says="IpamDriver.RequestAddress: RequestAddressType gateway.")
async def gateway(bench: IpamBench) -> None:
    net = subnet()
    pool = await bench.pool(str(net))
    bench.equal(await bench.address(pool, str(net[1]), GATEWAY), str(net[1]), "the gateway asked for")
    bench.expect(await bench.address(pool) != str(net[1]), "another address than the gateway's", str(net[1]))


@KIT.check("when all addresses are used up the next is refused with Unavailable", says=IpamDriver.request_address)
async def used_up(bench: IpamBench) -> None:
    net = subnet(29)
    pool = await bench.pool(str(net))
    got: list[str] = []
    for _ in range(net.num_addresses):
        try:
            said = await bench.driver.request_address(pool.id, "", {})
        except Unavailable:
            break
        except PluginRefusal:
            if not bench.subject.remote:  # behind a socket an error has no class
                raise
            break
        plain = said.partition("/")[0]
        bench.expect(plain not in got, "addresses that differ", [*got, plain])
        got.append(plain)
    else:
        await bench.refused("one more address", bench.driver.request_address(pool.id, "", {}), Unavailable)
    if got == [""]:
        raise DoesNotApply("the driver gives no addresses: its networks have them from elsewhere")
    bench.expect(len(got) >= net.num_addresses - 3, f"at least {net.num_addresses - 3} addresses of {net}", got)


@KIT.check("a released address can be had again; releasing it again is fine", says=IpamDriver.release_address)
async def release_address(bench: IpamBench) -> None:
    net = subnet()
    pool = await bench.pool(str(net))
    plain = await bench.address(pool, str(net[9]))
    await bench.twice("release_address", lambda: bench.driver.release_address(pool.id, plain))
    await bench.fine("release of one never given", bench.driver.release_address(pool.id, str(net[200])))
    await bench.fine("release in an unknown pool", bench.driver.release_address(bench.unique("pool"), plain))
    bench.equal(await bench.address(pool, plain), plain, "the address after its release")


@KIT.check("addresses come from the range when there is one", says=IpamDriver.request_pool)
async def ip_range(bench: IpamBench) -> None:
    net = subnet()
    part = list(net.subnets(new_prefix=27))[3]
    pool = await bench.pool(str(net), str(part))
    got = [await bench.address(pool) for _ in range(5)]
    bench.expect(all(ipaddress.ip_address(each) in part for each in got), f"addresses of {part}", got)


@KIT.check("restore makes what is told used, and all else free", says=IpamDriver.restore)
async def restore(bench: IpamBench) -> None:
    bench.only_fresh("restore would make it forget the addresses of the engine's networks")
    kept, lost = subnet(29), subnet(29)
    while lost.overlaps(kept):
        lost = subnet(29)
    pool, other = await bench.pool(str(kept)), await bench.pool(str(lost))
    used, free = await bench.address(pool, str(kept[2])), await bench.address(pool, str(kept[3]))
    await bench.restart()
    for _ in range(2):
        await bench.fine("restore", bench.driver.restore({pool.id: (pool.subnet, "")}, {pool.id: [used]}))
    await bench.refused(f"{used}, which is in use", bench.driver.request_address(pool.id, used, {}), Conflict)
    bench.equal(await bench.address(pool, free), free, "an address that restore did not name")
    await bench.fine(f"{other.subnet}, which restore did not name", _kept(bench, other.subnet))


async def _kept(bench: IpamBench, wanted: str) -> Pool:
    pool = await bench.driver.request_pool(wanted, "", bench.options)
    bench.later(f"release pool {pool.id}", lambda: bench.driver.release_pool(pool.id))
    return pool

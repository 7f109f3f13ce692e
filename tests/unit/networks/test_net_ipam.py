"""Address management: pools, addresses, and what stands in the way."""

from __future__ import annotations

import ipaddress

import pytest

from plugin_sdk import Conflict, Forbidden, InvalidParameter, NotFound, Unavailable
from plugins.networks import ipam
from plugins.networks.ipam import DefaultIpam, NullIpam, parse_pools

POOL6 = ipaddress.IPv6Network("fd12:3456:789a::/48")


@pytest.fixture(autouse=True)
def no_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ipam, "host_routes", list)


def manager(*pools: str) -> DefaultIpam:
    return DefaultIpam(parse_pools(pools), POOL6, lambda subnet: f"network of {subnet}")


async def test_the_first_network_has_the_subnet_that_people_know() -> None:
    driver = manager()
    first = await driver.request_pool("", "", {})
    second = await driver.request_pool("", "", {})
    assert first.subnet == "172.17.0.0/16"
    assert second.subnet == "172.18.0.0/20"
    assert (await driver.request_pool("", "", {}, v6=True)).subnet == "fd12:3456:789a::/64"


async def test_addresses_lowest_first_and_back() -> None:
    driver = manager()
    pool = await driver.request_pool("10.1.0.0/29", "", {})
    got = [await driver.request_address(pool.id, "", {}) for _ in range(6)]
    assert got == [f"10.1.0.{number}/29" for number in range(1, 7)]
    with pytest.raises(Unavailable, match=r"no available addresses in 10\.1\.0\.0/29"):
        await driver.request_address(pool.id, "", {})
    await driver.release_address(pool.id, "10.1.0.3")
    assert await driver.request_address(pool.id, "", {}) == "10.1.0.3/29"


async def test_an_address_of_ones_own() -> None:
    driver = manager()
    pool = await driver.request_pool("10.1.0.0/24", "10.1.0.128/25", {})
    assert await driver.request_address(pool.id, "10.1.0.7", {}) == "10.1.0.7/24"
    with pytest.raises(Conflict, match="Address already in use"):
        await driver.request_address(pool.id, "10.1.0.7", {})
    with pytest.raises(InvalidParameter, match=r"not in subnet 10\.1\.0\.0/24"):
        await driver.request_address(pool.id, "10.2.0.7", {})
    assert await driver.request_address(pool.id, "", {}) == "10.1.0.128/24"


async def test_a_point_to_point_subnet_uses_both_addresses() -> None:
    driver = manager()
    pool = await driver.request_pool("10.1.0.0/31", "", {})
    assert [await driver.request_address(pool.id, "", {}) for _ in range(2)] == ["10.1.0.0/31", "10.1.0.1/31"]


async def test_ipv6_addresses() -> None:
    driver = manager()
    pool = await driver.request_pool("fd00:1::/64", "", {}, v6=True)
    assert await driver.request_address(pool.id, "", {}) == "fd00:1::1/64"
    assert await driver.request_address(pool.id, "fd00:1::abcd", {}) == "fd00:1::abcd/64"


async def test_overlap_names_the_other() -> None:
    driver = manager()
    await driver.request_pool("10.1.0.0/16", "", {})
    with pytest.raises(Forbidden, match=r"Pool overlaps .*: 10\.1\.0\.0/16 of network of 10\.1\.0\.0/16"):
        await driver.request_pool("10.1.5.0/24", "", {})


async def test_host_routes_are_skipped_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    lan = (ipaddress.ip_network("10.5.0.0/24"), "10.5.0.0/24 routed to eth0")
    monkeypatch.setattr(ipam, "host_routes", lambda: [lan])
    driver = manager("base=10.5.0.0/23,size=24")
    assert (await driver.request_pool("", "", {})).subnet == "10.5.1.0/24"
    with pytest.raises(NotFound, match="routed to eth0.*of network") as refused:
        await driver.request_pool("", "", {})
    assert "--default-address-pool" in str(refused.value)


async def test_released_pools_are_free_again() -> None:
    driver = manager("base=10.5.0.0/24,size=24")
    pool = await driver.request_pool("", "", {})
    await driver.release_pool(pool.id)
    await driver.release_pool(pool.id)
    assert (await driver.request_pool("", "", {})).subnet == "10.5.0.0/24"


async def test_restore_replays_what_is_in_use() -> None:
    driver = manager()
    await driver.restore({"172.17.0.0/16": ("172.17.0.0/16", "")}, {"172.17.0.0/16": ["172.17.0.1", "172.17.0.2"]})
    assert await driver.request_address("172.17.0.0/16", "", {}) == "172.17.0.3/16"
    assert (await driver.request_pool("", "", {})).subnet == "172.18.0.0/20"


async def test_unknown_pool() -> None:
    with pytest.raises(NotFound, match="no address pool 'nope'"):
        await manager().request_address("nope", "", {})


def test_pools_as_flag_and_as_json() -> None:
    wanted = [(ipaddress.ip_network("10.10.0.0/16"), 24)]
    assert parse_pools(["base=10.10.0.0/16,size=24"]) == wanted
    assert parse_pools([{"base": "10.10.0.0/16", "size": 24}]) == wanted


@pytest.mark.parametrize("said", ["10.0.0.0/8", "base=x,size=24", "base=10.0.0.0/24,size=16", {"base": "10.0.0.0/8"}])
def test_bad_pools_are_refused(said: object) -> None:
    with pytest.raises(InvalidParameter, match="invalid default address pool"):
        parse_pools([said])


async def test_null_gives_nothing() -> None:
    driver = NullIpam()
    pool = await driver.request_pool("", "", {})
    assert await driver.request_address(pool.id, "", {}) == ""
    with pytest.raises(InvalidParameter):
        await driver.request_address(pool.id, "10.0.0.1", {})
    with pytest.raises(InvalidParameter):
        await driver.request_pool("10.0.0.0/8", "", {})

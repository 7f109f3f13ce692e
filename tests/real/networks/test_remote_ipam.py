"""IPAM plugins in a process of their own: containers have the addresses that they give."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness import Engine, OldStylePlugin, eventually
from harness.oldstyle import Refusal

from .conftest import entry, pings, sleeper

pytestmark = pytest.mark.real


class AddressPlugin(OldStylePlugin):
    """An IPAM plugin with one pool, whose addresses go down from .200."""

    def __init__(self, engine: Engine, name: str, *, capabilities: dict[str, Any] | None = None) -> None:
        self._next = 200
        self.held: set[str] = set()
        self.pools: set[str] = set()
        answers = {
            "IpamDriver.GetDefaultAddressSpaces": lambda _: {
                "LocalDefaultAddressSpace": "mine",
                "GlobalDefaultAddressSpace": "all",
            },
            "IpamDriver.RequestPool": self._pool,
            "IpamDriver.ReleasePool": lambda said: self.pools.discard(said["PoolID"]) or {},
            "IpamDriver.RequestAddress": self._address,
            "IpamDriver.ReleaseAddress": lambda said: self.held.discard(said["Address"]) or {},
        }
        if capabilities is not None:
            answers["IpamDriver.GetCapabilities"] = lambda _: capabilities
        super().__init__(engine.plugin_dir, name, ["IpamDriver"], answers)

    def _pool(self, said: dict[str, Any]) -> dict[str, Any]:
        self.pools.add("pool-1")
        return {"PoolID": "pool-1", "Pool": said["Pool"] or "10.92.0.0/24"}

    def _address(self, said: dict[str, Any]) -> dict[str, Any]:
        if said["PoolID"] not in self.pools:
            raise Refusal(f"no pool {said['PoolID']}")
        gateway = said["Options"].get("RequestAddressType") == "com.docker.network.gateway"
        address = said["Address"] or ("10.92.0.1" if gateway else f"10.92.0.{self._next}")
        self._next -= 0 if said["Address"] or gateway else 1
        self.held.add(address)
        return {"Address": f"{address}/24"}


@pytest.fixture
def addresses(own_engine: Callable[..., Engine]) -> Iterator[tuple[Engine, Callable[..., AddressPlugin]]]:
    """An engine, and a maker of IPAM plugins for it."""
    engine = own_engine()
    made: list[AddressPlugin] = []

    def make(**options: Any) -> AddressPlugin:
        made.append(AddressPlugin(engine, engine.name("ipam"), **options))
        return made[-1]

    yield engine, make
    for name in engine.docker("ps", "-aq").stdout.split():
        engine.docker("rm", "-f", name)
    for name in engine.docker("network", "ls", "-q", "--filter", "type=custom").stdout.split():
        engine.docker("network", "rm", name)
    for plugin in made:
        plugin.close()


def test_addresses_of_a_plugin(addresses: tuple[Engine, Callable[..., AddressPlugin]]) -> None:
    engine, make = addresses
    plugin = make()
    net = engine.name("net")
    engine.docker("network", "create", "--ipam-driver", plugin.name, "--ipam-opt", "site=north", net)
    asked = plugin.called("IpamDriver.RequestPool")[0]
    assert asked == {"AddressSpace": "mine", "Pool": "", "SubPool": "", "Options": {"site": "north"}, "V6": False}
    ipam = json.loads(engine.docker("network", "inspect", net).stdout)[0]["IPAM"]
    assert ipam["Driver"] == plugin.name
    assert ipam["Config"] == [{"Subnet": "10.92.0.0/24", "Gateway": "10.92.0.1"}]
    first = sleeper(engine, "--network", net)
    second = sleeper(engine, "--network", net)
    assert entry(engine, first, net)["IPAddress"] == "10.92.0.200"
    assert "10.92.0.199/24" in engine.docker("exec", second, "ip", "addr").stdout
    assert pings(engine, first, second)
    engine.docker("rm", "-f", first)
    assert plugin.held == {"10.92.0.1", "10.92.0.199"}
    engine.docker("rm", "-f", second)
    engine.docker("network", "rm", net)
    assert (plugin.held, plugin.pools) == (set(), set())


def test_an_address_manager_that_forgets(addresses: tuple[Engine, Callable[..., AddressPlugin]]) -> None:
    engine, make = addresses
    plugin = make(capabilities={"RequiresMACAddress": True, "RequiresRequestReplay": True})
    net = engine.name("net")
    engine.docker("network", "create", "--ipam-driver", plugin.name, net)
    name = sleeper(engine, "--network", net)
    told = entry(engine, name, net)
    mac = plugin.called("IpamDriver.RequestAddress")[-1]["Options"]["com.docker.network.endpoint.macaddress"]
    assert told["MacAddress"] == mac
    engine.stop()
    plugin.pools.clear()
    plugin.held.clear()
    engine.start()
    eventually(lambda: plugin.held == {"10.92.0.1", told["IPAddress"]}, what="all is requested anew")
    other = sleeper(engine, "--network", net)
    assert pings(engine, other, name)

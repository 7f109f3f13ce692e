"""Network plugins in a process of their own: what they are told, what is taken of them, and what is owed to them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from plugin_sdk import DeadlineExceeded, EngineError, NotFound, PluginError, PluginRefusal, Unavailable
from plugin_sdk.network import IpamConfig, IpamDriver, IpamPool, NetworkDriver
from plugins.networks import debts
from plugins.networks.objects import NetworkCreate
from plugins.networks.remote_wire import Joined, Told

from .conftest import PLUGIN, FakePeer, World, container


@pytest.fixture
async def ready(world: World, peer: FakePeer) -> World:
    """Restored, with the plugin there as a network driver."""
    await world.networks.restore()
    await world.connect(peer, NetworkDriver)
    return world


async def test_a_driver_goes_by_its_whole_name(ready: World) -> None:
    made = await ready.network("me/net")
    assert (made.Driver, made.IPAM.Driver) == (PLUGIN, "default")


@pytest.mark.parametrize("told", [{}, {"Scope": "galactic"}, {"Scope": "local", "ConnectivityScope": "x"}])
async def test_capabilities_that_cannot_be(world: World, peer: FakePeer, told: dict[str, str]) -> None:
    peer.answers["GetCapabilities"] = told
    with pytest.raises(PluginError, match=r"invalid capability.*want 'local' or 'global'"):
        await world.connect(peer, NetworkDriver)


async def test_what_a_network_is_created_with(ready: World, peer: FakePeer) -> None:
    pools = [IpamPool(Subnet="10.7.0.0/24", AuxiliaryAddresses={"printer": "10.7.0.9"})]
    made = await ready.network(Options={"a": "b"}, IPAM=IpamConfig(Config=pools), EnableIPv6=True, Internal=True)
    said = peer.of("CreateNetwork")[0]
    assert said["NetworkID"] == made.Id
    assert said["Options"] == {
        "com.docker.network.enable_ipv4": True,
        "com.docker.network.enable_ipv6": True,
        "com.docker.network.internal": True,
        "com.docker.network.generic": {"a": "b"},
    }
    aux = {"printer": "10.7.0.9/24"}
    first = {"AddressSpace": "LocalDefault", "Pool": "10.7.0.0/24", "Gateway": "10.7.0.1/24", "AuxAddresses": aux}
    assert said["IPv4Data"] == [first]
    assert [entry["Pool"] for entry in said["IPv6Data"]] == ["fd00::/64"]


async def test_a_network_without_addresses_of_ours(ready: World, peer: FakePeer) -> None:
    await ready.network(IPAM=IpamConfig(Driver="null"))
    assert peer.of("CreateNetwork")[0]["IPv4Data"] == [
        {"AddressSpace": "null", "Pool": "0.0.0.0/0", "Gateway": "0.0.0.0/0"}
    ]
    peer.answers["CreateEndpoint"] = {"Interface": {"Address": "10.9.9.9/24", "MacAddress": "02:00:00:00:00:09"}}
    await ready.run(container())
    (endpoint,) = ready.networks.endpoints(container().Id)
    assert (endpoint.IPv4Address, endpoint.MacAddress) == ("10.9.9.9/24", "02:00:00:00:00:09")


async def test_no_gateway_for_who_wants_none(world: World, peer: FakePeer) -> None:
    peer.answers |= {
        "GetCapabilities": {"Scope": "local", "GwAllocChecker": True},
        "GwAllocCheck": {"SkipIPv4": True},
    }
    await world.networks.restore()
    await world.connect(peer, NetworkDriver)
    made = await world.network()
    assert made.IPAM.Config[0].Gateway == ""
    assert "Gateway" not in peer.of("CreateNetwork")[0]["IPv4Data"][0]


async def test_a_refused_network_leaves_nothing(ready: World, peer: FakePeer) -> None:
    peer.answers["CreateNetwork"] = PluginRefusal(PLUGIN, "NetworkDriver.CreateNetwork", "no room")
    with pytest.raises(PluginRefusal, match="no room"):
        await ready.network()
    assert ready.networks.objects.find("net") is None
    assert peer.of("DeleteNetwork") == []
    peer.answers["CreateNetwork"] = {}
    assert (await ready.network()).IPAM.Config[0].Subnet == "172.18.0.0/20"


async def test_a_network_that_the_plugin_keeps_stays(ready: World, peer: FakePeer) -> None:
    made = await ready.network()
    peer.answers["DeleteNetwork"] = PluginRefusal(PLUGIN, "NetworkDriver.DeleteNetwork", "busy")
    with pytest.raises(PluginRefusal, match="busy"):
        await ready.networks.objects.remove("net")
    assert ready.networks.get("net").State == "ready"
    await ready.run(container())
    assert ready.networks.endpoints(container().Id)[0].NetworkID == made.Id


async def test_given_fields_must_come_back_empty(ready: World, peer: FakePeer) -> None:
    await ready.network()
    peer.answers["CreateEndpoint"] = {"Interface": {"Address": "10.1.2.3/24"}}
    with pytest.raises(PluginError, match=r"answered the IPv4 address '10\.1\.2\.3/24', but the endpoint has"):
        await ready.run(container())
    assert peer.of("DeleteEndpoint")[0]["EndpointID"] == peer.of("CreateEndpoint")[0]["EndpointID"]
    peer.answers["CreateEndpoint"] = {}
    await ready.run(container())
    assert ready.networks.endpoints(container().Id)[0].IPv4Address == "172.18.0.2/20", "the address was free again"


@pytest.mark.parametrize(
    ("told", "wrong"),
    [
        ({"InterfaceName": {"SrcName": "lo"}}, "SrcName 'lo'"),
        ({"InterfaceName": {"SrcName": "a b"}}, "SrcName"),
        ({"InterfaceName": {"SrcName": "sixteen-letters-"}}, "SrcName"),
        ({"InterfaceName": {"SrcName": "v", "DstName": "../eth0"}}, "DstName"),
        ({"InterfaceName": {"SrcName": "v", "DstPrefix": "thirteen-char"}}, "DstPrefix"),
        ({"Gateway": "fe80::1"}, "IPv4"),
        ({"Gateway": "0.0.0.0"}, "cannot be one"),
        ({"GatewayIPv6": "10.0.0.1"}, "IPv6"),
        ({"StaticRoutes": [{"Destination": "10.0.0.0/40"}]}, "no network"),
        ({"StaticRoutes": [{"Destination": "127.0.0.0/8", "RouteType": 1}]}, "no network leads to"),
        ({"StaticRoutes": [{"Destination": "10.0.0.0/8", "NextHop": "fe80::1"}]}, "next hop"),
        ({"StaticRoutes": [{"Destination": "10.0.0.0/8", "RouteType": 7}]}, "of type 7"),
        ({"StaticRoutes": [{"Destination": "10.0.0.0/8", "RouteType": 1}] * 600}, "600 static routes"),
    ],
)
def test_hostile_joins(told: dict[str, Any], wrong: str) -> None:
    with pytest.raises(PluginError, match=wrong):
        Told("p", "NetworkDriver.Join").join(Joined.model_validate(told))


def test_a_join_in_any_case_of_letters() -> None:
    told = Joined.model_validate(
        {"interfacename": {"srcname": "v0", "dstprefix": "web"}, "gateway": "10.0.0.1", "staticroutes": None}
    )
    info = Told("p", "NetworkDriver.Join").join(told)
    assert (info.src_name, info.dst_prefix, info.gateway, info.routes) == ("v0", "web", "10.0.0.1", [])


async def test_a_dead_plugin_keeps_no_container(ready: World, peer: FakePeer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debts, "DELAYS", (0.02,))
    await ready.network()
    await ready.run(container())
    endpoint = ready.networks.endpoints(container().Id)[0]
    peer.answers["Leave"] = DeadlineExceeded("no answer")
    await ready.networks.remove(container().Id)
    assert peer.of("DeleteEndpoint") == [], "who does not answer is asked once"
    assert ready.owed() == [endpoint.Id]
    peer.answers["Leave"] = {}
    await ready.until(lambda: not ready.owed())
    assert [said["EndpointID"] for said in peer.of("DeleteEndpoint")] == [endpoint.Id]


async def test_debts_outlive_the_daemon(ready: World, peer: FakePeer) -> None:
    await ready.network()
    await ready.run(container())
    endpoint = ready.networks.endpoints(container().Id)[0]
    await ready.disconnect(peer)
    began = time.monotonic()
    await ready.networks.remove(container().Id)
    await ready.killed_and_started()
    ready.containers.records.clear()
    await ready.networks.restore()
    assert time.monotonic() - began < 2
    assert ready.owed() == [endpoint.Id]
    await ready.connect(peer, NetworkDriver)
    await ready.until(lambda: not ready.owed())
    assert [said["EndpointID"] for said in peer.of("DeleteEndpoint")] == [endpoint.Id]


async def test_addresses_are_given_back_once(world: World, peer: FakePeer) -> None:
    """What the address manager took back may be another's when the network driver is asked again."""
    await world.networks.restore()
    await world.connect(peer)
    await world.network(IPAM=IpamConfig(Driver=PLUGIN))
    await world.run(container())
    peer.answers["Leave"] = Unavailable("dead")
    await world.networks.remove(container().Id)
    peer.answers["Leave"] = {}
    await world.base.debts.due(PLUGIN)
    assert world.owed() == []
    assert len(peer.of("ReleaseAddress")) == 1


async def test_a_network_of_a_plugin_that_is_gone_can_be_removed(ready: World, peer: FakePeer) -> None:
    made = await ready.network()
    await ready.disconnect(peer)
    await ready.networks.objects.remove("net")
    assert ready.networks.objects.find("net") is None
    assert ready.owed() == [made.Id]
    await ready.connect(peer, NetworkDriver)
    await ready.until(lambda: not ready.owed())
    assert peer.of("DeleteNetwork") == [{"NetworkID": made.Id}]


async def test_half_made_networks_are_settled_when_the_plugin_comes(ready: World, peer: FakePeer) -> None:
    made = await ready.network()
    await ready.networks.objects._store.put(made.model_copy(update={"State": "removing"}))
    await ready.killed_and_started()
    await ready.networks.restore()
    assert ready.networks.objects._store.get(made.Id) is None
    await ready.network("bridge")  # the name is free
    await ready.connect(peer, NetworkDriver)
    await ready.until(lambda: not ready.owed())
    assert peer.of("DeleteNetwork") == [{"NetworkID": made.Id}]


async def test_networks_do_not_wait_for_each_other(ready: World, peer: FakePeer) -> None:
    go_on = asyncio.Event()

    async def slow(_: Any) -> dict[str, Any]:
        await go_on.wait()
        return {}

    peer.answers["CreateNetwork"] = slow
    stuck = asyncio.create_task(ready.network())
    async with asyncio.timeout(2):
        await ready.networks.objects.create(NetworkCreate(Name="other", Driver="bridge"))
        await ready.networks.objects.remove("other")
        assert [network.Name for network in ready.networks.list()] == ["bridge", "host"]
    go_on.set()
    await stuck


async def test_who_needs_a_plugin(ready: World, peer: FakePeer) -> None:
    await ready.network()
    await ready.run(container())
    idle = container(name="idle", running=False)
    ready.containers.records[idle.Id] = idle
    for key in (PLUGIN, "me/net"):
        found = ready.networks.networks_of(key)
        assert [str(holder) for holder in found] == [
            "network net",
            "container web (running)",
            "container idle (stopped)",
        ]
    await ready.disconnect(peer)
    assert len(ready.networks.networks_of(PLUGIN)) == 3
    assert ready.networks.networks_of("me/other") == []
    assert ready.networks.networks_of("net_bridge") == []


# Address managers


def with_ipam() -> IpamConfig:
    return IpamConfig(Driver="me/net", Options={"site": "north"})


@pytest.fixture
async def managed(world: World, peer: FakePeer) -> World:
    """Restored, with the plugin there as an address manager."""
    del peer.answers["GetCapabilities"]
    await world.networks.restore()
    await world.connect(peer, IpamDriver)
    return world


async def test_pools_and_addresses_of_a_plugin(managed: World, peer: FakePeer) -> None:
    made = await managed.network("bridge", IPAM=with_ipam())
    assert made.IPAM.Driver == PLUGIN
    asked = {"AddressSpace": "here", "Pool": "", "SubPool": "", "Options": {"site": "north"}, "V6": False}
    assert peer.of("RequestPool") == [asked]
    gateway = {"RequestAddressType": "com.docker.network.gateway"}
    assert peer.of("RequestAddress") == [{"PoolID": "pool here", "Address": "", "Options": gateway}]
    await managed.run(container("net"))
    assert managed.networks.endpoints(container().Id)[0].IPv4Address == "10.1.0.5/24"
    await managed.networks.remove(container().Id)
    await managed.networks.objects.remove("net")
    released = [(said["PoolID"], said["Address"]) for said in peer.of("ReleaseAddress")]
    assert released == [("pool here", "10.1.0.5"), ("pool here", "10.1.0.1")]
    assert peer.of("ReleasePool") == [{"PoolID": "pool here"}]


async def test_a_gateway_that_comes_with_the_pool(managed: World, peer: FakePeer) -> None:
    data = {"com.docker.network.gateway": "10.1.0.254/24"}
    peer.answers["RequestPool"] = {"PoolID": "p", "Pool": "10.1.0.0/24", "Data": data}
    assert (await managed.network("bridge", IPAM=with_ipam())).IPAM.Config[0].Gateway == "10.1.0.254"
    assert peer.of("RequestAddress") == []
    data["com.docker.network.gateway"] = "10.2.0.1/24"
    with pytest.raises(EngineError, match=r"10\.2\.0\.1, which is not in the subnet"):
        await managed.networks.objects.create(NetworkCreate(Name="b", Driver="bridge", IPAM=with_ipam()))
    assert peer.of("ReleasePool") == [{"PoolID": "p"}]


@pytest.mark.parametrize(
    ("told", "wrong"),
    [
        ({"Pool": "10.1.0.0/24"}, "no usable PoolID"),
        ({"PoolID": "p", "Pool": "ten"}, "no network"),
        ({"PoolID": "p", "Pool": "fd00::/64"}, "IPv4"),
        ({"PoolID": "p", "Pool": "10.9.0.0/24"}, "10.1.0.0/24 was asked for"),
        ({"PoolID": "p", "Pool": "224.0.0.0/24"}, "was asked for"),
    ],
)
async def test_hostile_pools(managed: World, peer: FakePeer, told: dict[str, str], wrong: str) -> None:
    peer.answers["RequestPool"] = told
    asked = IpamConfig(Driver="me/net", Config=[IpamPool(Subnet="10.1.0.0/24")])
    with pytest.raises(PluginError, match=wrong):
        await managed.network("bridge", IPAM=asked)
    assert managed.networks.objects.find("net") is None
    assert [said["PoolID"] for said in peer.of("ReleasePool")] == (["p"] if "PoolID" in told else [])


@pytest.mark.parametrize(
    ("told", "wrong"),
    [
        ("", "no address"),
        ("10.1.0.9", "without its prefix length"),
        ("10.1.0.900/24", "no address with a prefix"),
        ("10.2.0.9/24", "not in its pool 10.1.0.0/24"),
        ("fd00::1/64", "not in its pool"),
        ("224.0.0.1/24", "cannot be one"),
    ],
)
async def test_hostile_addresses(managed: World, peer: FakePeer, told: str, wrong: str) -> None:
    await managed.network("bridge", IPAM=with_ipam())
    peer.answers["RequestAddress"] = {"Address": told}
    with pytest.raises(PluginError, match=wrong):
        await managed.run(container("net"))
    assert managed.networks.endpoints(container().Id)[0].IPv4Address == ""


async def test_a_manager_that_forgets_is_told_again(world: World, peer: FakePeer) -> None:
    peer.answers["GetCapabilities"] = {"RequiresMACAddress": True, "RequiresRequestReplay": True}
    await world.networks.restore()
    await world.connect(peer, IpamDriver)
    await world.network("bridge", IPAM=with_ipam())
    await world.run(container("net"))
    endpoint = world.networks.endpoints(container().Id)[0]
    mac = {"com.docker.network.endpoint.macaddress": endpoint.MacAddress}
    assert peer.of("RequestAddress")[-1]["Options"] == {"site": "north", **mac}

    await world.killed_and_started()
    peer.calls.clear()
    peer.answers["RequestPool"] = lambda said: {"PoolID": "anew", "Pool": said["Pool"]}
    await world.networks.restore()
    assert peer.calls == []
    await world.connect(peer, IpamDriver)
    await world.until(lambda: len(peer.of("RequestAddress")) == 2)
    assert peer.of("RequestPool")[0]["Pool"] == "10.1.0.0/24"
    assert [said["Address"] for said in peer.of("RequestAddress")] == ["10.1.0.1", "10.1.0.5"]
    await world.until(lambda: world.networks.get("net").IPAM.Config[0].PoolID == "anew")


async def test_a_name_that_nobody_knows(ready: World) -> None:
    with pytest.raises(NotFound, match=r'^plugin "nosuch" not found$'):
        await ready.network("nosuch")


async def test_a_network_that_the_plugin_does_not_answer_for(ready: World, peer: FakePeer) -> None:
    """The client is told at once; the plugin, which may have made it, later."""
    peer.answers["CreateNetwork"] = DeadlineExceeded("no answer within 30 s")
    with pytest.raises(DeadlineExceeded):
        await ready.network()
    assert peer.of("DeleteNetwork") == []
    (network_id,) = ready.owed()
    await ready.base.debts.due(PLUGIN)
    assert peer.of("DeleteNetwork") == [{"NetworkID": network_id}]
    assert ready.owed() == []


async def test_a_plugin_of_both_kinds_with_debts_comes_at_once(world: World, peer: FakePeer) -> None:
    """What brings its networks in step does not wait for itself."""
    await world.networks.restore()
    await world.connect(peer)
    await world.network(IPAM=with_ipam())
    await world.run(container())
    await world.disconnect(peer)
    await world.networks.remove(container().Id)
    assert len(world.owed()) == 1
    async with asyncio.timeout(3):
        await world.connect(peer)
        await world.run(container(name="next"))
    await world.until(lambda: not world.owed())
    assert len(peer.of("ReleaseAddress")) == 1

"""Network plugins in a process of their own: real traffic, restarts, and plugins that misbehave."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness import Client, Engine, OldStylePlugin, eventually
from harness.oldstyle import Raw, Refusal

pytestmark = pytest.mark.real

Make = Callable[..., "BridgePlugin"]


class BridgePlugin(OldStylePlugin):
    """A network plugin that works: a bridge for each network, a veth pair for each endpoint.

    Attributes:
        returned: interfaces that lay in the host's namespace again when their endpoint was deleted.
    """

    def __init__(self, engine: Engine, name: str, implements: tuple[str, ...] = ("NetworkDriver",)) -> None:
        self._engine = engine
        self.returned: list[str] = []
        answers = {
            "NetworkDriver.GetCapabilities": lambda _: {"Scope": "local", "ConnectivityScope": "local"},
            "NetworkDriver.CreateNetwork": self._create_network,
            "NetworkDriver.DeleteNetwork": lambda said: self._ip("link", "del", self.bridge(said)),
            "NetworkDriver.CreateEndpoint": lambda _: {"Interface": {}},
            "NetworkDriver.Join": self._join,
            "NetworkDriver.Leave": lambda _: {},
            "NetworkDriver.DeleteEndpoint": self._delete_endpoint,
        }
        super().__init__(engine.plugin_dir, name, list(implements), answers)

    @staticmethod
    def bridge(said: dict[str, Any]) -> str:
        return f"pb-{said['NetworkID'][:8]}"

    def _ip(self, *args: str) -> dict[str, Any]:
        done = self._engine.nsenter(["ip", *args], check=False)
        if done.returncode != 0:
            raise Refusal(done.stderr.strip())
        return {}

    def _create_network(self, said: dict[str, Any]) -> dict[str, Any]:
        self.gateway = said["IPv4Data"][0]["Gateway"]
        self._ip("link", "add", self.bridge(said), "type", "bridge")
        self._ip("addr", "add", self.gateway, "dev", self.bridge(said))
        return self._ip("link", "set", self.bridge(said), "up")

    def _join(self, said: dict[str, Any]) -> dict[str, Any]:
        here, there = f"ph-{said['EndpointID'][:8]}", f"pc-{said['EndpointID'][:8]}"
        self._ip("link", "add", here, "type", "veth", "peer", "name", there)
        self._ip("link", "set", here, "master", self.bridge(said), "up")
        return {
            "InterfaceName": {"SrcName": there, "DstPrefix": "mine"},
            "Gateway": self.gateway.partition("/")[0],
            "StaticRoutes": [{"Destination": "198.51.100.0/24", "RouteType": 1}],
        }

    def _delete_endpoint(self, said: dict[str, Any]) -> dict[str, Any]:
        there = f"pc-{said['EndpointID'][:8]}"
        if self._engine.nsenter(["ip", "link", "show", there], check=False).returncode == 0:
            self.returned.append(there)
        return self._ip("link", "del", f"ph-{said['EndpointID'][:8]}")


@pytest.fixture
def remote(own_engine: Callable[..., Engine]) -> Iterator[tuple[Engine, Make]]:
    """An engine, and a maker of network plugins for it."""
    engine = own_engine()
    made: list[OldStylePlugin] = []

    def make(name: str = "", kind: type[BridgePlugin] = BridgePlugin, **options: Any) -> BridgePlugin:
        plugin = kind(engine, name or engine.name("plug"), **options)
        made.append(plugin)
        return plugin

    yield engine, make
    for name in engine.docker("ps", "-aq").stdout.split():
        engine.docker("rm", "-f", name)
    for name in engine.docker("network", "ls", "-q", "--filter", "type=custom").stdout.split():
        engine.docker("network", "rm", name)
    for plugin in made:
        plugin.close()


def sleeper(engine: Client, *options: str) -> str:
    name = engine.name("c")
    engine.docker("run", "-d", "--name", name, *options, engine.image, "sleep", "600")
    return name


def network(engine: Client, driver: str, *options: str) -> str:
    name = engine.name("net")
    engine.docker("network", "create", "-d", driver, *options, name)
    return name


def pings(engine: Client, source: str, target: str) -> bool:
    done = engine.docker("exec", source, "ping", "-c1", "-W3", target, check=False)
    return done.returncode == 0


def entry(engine: Client, name: str, net: str) -> dict[str, Any]:
    found: dict[str, Any] = engine.inspect(name)["NetworkSettings"]["Networks"][net]
    return found


def test_two_containers_on_a_plugins_network(remote: tuple[Engine, Make]) -> None:
    engine, make = remote
    plugin = make()
    net = network(engine, plugin.name, "--subnet", "10.91.0.0/24", "--gateway", "10.91.0.1", "-o", "flavour=mild")
    shown = json.loads(engine.docker("network", "inspect", net).stdout)[0]
    assert (shown["Driver"], shown["Scope"]) == (plugin.name, "local")
    created = plugin.called("NetworkDriver.CreateNetwork")[0]
    assert created["NetworkID"] == shown["Id"]
    assert created["Options"]["com.docker.network.generic"] == {"flavour": "mild"}
    assert created["IPv4Data"] == [{"AddressSpace": "LocalDefault", "Pool": "10.91.0.0/24", "Gateway": "10.91.0.1/24"}]
    assert created["IPv6Data"] == []

    first = sleeper(engine, "--network", net, "--ip", "10.91.0.77")
    second = sleeper(engine, "--network", net, "--network-alias", "backend")
    for target in ("10.91.0.77", first):
        assert pings(engine, second, target)
    assert pings(engine, first, "backend")
    told = entry(engine, first, net)
    assert (told["IPAddress"], told["Gateway"], told["IPPrefixLen"]) == ("10.91.0.77", "10.91.0.1", 24)
    seen = engine.docker("exec", first, "ip", "addr", "show", "mine0").stdout
    assert "10.91.0.77/24" in seen
    assert told["MacAddress"] in seen
    routes = engine.docker("exec", first, "ip", "route").stdout
    assert "default via 10.91.0.1 dev mine0" in routes
    assert "198.51.100.0/24 dev mine0" in routes
    assert pings(engine, first, "10.91.0.1")

    engine.docker("rm", "-f", first, second)
    assert len(plugin.called("NetworkDriver.Leave")) == 2
    assert len(plugin.returned) == 2, "the interfaces went back before their endpoints were deleted"
    engine.docker("network", "rm", net)
    assert [said["NetworkID"] for said in plugin.called("NetworkDriver.DeleteNetwork")] == [shown["Id"]]


@pytest.mark.parametrize("number", [15, 9])
def test_over_a_restart_of_the_daemon(remote: tuple[Engine, Make], number: int) -> None:
    engine, make = remote
    plugin = make()
    net = network(engine, plugin.name)
    first, second = sleeper(engine, "--network", net), sleeper(engine, "--network", net)
    engine.stop(number)
    engine.start()
    assert pings(engine, first, second)
    third = sleeper(engine, "--network", net)
    assert pings(engine, third, first)
    addresses = {entry(engine, name, net)["IPAddress"] for name in (first, second, third)}
    assert len(addresses) == 3
    engine.docker("restart", "-t", "0", first)
    assert pings(engine, second, first)


def test_connect_to_a_running_container_and_back(remote: tuple[Engine, Make]) -> None:
    engine, make = remote
    plugin = make()
    net = network(engine, plugin.name)
    other = sleeper(engine, "--network", net)
    name = sleeper(engine)
    engine.docker("network", "connect", net, name)
    assert pings(engine, name, other)
    assert "default via" in engine.docker("exec", name, "ip", "route").stdout
    engine.docker("network", "disconnect", net, name)
    assert "mine0" not in engine.docker("exec", name, "ip", "link").stdout
    assert len(plugin.returned) == 1


def test_ports_are_the_plugins_business(remote: tuple[Engine, Make]) -> None:
    engine, make = remote
    plugin = make()
    bound = {"Proto": 6, "Port": 80, "HostIP": "0.0.0.0", "HostPort": 45678}
    plugin.answers |= {
        "NetworkDriver.ProgramExternalConnectivity": lambda _: {},
        "NetworkDriver.RevokeExternalConnectivity": lambda _: {},
        "NetworkDriver.EndpointOperInfo": lambda _: {"Value": {"com.docker.network.portmap": [bound]}},
    }
    net = network(engine, plugin.name)
    name = sleeper(engine, "--network", net, "-p", "80")
    asked = {"Proto": 6, "IP": "", "Port": 80, "HostIP": "", "HostPort": 0, "HostPortEnd": 0}
    for method in ("CreateEndpoint", "ProgramExternalConnectivity"):
        options = plugin.called(f"NetworkDriver.{method}")[0]["Options"]
        assert options["com.docker.network.portmap"] == [asked]
        assert options["com.docker.network.endpoint.exposedports"] == [{"Proto": 6, "Port": 80}]
    assert engine.docker("port", name, "80").stdout.split()[0] == "0.0.0.0:45678"
    engine.docker("rm", "-f", name)
    assert len(plugin.called("NetworkDriver.RevokeExternalConnectivity")) == 1


def test_a_way_out_where_the_plugin_names_none(remote: tuple[Engine, Make]) -> None:
    engine, make = remote
    plugin = make()
    join = plugin.answers["NetworkDriver.Join"]
    plugin.answers["NetworkDriver.Join"] = lambda said: {**join(said), "Gateway": ""}
    net = network(engine, plugin.name)
    first, second = sleeper(engine, "--network", net, "-p", "80"), sleeper(engine, "--network", net)
    assert pings(engine, first, second)
    way = json.loads(engine.docker("network", "inspect", "docker_gwbridge").stdout)[0]
    assert len(way["Containers"]) == 2
    gateway = way["IPAM"]["Config"][0]["Gateway"]
    assert f"default via {gateway}" in engine.docker("exec", first, "ip", "route").stdout
    assert engine.docker("port", first, "80").stdout.strip()
    own = way["Containers"][engine.inspect(second)["Id"]]["IPv4Address"].partition("/")[0]
    assert not pings(engine, first, own), "containers do not reach each other on it"

    bridge = network(engine, "bridge")
    engine.docker("network", "connect", bridge, first)
    shown = json.loads(engine.docker("network", "inspect", "docker_gwbridge").stdout)[0]["Containers"]
    assert list(shown) == [engine.inspect(second)["Id"]], "another network gives the gateway now"
    assert engine.docker("port", first, "80").stdout.strip()
    engine.docker("network", "disconnect", bridge, first)
    assert f"default via {gateway}" in engine.docker("exec", first, "ip", "route").stdout
    engine.docker("rm", "-f", first, second)
    assert json.loads(engine.docker("network", "inspect", "docker_gwbridge").stdout)[0]["Containers"] == {}

    plugin.answers["NetworkDriver.Join"] = lambda said: {**join(said), "Gateway": "", "DisableGatewayService": True}
    third = sleeper(engine, "--network", net)
    assert "default" not in engine.docker("exec", third, "ip", "route").stdout


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


def fails(engine: Engine, *args: str) -> str:
    """A docker command that must fail, within 20 s; gives what it says."""
    began = time.monotonic()
    done = engine.docker(*args, check=False)
    assert done.returncode != 0, done.stdout
    assert time.monotonic() - began < 20
    return done.stderr


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Raw(b"<html>"), "rubbish"),
        (Raw(b'{"InterfaceName": 5}'), "rubbish"),
        ({"InterfaceName": {"SrcName": "lo", "DstPrefix": "eth"}}, "SrcName 'lo'"),
        ({"InterfaceName": {"SrcName": "stage0", "DstPrefix": "eth"}}, "it is a bridge"),
        ({"InterfaceName": {"SrcName": "host0", "DstPrefix": "eth"}}, "addresses of the host (192.0.2.1/24)"),
        ({"InterfaceName": {"SrcName": "port0", "DstPrefix": "eth"}}, "the port of a bridge"),
        ({"InterfaceName": {"SrcName": "nothing0", "DstPrefix": "eth"}}, "there is no interface 'nothing0'"),
        ({"InterfaceName": {"SrcName": "../x", "DstPrefix": "eth"}}, "cannot be called so"),
        ({"InterfaceName": {"SrcName": "free0", "DstPrefix": "a/b"}}, "DstPrefix 'a/b'"),
        ({"InterfaceName": {"SrcName": "free0", "DstName": "lo"}}, "DstName 'lo'"),
        ({"InterfaceName": {"SrcName": "free0"}, "Gateway": "gate"}, "no address"),
        ({"InterfaceName": {"SrcName": "free0"}, "Gateway": "203.0.113.9"}, "unreachable"),
        ({"InterfaceName": {"SrcName": "free0"}, "StaticRoutes": [{"Destination": "x"}]}, "no network"),
        ({"InterfaceName": {"SrcName": "free0"}, "StaticRoutes": [{"Destination": "10.9.0.0/16"}]}, "of type 0"),
    ],
)
def test_hostile_answers_to_join(shared: tuple[Engine, BridgePlugin, str], answer: Any, said: str) -> None:
    engine, plugin, net = shared
    links = engine.nsenter(["ip", "-o", "link"]).stdout
    plugin.answers["NetworkDriver.Join"] = lambda _: answer
    plugin.answers["NetworkDriver.DeleteEndpoint"] = lambda _: {}
    message = fails(engine, "run", "--rm", "--network", net, engine.image, "true")
    assert said in message
    assert plugin.name in message
    after = engine.nsenter(["ip", "-o", "link"]).stdout
    assert names_of_links(after) == names_of_links(links)
    assert plugin.called("NetworkDriver.DeleteEndpoint")[-1]["EndpointID"]
    assert engine.docker("ps", "-aq").stdout == ""


def names_of_links(shown: str) -> set[str]:
    return {line.split(": ")[1].partition("@")[0] for line in shown.splitlines()}


@pytest.fixture(scope="module")
def shared(real_host: None, busybox_tar: Any) -> Iterator[tuple[Engine, BridgePlugin, str]]:
    """An engine with interfaces that no container may have and one that it may, a plugin, and a network of it."""
    engine = Engine()
    engine.start()
    engine.docker("import", "--change", 'CMD ["sh"]', busybox_tar, "busybox:latest")
    for words in (
        "link add stage0 type bridge",
        "link add host0 type veth peer name host1",
        "addr add 192.0.2.1/24 dev host0",
        "link add port0 type veth peer name port1",
        "link set port0 master stage0",
        "link add free0 type veth peer name free1",
    ):
        engine.nsenter(["ip", *words.split()])
    with BridgePlugin(engine, engine.name("plug")) as plugin:
        assert isinstance(plugin, BridgePlugin)
        net = network(engine, plugin.name)
        yield engine, plugin, net
        engine.docker("network", "rm", net)
        for link in ("stage0", "host0", "port0", "free0"):
            engine.nsenter(["ip", "link", "del", link])
    complaints = engine.destroy()
    assert not complaints, complaints


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"Address": "10.1.2.3/24"}, "but the endpoint has"),
        ({"MacAddress": "ff:ff:ff:ff:ff:ff"}, "none of a single interface"),
        ({"AddressIPv6": "10.1.2.3/24"}, "IPv6"),
    ],
)
def test_hostile_endpoints(shared: tuple[Engine, BridgePlugin, str], told: dict[str, str], said: str) -> None:
    engine, plugin, net = shared
    plugin.answers["NetworkDriver.CreateEndpoint"] = lambda _: {"Interface": told}
    plugin.answers["NetworkDriver.DeleteEndpoint"] = lambda _: {}
    try:
        message = fails(engine, "run", "--rm", "--network", net, engine.image, "true")
    finally:
        plugin.answers["NetworkDriver.CreateEndpoint"] = lambda _: {}
    assert said in message
    made = plugin.called("NetworkDriver.CreateEndpoint")[-1]["EndpointID"]
    assert plugin.called("NetworkDriver.DeleteEndpoint")[-1]["EndpointID"] == made


def test_refusals_are_passed_on(shared: tuple[Engine, BridgePlugin, str]) -> None:
    engine, plugin, _ = shared

    def refuse(_: dict[str, Any]) -> Any:
        raise Refusal("no room on the fabric")

    made = plugin.answers["NetworkDriver.CreateNetwork"]
    plugin.answers["NetworkDriver.CreateNetwork"] = refuse
    try:
        name = engine.name("net")
        message = fails(engine, "network", "create", "-d", plugin.name, name)
    finally:
        plugin.answers["NetworkDriver.CreateNetwork"] = made
    assert "no room on the fabric" in message
    assert plugin.name in message
    assert name not in engine.docker("network", "ls").stdout
    with OldStylePlugin(
        engine.plugin_dir,
        bad := engine.name("bad"),
        ["NetworkDriver"],
        {"NetworkDriver.GetCapabilities": lambda _: {"Scope": "galactic"}},
    ):
        assert "'galactic'" in fails(engine, "network", "create", "-d", bad, name)


def test_a_plugin_that_hangs_holds_nobody_up(remote: tuple[Engine, Make]) -> None:
    engine, make = remote
    plugin = make()
    go_on = threading.Event()
    net = network(engine, plugin.name)
    name, other = sleeper(engine, "--network", net), sleeper(engine)

    def hang(_: dict[str, Any]) -> dict[str, Any]:
        go_on.wait(60)
        raise Refusal("it is too late now")

    working = dict(plugin.answers)
    plugin.answers |= {method: hang for method in working if method.startswith("NetworkDriver.")}
    stuck = engine.popen("network", "create", "-d", plugin.name, engine.name("net"))
    try:
        for command in (["network", "ls"], ["ps"], ["inspect", name], ["network", "inspect", net]):
            began = time.monotonic()
            engine.docker(*command)
            assert time.monotonic() - began < 2, command
        began = time.monotonic()
        engine.docker("restart", "-t", "0", other)
        engine.docker("network", "rm", network(engine, "bridge"))
        assert time.monotonic() - began < 5
        began = time.monotonic()
        engine.docker("stop", "-t", "0", name)
        engine.docker("rm", name)
        assert time.monotonic() - began < 20
        assert name not in engine.docker("ps", "-a", "--format", "{{.Names}}").stdout
    finally:
        plugin.answers |= working
        go_on.set()
        stuck.wait(60)
    eventually(lambda: plugin.returned or plugin.called("NetworkDriver.DeleteEndpoint"), timeout=30)


def test_a_dead_plugin(remote: tuple[Engine, Make]) -> None:
    engine, make = remote
    plugin = make()
    net = network(engine, plugin.name)
    name, other = sleeper(engine, "--network", net), sleeper(engine, "--network", net)
    ends = plugin.called("NetworkDriver.DeleteEndpoint")
    plugin.close()
    assert pings(engine, name, other), "the network itself goes on"
    engine.docker("rm", "-f", name)
    assert engine.docker("ps", "-q").stdout.split() != []
    assert plugin.name in fails(engine, "run", "--rm", "--network", net, engine.image, "true")
    engine.stop()
    assert engine.start() < 2, "the start does not wait for the plugin"
    assert net in engine.docker("network", "ls").stdout
    assert pings(engine, other, "127.0.0.1")
    again = make(plugin.name)
    again.gateway = plugin.gateway
    third = sleeper(engine, "--network", net)
    assert pings(engine, third, other)
    eventually(lambda: len(again.called("NetworkDriver.DeleteEndpoint")) > len(ends), timeout=30, what="what is owed")

"""Network plugins in a process of their own: real traffic, restarts, and plugins that hang or die."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest
from harness import Engine, eventually
from harness.oldstyle import Refusal

from .conftest import Make, entry, fails, network, pings, sleeper

pytestmark = pytest.mark.real


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


def test_many_at_once_at_the_first_use(remote: tuple[Engine, Make]) -> None:
    engine, make = remote
    plugin = make()
    told = plugin.answers["NetworkDriver.GetCapabilities"]

    def slow(said: dict[str, Any]) -> Any:
        time.sleep(0.5)
        return told(said)

    plugin.answers["NetworkDriver.GetCapabilities"] = slow
    running = [engine.popen("network", "create", "-d", plugin.name, engine.name("net")) for _ in range(3)]
    assert [process.wait(30) for process in running] == [0, 0, 0]
    assert len(plugin.called("NetworkDriver.GetCapabilities")) == 1

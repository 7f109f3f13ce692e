"""Network plugins that answer rubbish, or what would harm the host: clear errors, and nothing of the host is touched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from harness import Engine, OldStylePlugin
from harness.oldstyle import Raw, Refusal

from .conftest import BridgePlugin, fails, network

pytestmark = pytest.mark.real


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

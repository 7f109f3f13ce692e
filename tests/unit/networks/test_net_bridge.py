"""The bridge driver's decisions: options, rules as text, ports."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator

import pytest

from plugin_sdk import Conflict, InvalidParameter, NotSupported
from plugin_sdk.network import EndpointRecord, IpamPool, NetworkRecord, PublishedPort
from plugins.net_bridge import ruleset
from plugins.net_bridge.driver import BRIDGE_ADDRESS, bridge_address
from plugins.net_bridge.links import mac_of
from plugins.net_bridge.options import parse_options
from plugins.net_bridge.ports import PortAllocator
from plugins.net_bridge.ruleset import BridgeRules, PortRules


def network(**options: str) -> NetworkRecord:
    return NetworkRecord(Id="0123456789abcdef" * 4, Name="mine", Created="", Driver="bridge", Options=options)


def endpoint(*ports: PublishedPort, name: str = "web", v6: bool = False) -> EndpointRecord:
    return EndpointRecord(
        Id=name.ljust(64, "0"),
        NetworkID="n",
        ContainerID="c",
        ContainerName=name,
        IPv4Address="172.17.0.2/16",
        IPv6Address="fd00::2/64" if v6 else "",
        Ports=list(ports),
    )


@pytest.fixture
def ports() -> Iterator[PortAllocator]:
    allocator = PortAllocator()
    yield allocator
    allocator.close()


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_options() -> None:
    plain = parse_options(network())
    assert (plain.name, plain.icc, plain.masquerade, plain.host_ip, plain.mtu) == ("br-0123456789ab", True, True, "", 0)
    prefix = "com.docker.network.bridge."
    chosen = parse_options(
        network(
            **{
                f"{prefix}name": "x0",
                f"{prefix}enable_icc": "false",
                f"{prefix}enable_ip_masquerade": "0",
                f"{prefix}host_binding_ipv4": "127.0.0.1",
                "com.docker.network.driver.mtu": "1400",
                "somebody.elses": "option",
            }
        )
    )
    assert (chosen.name, chosen.icc, chosen.masquerade, chosen.host_ip, chosen.mtu) == (
        "x0",
        False,
        False,
        "127.0.0.1",
        1400,
    )


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("com.docker.network.driver.mtu", "abc", InvalidParameter),
        ("com.docker.network.driver.mtu", "12", InvalidParameter),
        ("com.docker.network.bridge.enable_icc", "maybe", InvalidParameter),
        ("com.docker.network.bridge.host_binding_ipv4", "::1", InvalidParameter),
        ("com.docker.network.bridge.name", "a-name-that-is-too-long", InvalidParameter),
        ("com.docker.network.bridge.name", "a/b", InvalidParameter),
        ("com.docker.network.bridge.gateway_mode_ipv4", "routed", NotSupported),
    ],
)
def test_bad_options(key: str, value: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=key.replace(".", r"\.")):
        parse_options(network(**{key: value}))


def test_addresses_of_bridge_and_container() -> None:
    assert str(bridge_address(IpamPool(Subnet="10.1.0.0/16", Gateway="10.1.0.9"))) == "10.1.0.9/16"
    elsewhere = IpamPool(Subnet="10.1.0.0/16", Gateway="10.1.0.9", AuxiliaryAddresses={BRIDGE_ADDRESS: "10.1.0.1"})
    assert str(bridge_address(elsewhere)) == "10.1.0.1/16"
    assert mac_of(ipaddress.ip_interface("172.17.0.2/16")) == "02:42:ac:11:00:02"


def test_ports_are_held_and_given_back(ports: PortAllocator, free_port: int) -> None:
    wanted = PublishedPort(Port=80, HostPort=free_port)
    (bound,) = ports.take(endpoint(wanted), "")
    assert (bound.HostIp, bound.HostPort, bound.Port) == ("0.0.0.0", free_port, 80)
    with socket.socket() as other, pytest.raises(OSError):
        other.bind(("127.0.0.1", free_port))
    with pytest.raises(Conflict) as refused:
        ports.take(endpoint(wanted, name="other"), "")
    assert str(refused.value) == (
        f"driver failed programming external connectivity on endpoint other ({'other'.ljust(64, '0')}):"
        f" Bind for 0.0.0.0:{free_port} failed: port is already allocated"
    )
    assert ports.take(endpoint(bound), "") == [bound]
    ports.give_back("web".ljust(64, "0"))
    assert ports.take(endpoint(wanted, name="other"), "")[0].HostPort == free_port


def test_a_port_of_another_program(ports: PortAllocator) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        with pytest.raises(
            Conflict, match=f"failed to bind host port for 0.0.0.0:{taken}:172.17.0.2:80/tcp: address already"
        ):
            ports.take(endpoint(PublishedPort(Port=80, HostPort=taken)), "")


def test_all_ports_or_none(ports: PortAllocator, free_port: int) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        both = (PublishedPort(Port=80, HostPort=free_port), PublishedPort(Port=81, HostPort=taken))
        with pytest.raises(Conflict):
            ports.take(endpoint(*both), "")
    with socket.socket() as other:
        other.bind(("127.0.0.1", free_port))


def test_ephemeral_ports_and_ranges(ports: PortAllocator) -> None:
    one, two = ports.take(endpoint(PublishedPort(Port=80), PublishedPort(Port=81, Proto="udp")), "")
    assert 1024 < one.HostPort < 65536
    assert one.HostPort != two.HostPort
    first, last = one.HostPort, one.HostPort + 20
    (ranged,) = ports.take(endpoint(PublishedPort(Port=82, HostPort=first, HostPortEnd=last), name="ranged"), "")
    assert first < ranged.HostPort <= last


def test_host_addresses(ports: PortAllocator, free_port: int) -> None:
    (bound,) = ports.take(endpoint(PublishedPort(Port=80, HostIp="127.0.0.1", HostPort=free_port)), "")
    assert bound.HostIp == "127.0.0.1"
    with pytest.raises(Conflict, match="port is already allocated"):
        ports.take(endpoint(PublishedPort(Port=80, HostPort=free_port), name="all"), "")
    (default,) = ports.take(endpoint(PublishedPort(Port=80), name="default"), "127.0.0.1")
    assert default.HostIp == "127.0.0.1"
    with pytest.raises(InvalidParameter, match="cannot assign requested address"):
        ports.take(endpoint(PublishedPort(Port=80, HostIp="192.0.2.200", HostPort=1), name="far"), "")
    with pytest.raises(NotSupported, match="publish on 127.0.0.1 instead"):
        ports.take(endpoint(PublishedPort(Port=80, HostIp="::1"), name="six"), "")


def test_two_families_share_the_number(ports: PortAllocator, free_port: int) -> None:
    bound = ports.take(endpoint(PublishedPort(Port=80, HostPort=free_port), v6=True), "")
    assert [(port.HostIp, port.HostPort) for port in bound] == [("0.0.0.0", free_port), ("::", free_port)]
    rules = ruleset.port_rules(endpoint(*bound, v6=True))
    assert [(rule.family, rule.target) for rule in rules] == [("ip", "172.17.0.2"), ("ip6", "fd00::2")]


def test_rules_of_a_port() -> None:
    anywhere = PortRules("tcp", "0.0.0.0", 8080, "172.17.0.2", 80)
    bound = PortRules("udp", "192.0.2.1", 53, "172.17.0.2", 53)
    text = ruleset.port_elements("add", "engine-x", ["ip"], [anywhere, bound])
    assert text.splitlines() == [
        "add element ip engine-x anywhere { tcp . 8080 : 172.17.0.2 . 80 }",
        "add element ip engine-x bound { 192.0.2.1 . udp . 53 : 172.17.0.2 . 53 }",
    ]
    assert ruleset.port_elements("delete", "engine-x", ["ip"], [anywhere]) == (
        "delete element ip engine-x anywhere { tcp . 8080 }"
    )
    assert ruleset.port_elements("add", "engine-x", ["ip6"], [anywhere]) == ""


def test_rules_of_a_bridge() -> None:
    subnets = [ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00::/64")]
    text = ruleset.bridge_elements("add", "t", ["ip"], BridgeRules("br0", subnets))
    assert 'add element ip t friends { "br0" . "br0" }' in text
    assert "masked { 10.1.0.0/16 }" in text
    assert "fd00" not in text
    closed = ruleset.bridge_elements("add", "t", ["ip"], BridgeRules("br0", subnets, icc=False, internal=True))
    assert 'strangers { "br0" . "br0" }' in closed
    assert 'internal { "br0" }' in closed
    assert "masked" not in closed

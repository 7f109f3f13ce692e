"""Modes, ports and endpoints as clients write them, and the refusals in dockerd's words."""

from __future__ import annotations

import pytest

from plugin_sdk import InvalidParameter
from plugin_sdk.containers import ContainerConfig, EndpointConfig, EndpointIpam, HostConfig, PortBinding
from plugin_sdk.network import IpamConfig, IpamPool, NetworkRecord
from plugins.networks import modes
from plugins.networks.links import Link as ResolvedLink
from plugins.networks.links import link_environment, split_link
from plugins.networks.modes import parse_mode
from plugins.networks.pools import pool_faults


def network(name: str = "mine", subnet: str = "10.1.0.0/24") -> NetworkRecord:
    pools = IpamConfig(Config=[IpamPool(Subnet=subnet)])
    return NetworkRecord(Id="a" * 64, Name=name, Created="", Driver="bridge", IPAM=pools)


@pytest.mark.parametrize(
    ("text", "kind", "ref"),
    [
        ("", "network", "bridge"),
        ("default", "network", "bridge"),
        ("bridge", "network", "bridge"),
        ("host", "host", "host"),
        ("none", "none", "none"),
        ("container:db", "container", "db"),
        ("mine", "network", "mine"),
    ],
)
def test_modes(text: str, kind: str, ref: str) -> None:
    mode = parse_mode(text)
    assert (mode.kind, mode.ref) == (kind, ref)
    assert mode.user_defined == (ref == "mine")


@pytest.mark.parametrize(
    ("config", "host", "words"),
    [
        ({"Hostname": "x"}, {}, "conflicting options: hostname and the network mode"),
        ({}, {"Dns": ["1.1.1.1"]}, "conflicting options: dns and the network mode"),
        ({}, {"ExtraHosts": ["a:1.1.1.1"]}, "conflicting options: custom host-to-IP mapping and the network mode"),
        ({}, {"PublishAllPorts": True}, "conflicting options: port publishing and the container type network mode"),
        (
            {"ExposedPorts": {"80/tcp": {}}},
            {},
            "conflicting options: port exposing and the container type network mode",
        ),
        ({}, {"Links": ["a:b"]}, "container type network can't be used with links"),
    ],
)
def test_conflicts_with_a_shared_network(config: dict[str, object], host: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        modes.check_conflicts(parse_mode("container:x"), ContainerConfig(**config), HostConfig(**host))


def test_links_and_the_host_network() -> None:
    with pytest.raises(InvalidParameter, match="host type networking can't be used with links"):
        modes.check_conflicts(parse_mode("host"), ContainerConfig(), HostConfig(Links=["a:b"]))


def test_ports() -> None:
    host = HostConfig(
        PortBindings={
            "80/tcp": [PortBinding(HostPort="8080"), PortBinding(HostIp="127.0.0.1", HostPort="9000-9005")],
            "53/udp": None,
        }
    )
    found = modes.published_ports(ContainerConfig(), host)
    assert [(p.Proto, p.Port, p.HostIp, p.HostPort, p.HostPortEnd) for p in found] == [
        ("tcp", 80, "", 8080, 0),
        ("tcp", 80, "127.0.0.1", 9000, 9005),
        ("udp", 53, "", 0, 0),
    ]


def test_publish_all_takes_exposed_ranges_apart() -> None:
    config = ContainerConfig(ExposedPorts={"80/tcp": {}, "90-92/udp": {}})
    host = HostConfig(PublishAllPorts=True, PortBindings={"80/tcp": [PortBinding(HostPort="1")]})
    found = modes.published_ports(config, host)
    assert [(p.Port, p.Proto, p.HostPort) for p in found] == [
        (80, "tcp", 1),
        (90, "udp", 0),
        (91, "udp", 0),
        (92, "udp", 0),
    ]


@pytest.mark.parametrize(
    ("spec", "binding"),
    [
        ("80/foo", {}),
        ("0/tcp", {}),
        ("70000", {}),
        ("x/tcp", {}),
        ("80/tcp", {"HostPort": "99999"}),
        ("80/tcp", {"HostPort": "20-10"}),
        ("80/tcp", {"HostPort": "-5"}),
        ("80/tcp", {"HostIp": "nowhere"}),
    ],
)
def test_bad_ports(spec: str, binding: dict[str, str]) -> None:
    with pytest.raises(InvalidParameter, match="invalid port"):
        modes.published_ports(ContainerConfig(), HostConfig(PortBindings={spec: [PortBinding(**binding)]}))


@pytest.mark.parametrize("mac", ["zz", "02:42:ac:11:00", "01:00:5e:00:00:01", "02:42:ac:11:00:02:03"])
def test_bad_hardware_addresses(mac: str) -> None:
    with pytest.raises(InvalidParameter, match=f"invalid config for network mine: invalid MAC address {mac}"):
        modes.check_mac(mac, "mine")


@pytest.mark.parametrize("mac", ["", "02:42:ac:11:00:02", "02-42-ac-11-00-02"])
def test_good_hardware_addresses(mac: str) -> None:
    modes.check_mac(mac, "mine")


def refusal(record: NetworkRecord, asked: bool, **ipam: str) -> str:
    with pytest.raises(InvalidParameter) as caught:
        modes.check_endpoint(EndpointConfig(IPAMConfig=EndpointIpam(**ipam)), record, asked)
    return str(caught.value)


def test_addresses_asked_for() -> None:
    modes.check_endpoint(EndpointConfig(IPAMConfig=EndpointIpam(IPv4Address="10.1.0.5")), network(), True)
    assert refusal(network("bridge"), True, IPv4Address="10.1.0.5") == (
        "invalid endpoint settings:\nuser specified IP address is supported on user defined networks only"
    )
    assert "only when connecting to networks with user configured subnets" in refusal(
        network(), False, IPv4Address="10.1.0.5"
    )
    assert refusal(network(), True, IPv4Address="10.2.0.5") == (
        "invalid endpoint settings:\nno configured subnet or ip-range contain the IP address 10.2.0.5"
    )
    assert refusal(network(), True, IPv4Address="zz") == "invalid endpoint settings:\ninvalid IPv4 address: zz"


def test_aliases_want_a_network_of_ones_own() -> None:
    with pytest.raises(InvalidParameter, match="network-scoped aliases are only supported"):
        modes.check_endpoint(EndpointConfig(Aliases=["x"]), network("bridge"), False)


def test_extra_hosts() -> None:
    modes.check_extra_hosts(["a:1.2.3.4", "b:::1", "c:[::1]", "d:host-gateway"])
    assert modes.split_extra_host("c:[::1]") == ("c", "::1")
    with pytest.raises(InvalidParameter, match='bad format for add-host: "a"'):
        modes.check_extra_hosts(["a"])
    with pytest.raises(InvalidParameter, match='invalid IP address in add-host: "b"'):
        modes.check_extra_hosts(["a:b"])


def test_links() -> None:
    assert split_link("db:data") == ("db", "data")
    assert split_link("db") == ("db", "db")
    assert split_link("/db:/me/data") == ("db", "data")
    with pytest.raises(InvalidParameter, match="bad format for links"):
        split_link(":x")
    lines = link_environment("me", [ResolvedLink("1", "db", "my-db", "172.17.0.2", ["5432/tcp"])])
    assert lines == [
        "MY_DB_PORT=tcp://172.17.0.2:5432",
        "MY_DB_PORT_5432_TCP=tcp://172.17.0.2:5432",
        "MY_DB_PORT_5432_TCP_ADDR=172.17.0.2",
        "MY_DB_PORT_5432_TCP_PORT=5432",
        "MY_DB_PORT_5432_TCP_PROTO=tcp",
        "MY_DB_NAME=/me/my-db",
    ]


@pytest.mark.parametrize(
    ("pool", "fault"),
    [
        ({"Subnet": "192.0.2.0/33"}, "invalid subnet 192.0.2.0/33: invalid CIDR block notation"),
        ({"Subnet": "10.1.0.1/16"}, "invalid subnet 10.1.0.1/16: it should be 10.1.0.0/16"),
        ({"Gateway": "1.2.3.4"}, "every ip-range or gateway must have a corresponding subnet"),
        (
            {"Subnet": "10.9.0.0/16", "Gateway": "10.8.0.1"},
            "invalid gateway 10.8.0.1: parent subnet 10.9.0.0/16 doesn't contain this address",
        ),
        (
            {"Subnet": "10.9.0.0/16", "IPRange": "10.8.0.0/24"},
            "invalid ip-range 10.8.0.0/24: parent subnet 10.9.0.0/16 doesn't contain ip-range",
        ),
        ({"Subnet": "fd00::/64"}, "invalid subnet fd00::/64: IPv6 has not been enabled for this network"),
        ({"Subnet": "10.9.0.0/16", "AuxiliaryAddresses": {"x": "y"}}, "invalid auxiliary address y: invalid address"),
    ],
)
def test_pools_that_cannot_be(pool: dict[str, object], fault: str) -> None:
    assert pool_faults(IpamPool(**pool), ipv6=False) == [fault]


def test_pools_that_can_be() -> None:
    assert pool_faults(IpamPool(), ipv6=False) == []
    good = IpamPool(
        Subnet="10.9.0.0/16", IPRange="10.9.1.0/24", Gateway="10.9.0.1", AuxiliaryAddresses={"x": "10.9.0.2"}
    )
    assert pool_faults(good, ipv6=False) == []
    assert pool_faults(IpamPool(Subnet="fd00::/64"), ipv6=True) == []

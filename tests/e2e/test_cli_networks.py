"""Networks: create, list, connect, names, isolation, remove."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from harness import Client, eventually

pytestmark = pytest.mark.real


@pytest.fixture
def network(engine: Client) -> Iterator[Callable[..., str]]:
    """`network(*options)` makes a network and gives its name; containers on it and it itself are removed in the end."""
    made: list[str] = []

    def make(*options: str) -> str:
        made.append(engine.name("net"))
        engine.docker("network", "create", *options, made[-1])
        return made[-1]

    yield make
    for name in made:
        if used := engine.docker("ps", "-aq", "--filter", f"network={name}").stdout.split():
            engine.docker("rm", "-f", *used)
        engine.docker("network", "rm", name, check=False)


def run(engine: Client, network: str, *options: str) -> str:
    name = engine.name("c")
    engine.docker("run", "-d", "--name", name, "--network", network, *options, engine.image, "sleep", "600")
    return name


def address(engine: Client, container: str, network: str) -> str:
    return str(engine.inspect(container)["NetworkSettings"]["Networks"][network]["IPAddress"])


def test_the_three_that_are_always_there(engine: Client) -> None:
    rows = engine.docker("network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}").stdout.splitlines()
    assert {"bridge bridge local", "host host local", "none null local"} <= set(rows)
    refused = engine.docker("network", "rm", "bridge", check=False)
    assert refused.returncode == 1
    assert "bridge is a pre-defined network and cannot be removed" in refused.stderr


def test_create_list_inspect_remove(engine: Client) -> None:
    name = engine.name("net")
    options = ["--subnet", "10.213.7.0/24", "--gateway", "10.213.7.9", "--label", "a=b"]
    network_id = engine.docker("network", "create", *options, name).stdout.strip()
    assert len(network_id) == 64
    listed = engine.docker("network", "ls", "--no-trunc", "--filter", f"name={name}", "--format", "{{.ID}} {{.Driver}}")
    assert listed.stdout.split() == [network_id, "bridge"]
    shown = json.loads(engine.docker("network", "inspect", name).stdout)[0]
    assert shown["IPAM"]["Config"] == [{"Subnet": "10.213.7.0/24", "Gateway": "10.213.7.9"}]
    assert shown["Labels"] == {"a": "b"}
    assert engine.docker("network", "rm", name).stdout.strip() == name
    assert engine.docker("network", "inspect", name, check=False).returncode == 1
    assert engine.http("GET", f"/v1.45/networks/{name}").message == f"network {name} not found"


def test_names_resolve_between_containers(engine: Client, network: Callable[..., str]) -> None:
    net = network()
    first = run(engine, net, "--network-alias", "the-alias")
    second = run(engine, net)
    for known in (first, "the-alias", engine.inspect(first)["Id"][:12]):
        done = engine.docker("exec", second, "ping", "-c", "1", "-W", "3", known)
        assert f"({address(engine, first, net)})" in done.stdout
    missing = engine.docker("exec", second, "ping", "-c", "1", "-W", "3", "no-such-name", check=False)
    assert missing.returncode == 1
    assert "bad address" in missing.stderr


def test_default_bridge_has_addresses_but_no_names(engine: Client) -> None:
    first, second = run(engine, "bridge"), run(engine, "bridge")
    try:
        ip = address(engine, first, "bridge")
        engine.docker("exec", second, "ping", "-c", "1", "-W", "3", ip)
        done = engine.docker("exec", second, "ping", "-c", "1", "-W", "3", first, check=False)
        assert done.returncode == 1
    finally:
        engine.docker("rm", "-f", first, second)


def test_networks_are_apart(engine: Client, network: Callable[..., str]) -> None:
    one, two = network(), network()
    first, second = run(engine, one), run(engine, two)
    done = engine.docker("exec", second, "ping", "-c", "1", "-W", "1", address(engine, first, one), check=False)
    assert done.returncode == 1


def test_connect_and_disconnect_while_running(engine: Client, network: Callable[..., str]) -> None:
    one, two = network(), network()
    first, second = run(engine, one), run(engine, two)
    engine.docker("network", "connect", "--alias", "guest", two, first)
    assert set(engine.inspect(first)["NetworkSettings"]["Networks"]) == {one, two}
    assert "eth1" in engine.docker("exec", first, "ls", "/sys/class/net").stdout.split()
    engine.docker("exec", second, "ping", "-c", "1", "-W", "3", "guest")
    engine.docker("exec", first, "ping", "-c", "1", "-W", "3", second)
    engine.docker("network", "disconnect", two, first)
    assert set(engine.inspect(first)["NetworkSettings"]["Networks"]) == {one}
    assert "eth1" not in engine.docker("exec", first, "ls", "/sys/class/net").stdout.split()
    assert engine.docker("exec", second, "ping", "-c", "1", "-W", "1", "guest", check=False).returncode == 1


def test_chosen_address_and_mac(engine: Client, network: Callable[..., str]) -> None:
    net = network("--subnet", "10.213.8.0/24")
    name = run(engine, net, "--ip", "10.213.8.77", "--mac-address", "02:42:0a:d5:08:4d")
    assert address(engine, name, net) == "10.213.8.77"
    shown = engine.docker("exec", name, "ip", "addr", "show", "eth0").stdout
    assert "10.213.8.77/24" in shown
    assert "02:42:0a:d5:08:4d" in shown


def test_internal_network_has_no_way_out(engine: Client, network: Callable[..., str]) -> None:
    name = run(engine, network("--internal"))
    assert "default" not in engine.docker("exec", name, "ip", "route").stdout


def test_network_in_use_is_kept(engine: Client, network: Callable[..., str]) -> None:
    net = network()
    name = run(engine, net)
    refused = engine.docker("network", "rm", net, check=False)
    assert refused.returncode == 1
    assert "has active endpoints" in refused.stderr
    shown = json.loads(engine.docker("network", "inspect", net).stdout)[0]
    assert [entry["Name"] for entry in shown["Containers"].values()] == [name]


def test_name_in_use(engine: Client, network: Callable[..., str]) -> None:
    net = network()
    refused = engine.docker("network", "create", net, check=False)
    assert refused.returncode == 1
    assert f"network with name {net} already exists" in refused.stderr


def test_overlapping_subnets_are_refused(engine: Client, network: Callable[..., str]) -> None:
    network("--subnet", "10.213.9.0/24")
    refused = engine.docker("network", "create", "--subnet", "10.213.9.128/25", engine.name("net"), check=False)
    assert refused.returncode == 1
    assert "overlap" in refused.stderr


def test_address_is_given_back(engine: Client, network: Callable[..., str]) -> None:
    net = network("--subnet", "10.213.10.0/30")  # one gateway, one guest
    first = run(engine, net)
    full = engine.docker("run", "--rm", "--network", net, engine.image, "true", check=False)
    assert full.returncode == 125
    assert "no available" in full.stderr
    engine.docker("rm", "-f", first)
    eventually(
        lambda: engine.docker("run", "--rm", "--network", net, engine.image, "true", check=False).returncode == 0
    )


def test_container_keeps_its_networks_over_a_restart(engine: Client, network: Callable[..., str]) -> None:
    one, two = network(), network()
    name = run(engine, one)
    engine.docker("network", "connect", two, name)
    engine.docker("restart", "-t", "0", name)
    networks = engine.inspect(name)["NetworkSettings"]["Networks"]
    assert set(networks) == {one, two}
    assert all(entry["IPAddress"] for entry in networks.values())


def test_extra_hosts_and_dns(engine: Client, network: Callable[..., str]) -> None:
    options = ["--add-host", "far:192.0.2.7", "--dns", "192.0.2.53", "--dns-search", "example.test"]
    done = engine.docker("run", "--rm", *options, engine.image, "cat", "/etc/hosts", "/etc/resolv.conf")
    assert "192.0.2.7\tfar" in done.stdout
    assert "nameserver 192.0.2.53" in done.stdout
    assert "search example.test" in done.stdout
    inside = engine.docker("run", "--rm", "--network", network(), engine.image, "cat", "/etc/resolv.conf").stdout
    assert "nameserver 127.0.0.11" in inside


def test_prune(engine: Client, network: Callable[..., str]) -> None:
    label = f"prune={engine.name()}"
    net, used = network("--label", label), network("--label", label)
    run(engine, used)
    done = engine.docker("network", "prune", "-f", "--filter", f"label={label}")
    assert net in done.stdout
    names = engine.docker("network", "ls", "--format", "{{.Name}}").stdout.split()
    assert net not in names
    assert used in names

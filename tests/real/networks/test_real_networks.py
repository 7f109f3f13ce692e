"""Networks beyond the CLI's everyday use: dual stack, isolation, gateways, sharing, settings, crashes."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness import Client, Engine, eventually

pytestmark = pytest.mark.real


@pytest.fixture
def network(engine: Client) -> Iterator[Callable[..., str]]:
    """`network(*options)` makes a network and gives its name; what is on it goes with it."""
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


def sleeper(engine: Client, *options: str) -> str:
    name = engine.name("c")
    engine.docker("run", "-d", "--name", name, *options, engine.image, "sleep", "600")
    return name


def once(engine: Client, *args: str) -> str:
    return engine.docker("run", "--rm", *args).stdout


def settings(engine: Client, name: str, network: str) -> dict[str, Any]:
    found: dict[str, Any] = engine.inspect(name)["NetworkSettings"]["Networks"][network]
    return found


def test_dual_stack(engine: Client, network: Callable[..., str]) -> None:
    net = network("--ipv6")
    name = sleeper(engine, "--network", net)
    entry = settings(engine, name, net)
    assert entry["GlobalIPv6Address"].startswith("fd")
    assert entry["GlobalIPv6PrefixLen"] == 64
    shown = once(
        engine, "--network", net, engine.image, "sh", "-c", f"ip -6 route; nslookup {name}; ping -6 -c1 -W3 {name}"
    )
    assert f"default via {entry['IPv6Gateway']}" in shown
    assert entry["IPAddress"] in shown
    assert entry["GlobalIPv6Address"] in shown
    assert "1 packets received" in shown


def test_no_ipv6_where_none_was_asked_for(engine: Client) -> None:
    assert "inet6" not in once(engine, engine.image, "ip", "addr", "show", "eth0")


def test_no_talk_between_containers(engine: Client, network: Callable[..., str]) -> None:
    net = network("-o", "com.docker.network.bridge.enable_icc=false")
    other = sleeper(engine, "--network", net)
    done = engine.docker("run", "--rm", "--network", net, engine.image, "ping", "-c1", "-W1", other, check=False)
    assert done.returncode == 1
    assert "100% packet loss" in done.stdout


def test_internal_network_answers_inside_only(engine: Client, network: Callable[..., str]) -> None:
    net = network("--internal")
    other = sleeper(engine, "--network", net)
    once(engine, "--network", net, engine.image, "ping", "-c1", "-W3", other)
    asked = engine.docker("exec", other, "nslookup", "example.com", check=False)
    assert "SERVFAIL" in asked.stdout


def test_options_of_a_bridge(engine: Client, network: Callable[..., str]) -> None:
    net = network("-o", "com.docker.network.bridge.name=mybr7", "-o", "com.docker.network.driver.mtu=1300")
    assert "mtu 1300" in once(engine, "--network", net, engine.image, "ip", "link", "show", "eth0")
    assert "mtu 1300" in engine.nsenter(["ip", "link", "show", "mybr7"]).stdout
    again = engine.docker("network", "create", "-o", "com.docker.network.bridge.name=mybr7", engine.name(), check=False)
    assert "networks have same bridge name" in again.stderr


def test_several_networks_and_their_gateway(engine: Client, network: Callable[..., str]) -> None:
    one, two = network("--subnet", "10.214.1.0/24"), network("--subnet", "10.214.2.0/24")
    name = engine.name()
    wish = {
        "Image": engine.image,
        "Cmd": ["sleep", "600"],
        "HostConfig": {"NetworkMode": one},
        "NetworkingConfig": {
            "EndpointsConfig": {
                one: {"GwPriority": 0, "IPAMConfig": {"IPv4Address": "10.214.1.9"}},
                two: {"GwPriority": 5, "Aliases": ["second"], "MacAddress": "02:00:00:00:00:22"},
            }
        },
    }
    assert engine.http("POST", f"/v1.48/containers/create?name={name}", wish).status == 201
    engine.docker("start", name)
    assert settings(engine, name, one)["IPAddress"] == "10.214.1.9"
    assert settings(engine, name, two)["MacAddress"] == "02:00:00:00:00:22"
    routes = engine.docker("exec", name, "ip", "route").stdout
    assert "default via 10.214.2.1" in routes
    once(engine, "--network", two, engine.image, "ping", "-c1", "-W3", "second")
    refused = engine.http("POST", "/v1.40/containers/create", wish)
    assert refused.status == 400
    assert "cannot be created with multiple network endpoints" in refused.message


def test_connect_while_stopped(engine: Client, network: Callable[..., str]) -> None:
    one, two = network(), network("--subnet", "10.214.3.0/24")
    name = engine.name()
    engine.docker("create", "--name", name, "--network", one, engine.image, "sleep", "600")
    engine.docker("network", "connect", "--ip", "10.214.3.7", two, name)
    assert settings(engine, name, two)["IPAMConfig"] == {"IPv4Address": "10.214.3.7"}
    assert settings(engine, name, two)["IPAddress"] == ""
    engine.docker("start", name)
    assert settings(engine, name, two)["IPAddress"] == "10.214.3.7"
    engine.docker("stop", "-t", "0", name)
    engine.docker("network", "disconnect", one, name)
    engine.docker("start", name)
    assert set(engine.inspect(name)["NetworkSettings"]["Networks"]) == {two}


def test_sharing_a_containers_network(engine: Client, network: Callable[..., str]) -> None:
    net = network()
    name = sleeper(engine, "--network", net, "--add-host", "far:192.0.2.9")
    shown = once(
        engine, "--network", f"container:{name}", engine.image, "sh", "-c", "hostname; ip -o -4 addr; cat /etc/hosts"
    )
    assert shown.startswith(engine.inspect(name)["Id"][:12])
    assert settings(engine, name, net)["IPAddress"] in shown
    assert "192.0.2.9\tfar" in shown
    engine.docker("stop", "-t", "0", name)
    refused = engine.docker("run", "--rm", "--network", f"container:{name}", engine.image, "true", check=False)
    assert "cannot join network of a non running container" in refused.stderr


def test_links_on_the_default_network(engine: Client) -> None:
    name = sleeper(engine)
    try:
        shown = once(engine, "--link", f"{name}:db", engine.image, "sh", "-c", "ping -c1 -W3 db; env")
        assert "1 packets received" in shown
        assert "DB_NAME=/" in shown
        engine.docker("stop", "-t", "0", name)
        refused = engine.docker("run", "--rm", "--link", f"{name}:db", engine.image, "true", check=False)
        assert f"Cannot link to a non running container: /{name} AS /" in refused.stderr
    finally:
        engine.docker("rm", "-f", name)


def test_the_host_network(engine: Client) -> None:
    shown = once(engine, "--network", "host", engine.image, "sh", "-c", "ip -o link; hostname")
    assert "docker0" in shown
    assert shown.splitlines()[-1] == engine.nsenter(["hostname"]).stdout.strip()


def test_a_dns_server_of_ones_own(engine: Client, network: Callable[..., str]) -> None:
    """The engine's name server leaves port 53 of all addresses to the container."""
    net = network()
    other = sleeper(engine, "--network", net)
    command = f"nc -l -p 53 & sleep 0.3; ping -c1 -W3 {other} && netstat -ln"
    shown = once(engine, "--network", net, engine.image, "sh", "-c", command)
    assert "0.0.0.0:53 " in shown or ":::53 " in shown


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("create", {"Name": "bridge"}, 403, "operation is not permitted on predefined bridge network "),
        ("create", {"Name": ""}, 400, "invalid name: "),
        ("create", {"Name": "x", "Driver": "null"}, 403, 'only one instance of "null" network is allowed'),
        ("create", {"Name": "x", "Driver": "nodriver"}, 404, 'plugin "nodriver" not found'),
        ("create", {"Name": "x", "IPAM": {"Driver": "noipam"}}, 404, 'plugin "noipam" not found'),
        (
            "create",
            {"Name": "x", "Options": {"com.docker.network.driver.mtu": "abc"}},
            400,
            'failed to parse com.docker.network.driver.mtu value: abc (strconv.Atoi: parsing "abc": invalid syntax)',
        ),
        ("nope/connect", {"Container": "no-such"}, 404, "No such container: no-such"),
        ("bridge/connect", {"Container": "no-such"}, 404, "No such container: no-such"),
        ("bridge/disconnect", {"Container": "no-such", "Force": True}, 404, "endpoint no-such not found"),
    ],
)
def test_refusals(engine: Client, path: str, body: dict[str, Any], status: int, message: str) -> None:
    before = engine.docker("network", "ls", "-q").stdout
    reply = engine.http("POST", f"/v1.45/networks/{path}", body)
    assert (reply.status, reply.message) == (status, message)
    assert engine.docker("network", "ls", "-q").stdout == before


def test_refusals_of_connect(engine: Client, network: Callable[..., str]) -> None:
    net = network()
    plain, alone = sleeper(engine), sleeper(engine, "--network", "none")
    hosted = sleeper(engine, "--network", "host")
    try:
        for target, container, status, words in (
            (net, hosted, 400, "container sharing network namespace with another container or host"),
            (net, alone, 400, "with one of the networks in private (none) mode"),
            ("none", plain, 400, "with one of the networks in private (none) mode"),
            ("host", plain, 400, "container cannot be disconnected from host network or connected to host network"),
            ("bridge", plain, 403, f"endpoint with name {plain} already exists in network bridge"),
        ):
            reply = engine.http("POST", f"/networks/{target}/connect", {"Container": container})
            assert reply.status == status
            assert words in reply.message
        away = engine.http("POST", f"/networks/{net}/disconnect", {"Container": plain})
        assert f"is not connected to network {net}" in away.message
    finally:
        engine.docker("rm", "-f", plain, alone, hosted)


def test_an_unknown_network_leaves_nothing(engine: Client) -> None:
    before = engine.docker("ps", "-aq").stdout
    refused = engine.docker("run", "--rm", "--network", "no-such-net", engine.image, "true", check=False)
    assert refused.returncode == 125
    assert "network no-such-net not found" in refused.stderr
    assert engine.docker("ps", "-aq").stdout == before


def test_events(engine: Client, network: Callable[..., str]) -> None:
    net = network()
    container = once(engine, "--network", net, engine.image, "hostname").strip()
    span = ["--since", "30s", "--until", str(int(time.time()) + 1)]
    listed = engine.docker("events", *span, "--filter", f"network={net}", "--format", "{{json .}}")
    shown = listed.stdout.splitlines()
    events = [json.loads(line) for line in shown]
    assert [event["Action"] for event in events] == ["create", "connect", "disconnect"]
    assert events[1]["Actor"]["Attributes"]["container"].startswith(container)
    assert events[0]["Actor"]["Attributes"] == {"name": net, "type": "bridge"}


def test_a_renamed_container(engine: Client, network: Callable[..., str]) -> None:
    net = network()
    name, other = sleeper(engine, "--network", net), sleeper(engine, "--network", net)
    engine.docker("rename", name, f"{name}-new")
    eventually(lambda: engine.docker("exec", other, "ping", "-c1", "-W1", f"{name}-new", check=False).returncode == 0)
    assert engine.docker("exec", other, "ping", "-c1", "-W1", name, check=False).returncode == 1


def test_settings_of_the_default_network(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine(
        "--bip=10.215.0.1/24",
        "--fixed-cidr=10.215.0.64/26",
        "--mtu=1400",
        "--dns=192.0.2.53",
        "--default-address-pool=base=10.216.0.0/16,size=26",
        "--host-gateway-ip=192.0.2.1",
    )
    shown = once(
        engine, "--add-host", "up:host-gateway", engine.image, "sh", "-c", "ip addr; cat /etc/resolv.conf /etc/hosts"
    )
    assert "10.215.0.64/24" in shown
    assert "mtu 1400" in shown
    assert "nameserver 192.0.2.53" in shown
    assert "192.0.2.1\tup" in shown
    engine.docker("network", "create", "pooled")
    config = json.loads(engine.docker("network", "inspect", "pooled").stdout)[0]["IPAM"]["Config"]
    assert config == [{"Subnet": "10.216.0.0/26", "Gateway": "10.216.0.1"}]
    identity = engine.docker("network", "inspect", "bridge", "-f", "{{.Id}}").stdout
    engine.stop()
    engine.flags = ["--debug", "--bip=10.217.0.1/24"]
    engine.start()
    moved = json.loads(engine.docker("network", "inspect", "bridge").stdout)[0]
    assert moved["IPAM"]["Config"][0]["Subnet"] == "10.217.0.0/24"
    assert f"{moved['Id']}\n" == identity
    assert "10.217.0.2" in once(engine, engine.image, "ip", "addr")


def test_no_default_network(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine("--bridge=none")
    assert "bridge" not in engine.docker("network", "ls", "--format", "{{.Name}}").stdout.split()
    assert engine.docker("run", "--rm", engine.image, "true", check=False).returncode == 125
    once(engine, "--network", "none", engine.image, "true")


def test_two_engines_in_one_namespace(own_engine: Callable[..., Engine]) -> None:
    first = own_engine()
    second = own_engine(netns=first.netns)
    facts = []
    for engine in (first, second):
        shown = json.loads(engine.docker("network", "inspect", "bridge").stdout)[0]
        facts.append((shown["Options"]["com.docker.network.bridge.name"], shown["IPAM"]["Config"][0]["Subnet"]))
    assert facts[0][0] == "docker0"
    assert facts[1][0].startswith("eng-")
    assert facts[0][1] != facts[1][1]
    serve = "echo {0} > /tmp/index.html; exec httpd -f -p 80 -h /tmp"
    first.docker("run", "-d", "-p", "41101:80", first.image, "sh", "-c", serve.format("first"))
    second.docker("run", "-d", "-p", "41102:80", second.image, "sh", "-c", serve.format("second"))
    eventually(lambda: first.fetch("http://127.0.0.1:41101/") == "first\n")
    eventually(lambda: first.fetch("http://127.0.0.1:41102/") == "second\n")
    refused = second.docker("run", "--rm", "-p", "41101:80", second.image, "true", check=False)
    assert "address already in use" in refused.stderr


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_networks_outlive_the_daemon(own_engine: Callable[..., Engine], end: signal.Signals) -> None:
    engine = own_engine()
    engine.docker("network", "create", "--ipv6", "kept")
    serve = "echo up > /tmp/index.html; exec httpd -f -p 80 -h /tmp"
    engine.docker("run", "-d", "--name", "web", "--network", "kept", "-p", "41110:80", engine.image, "sh", "-c", serve)
    client = sleeper(engine, "--network", "kept")
    gone = engine.docker("run", "-d", "-p", "41111:80", engine.image, "sleep", "1").stdout.strip()
    before = settings(engine, "web", "kept")
    eventually(lambda: engine.fetch("http://127.0.0.1:41110/") == "up\n")
    engine.stop(end)
    assert engine.fetch("http://127.0.0.1:41110/") == "up\n", "containers and rules need no daemon"
    eventually(lambda: "sleep" not in engine.nsenter(["ss", "-x"], check=False).stdout)
    engine.start()
    assert engine.fetch("http://127.0.0.1:41110/") == "up\n"
    assert settings(engine, "web", "kept") == before
    assert engine.docker("exec", client, "wget", "-qO-", "http://web/").stdout == "up\n"
    eventually(lambda: not engine.inspect(gone)["State"]["Running"])
    engine.docker("run", "--rm", "-p", "41111:80", engine.image, "true")
    engine.docker("run", "--rm", "--network", "kept", engine.image, "ping", "-c1", "-W3", "web")
    refused = engine.docker("run", "--rm", "-p", "41110:80", engine.image, "true", check=False)
    assert "port is already allocated" in refused.stderr


def test_nothing_is_left_of_containers(engine: Client, network: Callable[..., str]) -> None:
    net = network()
    before = engine.nsenter(["ip", "-brief", "link"]).stdout.count("veth")
    for _ in range(4):
        once(engine, "--network", net, "-p", "80", engine.image, "true")
    failed = engine.docker("run", "--rm", "--network", net, "-p", "80", engine.image, "no-such-command", check=False)
    assert failed.returncode == 127
    eventually(lambda: engine.nsenter(["ip", "-brief", "link"]).stdout.count("veth") <= before)

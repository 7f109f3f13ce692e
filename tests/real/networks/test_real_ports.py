"""Published ports as clients of the host and of other containers see them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from harness import Client, Engine, External, eventually

pytestmark = pytest.mark.real

SERVE = "echo {text} > /tmp/index.html; exec httpd -f -p 80 -h /tmp"


@pytest.fixture
def serve(engine: Client) -> Iterator[Callable[..., str]]:
    """`serve(text, *options)` runs a web server in a container and gives its name."""
    made: list[str] = []

    def start(text: str, *options: str) -> str:
        name = engine.name("web")
        made.append(name)
        engine.docker("run", "-d", "--name", name, *options, engine.image, "sh", "-c", SERVE.format(text=text))
        return name

    yield start
    if made:
        engine.docker("rm", "-f", *made)


def host_port(engine: Client, name: str, port: str = "80/tcp") -> int:
    return int(engine.inspect(name)["NetworkSettings"]["Ports"][port][0]["HostPort"])


def gateway(engine: Client, network: str = "bridge") -> str:
    return engine.docker("network", "inspect", network, "-f", "{{(index .IPAM.Config 0).Gateway}}").stdout.strip()


def wget(engine: Client, container: str, url: str) -> str:
    return engine.docker("exec", container, "timeout", "3", "wget", "-qO-", url, check=False).stdout


def test_from_everywhere(engine: Client, serve: Callable[..., str]) -> None:
    name = serve("hello", "-p", "80")
    port = host_port(engine, name)
    assert 1024 < port < 65536
    assert engine.docker("port", name).stdout.strip().startswith(f"80/tcp -> 0.0.0.0:{port}")
    eventually(lambda: engine.fetch(f"http://127.0.0.1:{port}/") == "hello\n")
    other = serve("other")
    for client in (other, name):
        assert wget(engine, client, f"http://{gateway(engine)}:{port}/") == "hello\n", client
    assert engine.fetch(f"http://{gateway(engine)}:{port}/") == "hello\n"


def test_from_another_network(engine: Client, serve: Callable[..., str]) -> None:
    name = serve("hello", "-p", "80")
    network = engine.name("net")
    engine.docker("network", "create", network)
    try:
        port = host_port(engine, name)
        address = engine.inspect(name)["NetworkSettings"]["IPAddress"]
        ask = f"timeout 3 wget -qO- http://{gateway(engine)}:{port}/; timeout 2 wget -qO- http://{address}/; true"
        asked = engine.docker("run", "--rm", "--network", network, engine.image, "sh", "-c", ask, check=False)
        assert asked.stdout == "hello\n", "the published port answers, the container itself does not"
    finally:
        engine.docker("network", "rm", network)


def test_bound_to_one_address(engine: Client, serve: Callable[..., str]) -> None:
    name = serve("hello", "-p", "127.0.0.1::80")
    port = host_port(engine, name)
    eventually(lambda: engine.fetch(f"http://127.0.0.1:{port}/") == "hello\n")
    assert engine.fetch(f"http://{gateway(engine)}:{port}/", timeout=1) == ""


def test_udp(engine: Client) -> None:
    if isinstance(engine, External):
        pytest.skip("needs the sandbox's path")
    name = engine.name("udp")
    engine.docker("run", "-d", "--name", name, "-p", "53/udp", engine.image, "sleep", "60")
    serve = (
        "import socket\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('0.0.0.0', 53)); print('up', flush=True)\n"
        "while True:\n"
        "    data, peer = s.recvfrom(99); s.sendto(b'got ' + data, peer)"
    )
    ask = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(2)\n"
        "s.sendto(b'ping', ('127.0.0.1', int(sys.argv[1]))); print(s.recv(99).decode(), end='')"
    )
    sandbox = engine.inspect(name)["NetworkSettings"]["SandboxKey"]
    command = ["nsenter", f"--net={sandbox}", sys.executable, "-c", serve]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout and server.stdout.readline() == b"up\n"
            port = host_port(engine, name, "53/udp")
            assert engine.nsenter([sys.executable, "-c", ask, str(port)]).stdout == "got ping"
        finally:
            server.kill()
            engine.docker("rm", "-f", name)


def test_ranges(engine: Client, serve: Callable[..., str]) -> None:
    one, two = serve("one", "-p", "41000-41001:80"), serve("two", "-p", "41000-41001:80")
    assert {host_port(engine, one), host_port(engine, two)} == {41000, 41001}
    full = engine.docker("run", "--rm", "-p", "41000-41001:80", engine.image, "true", check=False)
    assert full.returncode == 125
    assert "all ports are allocated" in full.stderr


def test_in_use_by_a_container(engine: Client, serve: Callable[..., str]) -> None:
    port = host_port(engine, serve("first", "-p", "80"))
    name = engine.name()
    refused = engine.docker("run", "--name", name, "-p", f"{port}:80", engine.image, "true", check=False)
    assert refused.returncode == 125
    assert f"driver failed programming external connectivity on endpoint {name} (" in refused.stderr
    assert f"Bind for 0.0.0.0:{port} failed: port is already allocated" in refused.stderr
    engine.docker("rm", name)


def test_in_use_by_a_program(engine: Client) -> None:
    listen = (
        "import socket, time; s = socket.create_server(('0.0.0.0', 41010)); print('up', flush=True); time.sleep(60)"
    )
    enter = ["nsenter", f"--net={engine.netns}"] if engine.netns else []
    with subprocess.Popen([*enter, sys.executable, "-c", listen], stdout=subprocess.PIPE) as listener:
        try:
            assert listener.stdout and listener.stdout.readline() == b"up\n"
            refused = engine.docker("run", "--rm", "-p", "41010:80", engine.image, "true", check=False)
            assert refused.returncode == 125
            assert "41010" in refused.stderr
            assert "address already in use" in refused.stderr
        finally:
            listener.kill()
    engine.docker("run", "--rm", "-p", "41010:80", engine.image, "true")


def test_a_published_port_is_taken_for_others(engine: Client, serve: Callable[..., str]) -> None:
    port = host_port(engine, serve("x", "-p", "80"))
    bind = f"import socket; s = socket.socket(); s.setsockopt(1, 2, 1); s.bind(('0.0.0.0', {port}))"
    done = engine.nsenter([sys.executable, "-c", bind], check=False)
    assert "Address already in use" in done.stderr


def test_free_at_once_for_the_next(engine: Client) -> None:
    for _ in range(5):
        engine.docker("run", "--rm", "-p", "41020:80", engine.image, "true")
    for _ in range(3):
        name = engine.name()
        engine.docker("run", "-d", "--name", name, "-p", "41020:80", engine.image, "sleep", "60")
        engine.docker("rm", "-f", name)


def test_kept_over_a_container_restart(engine: Client, serve: Callable[..., str]) -> None:
    name = serve("again", "-p", "41030:80")
    engine.docker("restart", "-t", "0", name)
    assert host_port(engine, name) == 41030
    eventually(lambda: engine.fetch("http://127.0.0.1:41030/") == "again\n")


def test_ports_move_with_the_default_route(engine: Client, serve: Callable[..., str]) -> None:
    network = engine.name("aaa-first")
    engine.docker("network", "create", network)
    name = serve("moved", "-p", "80")
    try:
        port = host_port(engine, name)
        engine.docker("network", "connect", network, name)
        engine.docker("network", "disconnect", "bridge", name)
        assert host_port(engine, name) == port
        eventually(lambda: engine.fetch(f"http://127.0.0.1:{port}/") == "moved\n")
        assert f"via {gateway(engine, network)}" in engine.docker("exec", name, "ip", "route").stdout
    finally:
        engine.docker("rm", "-f", name)
        engine.docker("network", "rm", network)


def test_rules_flushed_by_others_come_back(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine()
    engine.docker("run", "-d", "-p", "41040:80", engine.image, "sh", "-c", SERVE.format(text="back"))
    eventually(lambda: engine.fetch("http://127.0.0.1:41040/") == "back\n")
    engine.nsenter(["nft", "flush", "ruleset"])
    eventually(lambda: engine.fetch("http://127.0.0.1:41040/", timeout=1) == "back\n", timeout=5)
    table = engine.nsenter(["nft", "list", "tables"]).stdout.split()[2]
    engine.nsenter(["nft", "flush", "map", "ip", table, "anywhere"])
    eventually(lambda: engine.fetch("http://127.0.0.1:41040/", timeout=1) == "back\n", timeout=10)


def test_a_foreign_forward_policy_of_drop(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine(start=False)
    policy = "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }"
    engine.nsenter(["nft", policy])
    engine.start()
    engine.docker("network", "create", "made-later")
    rules = engine.nsenter(["nft", "list", "chain", "ip", "filter", "FORWARD"]).stdout
    bridge = engine.docker("network", "inspect", "made-later", "-f", "br-{{slice .Id 0 12}}").stdout.strip()
    for name in ("docker0", bridge):
        assert f'iifname "{name}"' in rules
        assert f'oifname "{name}"' in rules
    engine.docker("network", "rm", "made-later")
    assert bridge not in engine.nsenter(["nft", "list", "chain", "ip", "filter", "FORWARD"]).stdout


def test_without_a_firewall(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine("--iptables=false", "--ip6tables=false")
    engine.docker("run", "-d", "-p", "41050:80", engine.image, "sh", "-c", SERVE.format(text="x"))
    assert engine.nsenter(["nft", "list", "ruleset"]).stdout == ""


def test_many_at_once(engine: Client) -> None:
    names = [engine.name("many") for _ in range(10)]
    began = time.monotonic()
    starts = [engine.popen("run", "-d", "--name", name, "-p", "80", engine.image, "sleep", "60") for name in names]
    try:
        assert [start.wait(30) for start in starts] == [0] * len(names), [start.stderr.read() for start in starts]
        assert time.monotonic() - began < 20
        facts = [engine.inspect(name)["NetworkSettings"] for name in names]
        assert len({fact["IPAddress"] for fact in facts}) == len(names)
        assert len({fact["Ports"]["80/tcp"][0]["HostPort"] for fact in facts}) == len(names)
    finally:
        engine.docker("rm", "-f", *names)

"""Every method of every protocol, through a real socket, as the engine calls it."""

from __future__ import annotations

import base64
import http.server
import json
import os
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plugin_sdk import InvalidParameter
from plugin_sdk.logs import LogEntry
from plugin_sdk.logwire import Decoder, Encoder
from plugin_sdk.serving.interfaces import interface_types, interfaces
from plugin_sdk.volumes import VolumeDriver

from .conftest import PATIENCE, PROGRAM, Served, UnixConnection

Serve = Callable[..., Served]
OK = {"Err": ""}


def test_volume_driver(serve: Serve) -> None:
    plugin = serve("volume")
    assert plugin.call("Plugin.Activate") == {"Implements": ["VolumeDriver"]}
    assert plugin.call("VolumeDriver.Capabilities") == {"Capabilities": {"Scope": "global"}} | OK
    assert plugin.call("VolumeDriver.List") == {"Volumes": []} | OK
    assert plugin.call("VolumeDriver.Create", Name="v", Opts={"size": "1g"}) == OK
    assert plugin.call("VolumeDriver.Create", name="w", OPTS=None) == OK
    assert plugin.call("VolumeDriver.Mount", Name="v", ID="abc") == {"Mountpoint": "/data/v"} | OK
    assert plugin.call("VolumeDriver.Path", Name="v") == {"Mountpoint": "/data/v"} | OK
    volume = {"Name": "v", "Mountpoint": "/data/v", "CreatedAt": "2026-01-02T03:04:05Z", "Status": {"Size": 7}}
    assert plugin.call("VolumeDriver.Get", Name="v") == {"Volume": volume} | OK
    assert [item["Name"] for item in plugin.call("VolumeDriver.List")["Volumes"]] == ["v", "w"]
    assert plugin.call("VolumeDriver.Unmount", Name="v", ID="abc") == OK
    assert plugin.call("VolumeDriver.Remove", Name="v") == OK
    assert plugin.refusal("VolumeDriver.Get", Name="v") == (500, {"Err": "get v: no such volume"})
    assert plugin.seen() == [
        ["create", "v", {"size": "1g"}],
        ["create", "w", {}],
        ["mount", "v", "abc"],
        ["unmount", "v", "abc"],
        ["remove", "v"],
    ]


def test_failures_are_told(serve: Serve) -> None:
    plugin = serve("volume")
    status, reply = plugin.refusal("VolumeDriver.Create", Name="broken")
    assert (status, reply["Err"]) == (500, "VolumeDriver.Create failed: RuntimeError: out of paper")
    status, reply = plugin.refusal("VolumeDriver.Mount", Name="rubbish", ID="1")
    assert (status, reply["Err"]) == (500, "VolumeDriver.Mount failed: TypeError: mount gave int, not str")
    status, reply = plugin.refusal("VolumeDriver.Create", Opts={})
    assert status == 400
    assert "invalid value for Name" in reply["Err"]
    assert plugin.raw("/VolumeDriver.Create", b"{nonsense")[0] == 400
    assert plugin.raw("/VolumeDriver.Create", b"[1]")[0] == 400
    assert plugin.raw("/VolumeDriver.Nonsense")[0] == 404
    assert plugin.raw("/NetworkDriver.Join", b"{}")[0] == 404
    assert plugin.raw("/VolumeDriver.List", method="GET")[0] == 405
    assert plugin.call("VolumeDriver.List") == {"Volumes": []} | OK


def test_a_body_that_is_too_large_is_refused(serve: Serve) -> None:
    plugin = serve("volume")
    status, body = plugin.raw("/VolumeDriver.Create", b" " * (17 << 20))
    assert status == 400
    assert "more than" in json.loads(body)["Err"]


def test_network_driver(serve: Serve) -> None:
    plugin = serve("network")
    assert plugin.call("Plugin.Activate") == {"Implements": ["NetworkDriver"]}
    told = plugin.call("NetworkDriver.GetCapabilities")
    assert told == {"Scope": "local", "ConnectivityScope": "global", "GwAllocChecker": False} | OK
    made = plugin.call(
        "NetworkDriver.CreateNetwork",
        NetworkID="n1",
        Options={"com.docker.network.generic": {"mtu": "1400"}, "com.docker.network.enable_ipv6": True},
        IPv4Data=[
            {"AddressSpace": "l", "Pool": "10.1.0.0/16", "Gateway": "10.1.0.1/16", "AuxAddresses": {"a": "10.1.0.5"}}
        ],
        IPv6Data=None,
    )
    assert made == OK
    network = plugin.seen()[-1][1]
    assert (network["Id"], network["Options"], network["EnableIPv6"]) == ("n1", {"mtu": "1400"}, True)
    assert network["IPAM"]["Config"] == [
        {"Subnet": "10.1.0.0/16", "Gateway": "10.1.0.1", "AuxiliaryAddresses": {"a": "10.1.0.5"}}
    ]
    ids = {"NetworkID": "n1", "EndpointID": "e1"}
    ports = [{"Proto": 6, "Port": 80, "HostIP": "", "HostPort": 8080, "HostPortEnd": 8080}]
    reply = plugin.call(
        "NetworkDriver.CreateEndpoint",
        **ids,
        Interface={"Address": "10.1.0.7/16", "AddressIPv6": "", "MacAddress": ""},
        Options={
            "com.docker.network.portmap": ports,
            "com.docker.network.endpoint.exposedports": [{"Proto": 17, "Port": 53}],
            "colour": "red",
        },
    )
    # What was given comes back empty; what the driver added, filled.
    assert reply == {"Interface": {"Address": "", "AddressIPv6": "", "MacAddress": "02:42:00:00:00:09"}} | OK
    endpoint = plugin.seen()[-1][2]
    assert endpoint["IPv4Address"] == "10.1.0.7/16"
    assert endpoint["Ports"] == [{"Port": 80, "HostPort": 8080}]
    assert (endpoint["Exposed"], endpoint["DriverOpts"]) == (["53/udp"], {"colour": "red"})
    assert plugin.call("NetworkDriver.EndpointOperInfo", **ids) == {"Value": {}} | OK
    assert (
        plugin.call("NetworkDriver.Join", **ids, SandboxKey="/run/netns/x", Options={})
        == {
            "InterfaceName": {"SrcName": "veth7", "DstPrefix": "net", "DstName": ""},
            "Gateway": "10.1.0.1",
            "GatewayIPv6": "",
            "StaticRoutes": [
                {"Destination": "10.9.0.0/16", "RouteType": 0, "NextHop": "10.1.0.2"},
                {"Destination": "10.8.0.0/16", "RouteType": 1, "NextHop": ""},
            ],
            "DisableGatewayService": True,
        }
        | OK
    )
    assert plugin.seen()[-1][1]["MacAddress"] == "02:42:00:00:00:09"
    new_ports = [{"Proto": 17, "Port": 53, "HostPort": 5300, "HostPortEnd": 5310}]
    external = plugin.call(
        "NetworkDriver.ProgramExternalConnectivity", **ids, Options={"com.docker.network.portmap": new_ports}
    )
    assert external == OK
    assert plugin.seen()[-1][1]["Ports"] == [{"Proto": "udp", "Port": 53, "HostPort": 5300, "HostPortEnd": 5310}]
    assert plugin.call("NetworkDriver.RevokeExternalConnectivity", **ids) == OK
    assert plugin.call("NetworkDriver.Leave", **ids) == OK
    assert plugin.seen()[-1] == ["leave", "e1", "/run/netns/x"]
    assert plugin.call("NetworkDriver.DeleteEndpoint", **ids) == OK
    assert plugin.call("NetworkDriver.DeleteNetwork", NetworkID="n1") == OK
    assert plugin.call("NetworkDriver.DiscoverNew", DiscoveryType=1, DiscoveryData={"Address": "x"}) == OK
    assert plugin.call("NetworkDriver.DiscoverDelete", DiscoveryType=1, DiscoveryData={"Address": "x"}) == OK
    assert plugin.call("NetworkDriver.AllocateNetwork", NetworkID="n2", Options={}) == {"Options": {}} | OK
    assert plugin.call("NetworkDriver.FreeNetwork", NetworkID="n2") == OK
    status, reply = plugin.refusal("NetworkDriver.Join", **ids, SandboxKey="/x")
    assert (status, reply["Err"]) == (500, "network n1 is not known to this plugin")


def test_networks_survive_the_plugin(serve: Serve) -> None:
    plugin = serve("network")
    plugin.call("NetworkDriver.CreateNetwork", NetworkID="n1", Options={}, IPv4Data=[])
    status, reply = plugin.refusal(
        "NetworkDriver.CreateNetwork", NetworkID="n2", Options={"com.docker.network.generic": {"fail": "1"}}
    )
    assert (status, reply["Err"]) == (500, "no network today")
    status, reply = plugin.refusal(
        "NetworkDriver.CreateNetwork", NetworkID="n3", Options={"com.docker.network.generic": {"bad": "1"}}
    )
    assert (status, reply["Err"]) == (500, "bad option")
    plugin.call("NetworkDriver.CreateEndpoint", NetworkID="n1", EndpointID="e1", Interface={})
    plugin.process.kill()
    plugin.process.wait(PATIENCE)
    again = serve("network")
    assert again.seen()[-1] == ["restore", ["n1"], ["e1"]]
    assert again.call("NetworkDriver.Join", NetworkID="n1", EndpointID="e1", SandboxKey="/x")["Gateway"] == "10.1.0.1"


def test_a_removal_that_was_cut_off_is_finished(serve: Serve, short_path: Path) -> None:
    record = {"Id": "n9", "Name": "", "Created": "", "Driver": "", "State": "removing"}
    (short_path / "kept").mkdir()
    (short_path / "kept/network.json").write_text(json.dumps({"Networks": [record], "Endpoints": []}))
    assert serve("network").seen() == [["delete_network", "n9"], ["restore", [], []]]


def test_ipam_driver(serve: Serve) -> None:
    plugin = serve("ipam")
    ok = {"Error": ""}
    assert plugin.call("Plugin.Activate") == {"Implements": ["IpamDriver"]}
    told = plugin.call("IpamDriver.GetCapabilities")
    assert told == {"RequiresMACAddress": False, "RequiresRequestReplay": False} | ok
    assert (
        plugin.call("IpamDriver.GetDefaultAddressSpaces")
        == {
            "LocalDefaultAddressSpace": "local",
            "GlobalDefaultAddressSpace": "global",
        }
        | ok
    )
    pool = plugin.call(
        "IpamDriver.RequestPool", AddressSpace="local", Pool="", SubPool="10.1.4.0/24", Options=None, V6=False
    )
    assert pool == {"PoolID": "pool-1", "Pool": "10.1.0.0/16", "Data": {"a": "b"}} | ok
    gateway = {"RequestAddressType": "com.docker.network.gateway"}
    address = plugin.call("IpamDriver.RequestAddress", PoolID="pool-1", Address="10.1.0.1", Options=gateway)
    assert address == {"Address": "10.1.0.1/16", "Data": {}} | ok
    assert plugin.call("IpamDriver.RequestAddress", PoolID="pool-1")["Address"] == "10.1.0.7/16"
    assert plugin.call("IpamDriver.ReleaseAddress", PoolID="pool-1", Address="10.1.0.7") == ok
    assert plugin.refusal("IpamDriver.RequestPool", Pool="taken") == (
        500,
        {"Error": "Pool overlaps with other one on this address space"},
    )
    assert plugin.seen()[1:4] == [
        ["request_pool", "", "10.1.4.0/24", {}, False],
        ["request_address", "pool-1", "10.1.0.1", gateway],
        ["request_address", "pool-1", "", {}],
    ]
    assert plugin.stop() == 0
    again = serve("ipam")
    assert again.seen()[-1] == ["restore_ipam", {"pool-1": ["10.1.0.0/16", "10.1.4.0/24"]}, {"pool-1": ["10.1.0.1"]}]
    assert again.call("IpamDriver.ReleasePool", PoolID="pool-1") == ok


class Engine:
    """The engine's end of a container's log."""

    def __init__(self, plugin: Served, **info: Any) -> None:
        self.plugin = plugin
        self.path = plugin.folder / f"fifo-{time.monotonic_ns()}"
        os.mkfifo(self.path)
        # As Docker opens it: before StartLogging, for both directions.
        self.fifo = os.open(self.path, os.O_RDWR)
        self.info = {"ContainerID": "c" * 64, "ContainerName": "/box", "Config": {}, **info}
        self.encoder = Encoder()

    def start(self) -> Any:
        return self.plugin.call("LogDriver.StartLogging", File=str(self.path), Info=self.info)

    def write(self, *entries: LogEntry) -> None:
        os.write(self.fifo, b"".join(self.encoder.encode(entries)))

    def stop(self) -> Any:
        return self.plugin.call("LogDriver.StopLogging", File=str(self.path))

    def read(self, **config: Any) -> list[LogEntry]:
        body = json.dumps({"Info": self.info, "Config": config}).encode()
        status, data = self.plugin.raw("/LogDriver.ReadLogs", body)
        assert status == 200, data
        return Decoder().feed(data)

    def kept(self) -> list[Any]:
        path = self.plugin.folder / "kept/logs" / ("c" * 64) / "log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def line(number: int, text: str = "", stream: int = 1, partial: bool = False) -> LogEntry:
    return LogEntry(number, stream, (text or f"line {number}").encode(), partial)


def test_log_driver(serve: Serve) -> None:
    plugin = serve("log")
    assert plugin.call("Plugin.Activate") == {"Implements": ["LogDriver"]}
    assert plugin.call("LogDriver.Capabilities") == {"Cap": {"ReadLogs": True}} | OK
    engine = Engine(plugin, Config={"a": "b"}, ContainerLabels={"l": "1"}, ContainerEnv=["E=2"])
    assert engine.start() == OK
    assert plugin.seen() == [["open", "c" * 64, "box", {"l": "1"}, {"E": "2"}, {"a": "b"}]]
    entries = [
        line(1),
        line(2, stream=2),
        line(3, "begin", partial=True),
        line(4, "end"),
        LogEntry(5, 1, b"", False, {"k": "v"}),
    ]
    engine.write(*entries)
    assert engine.stop() == OK
    # StopLogging has drained the FIFO when it answers.
    assert engine.kept() == [[e.time_ns, e.stream, e.line.decode(), e.partial, dict(e.attributes)] for e in entries]
    assert plugin.seen()[-1] == ["close"]
    assert engine.read(Since="0001-01-01T00:00:00Z", Until="", Tail=-1, Follow=False) == entries
    assert engine.read(Since="1970-01-01T00:00:00.000000004Z") == entries[3:]
    assert engine.stop() == OK, "stopping twice is fine"
    assert engine.start() == OK, "and so is starting anew"
    assert engine.stop() == OK


def test_log_driver_refuses(serve: Serve) -> None:
    plugin = serve("log")
    engine = Engine(plugin)
    for info, message in (
        ({"Config": {"colour": "red"}}, "unknown log opt 'colour'"),
        ({"Config": {"refuse": "1"}}, "no log today"),
        ({"ContainerID": "../../etc"}, "'../../etc' is no container's ID"),
    ):
        status, reply = plugin.refusal("LogDriver.StartLogging", File=str(engine.path), Info=engine.info | info)
        assert (status, reply["Err"]) == (500, message)
    plain = plugin.folder / "plain"
    plain.touch()
    assert "is no FIFO" in plugin.refusal("LogDriver.StartLogging", File=str(plain), Info=engine.info)[1]["Err"]
    engine.start()
    assert "already" in plugin.refusal("LogDriver.StartLogging", File=str(engine.path), Info=engine.info)[1]["Err"]
    status, reply = plugin.refusal("LogDriver.ReadLogs", Info=engine.info | {"ContainerID": "d" * 64})
    assert status == 500, "what fails before the stream begins is an ordinary error"
    assert "FileNotFoundError" in reply["Err"]


def test_a_sink_that_fails_is_tried_again(serve: Serve) -> None:
    plugin = serve("log")
    engine = Engine(plugin)
    engine.start()
    (plugin.folder / "jam").touch()
    engine.write(line(1))
    engine.write(line(2))
    time.sleep(0.3)
    assert engine.kept() == []
    (plugin.folder / "jam").unlink()
    engine.stop()
    assert [row[0] for row in engine.kept()] == [1, 2]


def test_rubbish_in_the_fifo_is_told(serve: Serve) -> None:
    plugin = serve("log")
    engine = Engine(plugin)
    engine.start()
    os.write(engine.fifo, b"\xff" * 64)
    status, reply = plugin.refusal("LogDriver.StopLogging", File=str(engine.path))
    assert status == 500
    assert "not complete" in reply["Err"]


def test_follow(serve: Serve) -> None:
    plugin = serve("log")
    engine = Engine(plugin)
    engine.start()
    engine.write(line(1), line(2))
    connection = UnixConnection(plugin.socket)
    connection.request("POST", "/LogDriver.ReadLogs", json.dumps({"Info": engine.info, "Config": {"Follow": True}}))
    answer = connection.getresponse()
    decoder, got = Decoder(), []
    for number in range(3, 9):
        engine.write(line(number))
        until = time.monotonic() + PATIENCE
        while line(number) not in got and time.monotonic() < until:
            got += decoder.feed(answer.read1())
    engine.stop()
    got += decoder.feed(answer.read())
    assert got == [line(number) for number in range(1, 9)], "each once, in order, and it ends with the log"
    connection.close()


def test_sigterm_writes_what_has_come(serve: Serve) -> None:
    plugin = serve("log")
    engine = Engine(plugin)
    engine.start()
    engine.write(*(line(number) for number in range(200)))
    assert plugin.stop() == 0
    assert len(engine.kept()) == 200
    assert not plugin.socket.exists()


def test_authz_plugin(serve: Serve) -> None:
    plugin = serve("authz")
    assert plugin.call("Plugin.Activate") == {"Implements": ["authz"]}
    asked = {
        "User": "ann",
        "UserAuthNMethod": "TLS",
        "RequestMethod": "POST",
        "RequestUri": "/v1.43/containers/cre%61te?name=x y",
        "RequestPeerCertificates": [base64.b64encode(b"PEM").decode()],
        "RequestBody": base64.b64encode(b'{"Image":"i"}').decode(),
        "RequestHeaders": {"Content-Type": "application/json"},
    }
    allowed = {"Allow": True, "Msg": "", "Err": ""}
    assert plugin.call("AuthZPlugin.AuthZReq", **asked) == allowed
    uri = asked["RequestUri"]
    assert plugin.seen()[-1] == [
        "request",
        ["POST", "/containers/create", "name=x y", [1, 43], uri],
        ["ann", "TLS", ["PEM"]],
        {"content-type": "application/json"},
        '{"Image":"i"}',
    ]
    denied = plugin.call("AuthZPlugin.AuthZReq", **asked | {"RequestMethod": "DELETE"})
    assert denied == {"Allow": False, "Msg": "ann may not delete", "Err": ""}
    response = {
        "ResponseStatusCode": 200,
        "ResponseBody": base64.b64encode(b"ok").decode(),
        "ResponseHeaders": {"A": "b"},
    }
    assert plugin.call("AuthZPlugin.AuthZRes", **asked, **response) == allowed
    assert plugin.seen()[-1] == [
        "response",
        "/containers/create",
        {"status": 200, "headers": {"a": "b"}, "body": "ok"},
    ]
    tea = plugin.call("AuthZPlugin.AuthZRes", **asked, ResponseStatusCode=418)
    assert (tea["Allow"], tea["Msg"]) == (False, "no tea")
    status, reply = plugin.refusal("AuthZPlugin.AuthZReq", RequestMethod="GET", RequestUri="/fail")
    assert status == 500
    assert "no idea" in reply["Err"]
    assert plugin.refusal("AuthZPlugin.AuthZReq", RequestBody="%%%")[0] == 500


class Metrics(http.server.BaseHTTPRequestHandler):
    """What the engine lays into a metrics plugin."""

    def do_GET(self) -> None:
        body = b"engine_up 1\n" if self.path == "/metrics" else b"?"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: Any) -> None:
        return


def test_metrics_collector(serve: Serve, short_path: Path) -> None:
    with socketserver.ThreadingUnixStreamServer(str(short_path / "metrics.sock"), Metrics) as engine:
        threading.Thread(target=engine.serve_forever, daemon=True).start()
        plugin = serve("metrics")
        assert plugin.call("Plugin.Activate") == {"Implements": ["MetricsCollector"]}
        assert plugin.call("MetricsCollector.StartMetrics") == OK
        assert plugin.seen() == [["start", "engine_up 1\n"]]
        assert plugin.call("MetricsCollector.StopMetrics") == OK
        engine.shutdown()
    status, reply = plugin.refusal("MetricsCollector.StartMetrics")
    assert status == 500
    assert "metrics cannot be read" in reply["Err"]


def test_several_drivers_on_one_socket(serve: Serve) -> None:
    plugin = serve("volume", "network", "ipam")
    assert plugin.call("Plugin.Activate") == {"Implements": ["VolumeDriver", "NetworkDriver", "IpamDriver"]}
    assert plugin.call("VolumeDriver.List") == {"Volumes": []} | OK
    assert plugin.call("IpamDriver.GetDefaultAddressSpaces")["Error"] == ""


def test_a_running_call_ends_before_the_process(serve: Serve) -> None:
    plugin = serve("volume")
    replies: list[Any] = []
    caller = threading.Thread(target=lambda: replies.append(plugin.call("VolumeDriver.Create", Name="slow")))
    caller.start()
    until = time.monotonic() + PATIENCE
    while not plugin.seen() and time.monotonic() < until:
        time.sleep(0.01)
    assert plugin.stop() == 0
    caller.join(PATIENCE)
    assert replies == [OK]


def test_a_socket_left_behind_is_taken_over_and_a_live_one_is_not(serve: Serve) -> None:
    first = serve("volume")
    first.process.kill()
    first.process.wait(PATIENCE)
    assert first.socket.exists()
    second = serve("volume")
    third = subprocess.run(
        [sys.executable, PROGRAM, second.folder, "volume"],
        env={**os.environ, "ENGINE_PLUGIN_SOCKET": str(second.socket), "ENGINE_PLUGIN_FOLDER": str(second.folder)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert third.returncode == 1
    assert f"another process already serves on {second.socket}" in third.stderr
    assert second.call("VolumeDriver.List") == {"Volumes": []} | OK


def test_a_volume_plugin_imports_little() -> None:
    """So it is ready soon after its start."""
    code = (
        "import sys\n"
        "from plugin_sdk import serve\n"
        "from plugin_sdk.volumes import VolumeDriver\n"
        "import plugin_sdk.serving.server, plugin_sdk.serving.volume\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE)
    heavy = {"fastapi", "starlette", "pyroute2", "grpc", "stevedore", "aiohttp", "docker", "uvloop", "websockets"}
    assert not heavy & set(done.stdout.split())


def test_contracts_are_found() -> None:
    class Half:
        async def create(self, name: str) -> None: ...

        async def unmount(self, name: str, request: str) -> None: ...

    class Plain(VolumeDriver):
        def mount(self, name: str, request: str) -> str:  # type: ignore[override]
            return ""

    class Whole(VolumeDriver):
        pass

    assert interface_types(Whole) == ["docker.volumedriver/1.0"]
    with pytest.raises(InvalidParameter, match="Half lacks of VolumeDriver: remove, mount, path, get, list, scope"):
        interface_types(Half)
    with pytest.raises(InvalidParameter, match=r"Plain.mount must be `async def`"):
        interface_types(Plain)
    with pytest.raises(InvalidParameter, match="implements no contract"):
        interface_types(dict)
    with pytest.raises(InvalidParameter, match="wants an object"):
        interfaces((Whole,), Path())
    with pytest.raises(InvalidParameter, match="two drivers"):
        interfaces((Whole(), Whole()), Path())
    with pytest.raises(InvalidParameter, match="nothing to serve"):
        interfaces((), Path())

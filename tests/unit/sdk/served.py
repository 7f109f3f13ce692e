"""The program that the tests serve: `served.py FOLDER KIND...`. Its drivers write down what they are asked."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from plugin_sdk import Conflict, NotFound, Wire, serve
from plugin_sdk.api import Denial, RequestView, ResponseView
from plugin_sdk.logs import LogEntry, LogInfo, LogQuery
from plugin_sdk.network import EndpointRecord, JoinInfo, NetworkCapabilities, NetworkRecord, Pool, StaticRoute
from plugin_sdk.serving import AuthorizationPlugin, MetricsCollector, MetricsSource, metrics
from plugin_sdk.volumes import DriverVolume


def plain(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, Wire):
        return value.model_dump(exclude_defaults=True)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value.decode() if isinstance(value, bytes) else str(value)


class Witness:
    """Writes calls down."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def saw(self, method: str, *arguments: Any) -> None:
        with (self.folder / "seen").open("a") as file:
            file.write(json.dumps([method, *arguments], default=plain) + "\n")


class Volumes(Witness):
    """A VolumeDriver in memory; the names "broken", "rubbish" and "slow" do what they say."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.known: dict[str, DriverVolume] = {}

    async def create(self, name: str, options: Mapping[str, str]) -> None:
        self.saw("create", name, dict(options))
        if name == "broken":
            raise RuntimeError("out of paper")
        if name == "slow":
            await asyncio.sleep(1)
        if name in self.known:
            raise Conflict(f"volume {name} is there")
        self.known[name] = DriverVolume(name, f"/data/{name}", "2026-01-02T03:04:05Z", {"Size": 7})

    async def remove(self, name: str) -> None:
        self.saw("remove", name)
        self.known.pop(name, None)

    async def mount(self, name: str, request: str) -> Any:
        self.saw("mount", name, request)
        return 42 if name == "rubbish" else self.known[name].mountpoint

    async def unmount(self, name: str, request: str) -> None:
        self.saw("unmount", name, request)

    async def path(self, name: str) -> str:
        return self.known[name].mountpoint

    async def get(self, name: str) -> DriverVolume:
        if name not in self.known:
            raise NotFound(f"get {name}: no such volume")
        return self.known[name]

    async def list(self) -> Sequence[DriverVolume]:
        return list(self.known.values())

    def scope(self) -> str:
        return "global"


class Networks(Witness):
    """A NetworkDriver that only says what it would do."""

    def capabilities(self) -> NetworkCapabilities:
        return NetworkCapabilities("local", "global")

    def validate(self, network: NetworkRecord) -> None:
        if "bad" in network.Options:
            raise Conflict("bad option")

    async def create_network(self, network: NetworkRecord) -> None:
        self.saw("create_network", network)
        if "fail" in network.Options:
            raise Conflict("no network today")

    async def delete_network(self, network: NetworkRecord) -> None:
        self.saw("delete_network", network.Id)

    async def create_endpoint(self, network: NetworkRecord, endpoint: EndpointRecord) -> EndpointRecord:
        self.saw("create_endpoint", network.Id, endpoint)
        return endpoint.model_copy(update={"MacAddress": endpoint.MacAddress or "02:42:00:00:00:09"})

    async def delete_endpoint(self, network: NetworkRecord, endpoint: EndpointRecord) -> None:
        self.saw("delete_endpoint", network.Id, endpoint.Id)

    async def join(self, network: NetworkRecord, endpoint: EndpointRecord, sandbox: Path, interface: str) -> JoinInfo:
        self.saw("join", endpoint, sandbox, interface)
        routes = (StaticRoute("10.9.0.0/16", "10.1.0.2"), StaticRoute("10.8.0.0/16"))
        return JoinInfo("veth7", "net", gateway="10.1.0.1", routes=routes, disable_gateway_service=True)

    async def leave(self, network: NetworkRecord, endpoint: EndpointRecord) -> None:
        self.saw("leave", endpoint.Id, endpoint.Sandbox)

    async def program_external(self, network: NetworkRecord, endpoint: EndpointRecord) -> EndpointRecord:
        self.saw("program_external", endpoint)
        return endpoint

    async def revoke_external(self, network: NetworkRecord, endpoint: EndpointRecord) -> None:
        self.saw("revoke_external", endpoint.Id)

    async def restore(self, networks: Sequence[NetworkRecord], endpoints: Sequence[EndpointRecord]) -> None:
        self.saw("restore", [network.Id for network in networks], [endpoint.Id for endpoint in endpoints])


class Addresses(Witness):
    """An IpamDriver with one pool."""

    async def request_pool(self, subnet: str, ip_range: str, options: Mapping[str, str], *, v6: bool = False) -> Pool:
        self.saw("request_pool", subnet, ip_range, dict(options), v6)
        if subnet == "taken":
            raise Conflict("Pool overlaps with other one on this address space")
        return Pool("pool-1", subnet or "10.1.0.0/16", {"a": "b"})

    async def release_pool(self, pool_id: str) -> None:
        self.saw("release_pool", pool_id)

    async def request_address(self, pool_id: str, address: str, options: Mapping[str, str]) -> str:
        self.saw("request_address", pool_id, address, dict(options))
        return f"{address or '10.1.0.7'}/16"

    async def release_address(self, pool_id: str, address: str) -> None:
        self.saw("release_address", pool_id, address)

    async def restore(self, pools: Mapping[str, tuple[str, str]], addresses: Mapping[str, Sequence[str]]) -> None:
        self.saw("restore_ipam", {key: list(value) for key, value in pools.items()}, dict(addresses))


class FileSink(Witness):
    """Appends; refuses while a file `jam` exists."""

    def __init__(self, folder: Path, file: Path) -> None:
        super().__init__(folder)
        self.file = file

    async def write(self, entries: Sequence[LogEntry]) -> None:
        if (self.folder / "jam").exists():
            raise OSError("jammed")
        with self.file.open("a") as file:
            for entry in entries:
                row = [entry.time_ns, entry.stream, entry.line.decode(), entry.partial, dict(entry.attributes)]
                file.write(json.dumps(row) + "\n")

    async def close(self) -> None:
        self.saw("close")


class Logs(Witness):
    """A LogDriver that writes JSON lines."""

    readable = True

    def validate(self, options: Mapping[str, str]) -> None:
        if "colour" in options:
            raise Conflict("unknown log opt 'colour'")

    def log_path(self, info: LogInfo) -> str:
        return ""

    async def open(self, info: LogInfo) -> FileSink:
        container = info.container
        self.saw("open", container.Id, container.Name, container.Config.Labels, container.env, dict(info.options))
        if info.options.get("refuse"):
            raise Conflict("no log today")
        return FileSink(self.folder, info.folder / "log")

    async def read(self, info: LogInfo, query: LogQuery) -> AsyncIterator[Sequence[LogEntry]]:
        self.saw("read", query)
        rows = [json.loads(line) for line in (info.folder / "log").read_text().splitlines()]
        entries = [LogEntry(row[0], row[1], row[2].encode(), row[3], row[4]) for row in rows]
        yield [entry for entry in entries if entry.time_ns >= query.since_ns]

    async def remove(self, info: LogInfo) -> None:
        raise AssertionError("the protocol has no such call")


class Policy(AuthorizationPlugin, Witness):
    """Refuses deletes, and answers with status 418."""

    async def request(self, request: RequestView) -> Denial | None:
        facts = (request.method, request.path, request.query, request.api_version, request.target)
        who = (request.peer, request.auth_method, request.certificates)
        self.saw("request", facts, who, request.headers, (await request.body()).decode())
        if request.path == "/fail":
            raise RuntimeError("no idea")
        return Denial(f"{request.peer} may not delete") if request.method == "DELETE" else None

    async def response(self, request: RequestView, response: ResponseView) -> Denial | None:
        self.saw("response", request.path, response)
        return Denial("no tea") if response.status == 418 else None


class Metrics(MetricsCollector, Witness):
    """Reads once at its start."""

    async def start(self, source: MetricsSource) -> None:
        self.saw("start", await source.read())

    async def stop(self) -> None:
        self.saw("stop")


KINDS: dict[str, Any] = {
    "volume": Volumes,
    "network": Networks,
    "ipam": Addresses,
    "log": Logs,
    "authz": Policy,
    "metrics": Metrics,
}

if __name__ == "__main__":
    here = Path(sys.argv[1])
    metrics.SOCKET = here / "metrics.sock"
    serve(*(KINDS[kind](here) for kind in sys.argv[2:]))

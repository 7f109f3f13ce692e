"""Small sound drivers. The tests break them, one claim at a time, and see whether a kit notices."""

from __future__ import annotations

import ipaddress
import json
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from plugin_sdk import Conflict, Forbidden, InvalidParameter, NotFound, Unavailable
from plugin_sdk.logs import LogEntry, LogInfo, LogQuery
from plugin_sdk.network import Pool
from plugin_sdk.volumes import DriverVolume


class Volumes:
    """A volume is a folder; mounting moves it to where it is seen, the last unmount moves it back."""

    def __init__(self, folder: Path) -> None:
        self.kept, self.seen = folder / "kept", folder / "seen"
        for each in (self.kept, self.seen):
            each.mkdir(exist_ok=True)
        self.requests: dict[str, set[str]] = {}

    def there(self, name: str) -> bool:
        return (self.kept / name).is_dir() or (self.seen / name).is_dir()

    async def create(self, name: str, options: Mapping[str, str]) -> None:
        if options:
            raise InvalidParameter(f"unknown option {next(iter(options))}")
        if not self.there(name):
            (self.kept / name).mkdir()

    async def remove(self, name: str) -> None:
        self.requests.pop(name, None)
        for parent in (self.kept, self.seen):
            shutil.rmtree(parent / name, ignore_errors=True)

    async def mount(self, name: str, request: str) -> str:
        if (self.kept / name).exists():
            (self.kept / name).rename(self.seen / name)
        self.requests.setdefault(name, set()).add(request)
        return str(self.seen / name)

    async def unmount(self, name: str, request: str) -> None:
        held = self.requests.get(name, set())
        held.discard(request)
        if not held and (self.seen / name).exists():
            (self.seen / name).rename(self.kept / name)

    async def path(self, name: str) -> str:
        return str(self.seen / name) if (self.seen / name).exists() else ""

    async def get(self, name: str) -> DriverVolume:
        if not self.there(name):
            raise NotFound(f"no volume {name}")
        return DriverVolume(name, await self.path(name))

    async def list(self) -> Sequence[DriverVolume]:
        return [DriverVolume(path.name) for parent in (self.kept, self.seen) for path in parent.iterdir()]

    def scope(self) -> str:
        return "local"


class Sink:
    """Appends JSON lines."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def write(self, entries: Sequence[LogEntry]) -> None:
        with self.path.open("a") as file:
            for each in entries:
                file.write(json.dumps([each.time_ns, each.stream, each.line.decode(), each.partial]) + "\n")

    async def close(self) -> None:
        return


class Logs:
    """A file per container."""

    readable = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, info: LogInfo) -> Path:
        return self.folder / info.container.Id

    def validate(self, options: Mapping[str, str]) -> None:
        for name in options:
            raise InvalidParameter(f"unknown log opt '{name}' for sound log driver")

    def log_path(self, info: LogInfo) -> str:
        return str(self.file(info))

    async def open(self, info: LogInfo) -> Sink:
        return Sink(self.file(info))

    def entries(self, info: LogInfo) -> list[LogEntry]:
        if not self.file(info).exists():
            return []
        rows = [json.loads(line) for line in self.file(info).read_text().splitlines()]
        return [LogEntry(at, stream, text.encode(), partial) for at, stream, text, partial in rows]

    async def read(self, info: LogInfo, query: LogQuery) -> AsyncIterator[Sequence[LogEntry]]:
        found = [each for each in self.entries(info) if (query.stdout, query.stderr)[each.stream - 1]]
        found = [each for each in found if each.time_ns >= query.since_ns]
        found = [each for each in found if not query.until_ns or each.time_ns <= query.until_ns]
        yield found if query.tail < 0 else found[len(found) - min(query.tail, len(found)) :]

    async def remove(self, info: LogInfo) -> None:
        self.file(info).unlink(missing_ok=True)


class Ipam:
    """Pools and addresses in memory."""

    def __init__(self) -> None:
        self.pools: dict[str, tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, str]] = {}
        self.used: dict[str, set[str]] = {}

    async def request_pool(self, subnet: str, ip_range: str, options: Mapping[str, str], *, v6: bool = False) -> Pool:
        net = ipaddress.ip_network(subnet) if subnet else self.choose(v6)
        self.refuse_overlap(net)
        key = f"pool-{net}"
        self.pools[key] = (net, ip_range)
        self.used[key] = set()
        return Pool(key, str(net))

    def choose(self, v6: bool) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        number = len(self.pools)
        return ipaddress.ip_network(f"fd00:{number + 1:x}::/64" if v6 else f"10.77.{number}.0/24")

    def refuse_overlap(self, net: ipaddress.IPv4Network | ipaddress.IPv6Network) -> None:
        for other, _ in self.pools.values():
            if other.version == net.version and other.overlaps(net):
                raise Forbidden(f"Pool overlaps with other one on this address space: {other}")

    async def release_pool(self, pool_id: str) -> None:
        self.pools.pop(pool_id, None)
        self.used.pop(pool_id, None)

    async def request_address(self, pool_id: str, address: str, options: Mapping[str, str]) -> str:
        net, ip_range = self.pools[pool_id]
        if not address:
            hosts = ipaddress.ip_network(ip_range or str(net)).hosts()
            address = next((str(ip) for ip in hosts if str(ip) not in self.used[pool_id]), "")
            if not address:
                raise Unavailable(f"no available addresses in {net}")
        if address in self.used[pool_id]:
            raise Conflict(f"Address already in use: {address}")
        self.used[pool_id].add(address)
        return f"{address}/{net.prefixlen}"

    async def release_address(self, pool_id: str, address: str) -> None:
        self.used.get(pool_id, set()).discard(address)

    async def restore(self, pools: Mapping[str, tuple[str, str]], addresses: Mapping[str, Sequence[str]]) -> None:
        self.pools = {key: (ipaddress.ip_network(net), part) for key, (net, part) in pools.items()}
        self.used = {key: set(addresses.get(key, ())) for key in pools}

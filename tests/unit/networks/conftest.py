"""A network plugin at the other end of a socket, and what the networks plugin sees of the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from kernel import guard
from kernel.context import Context, Services
from kernel.dispatch import Dispatcher
from kernel.drivers import DriverRegistry
from kernel.events import Bus
from kernel.hookspecs import MODULES
from kernel.manager import HookManager
from kernel.state import Store
from kernel.state.store import PluginStore
from plugin_sdk import DriverSpec, NotFound, NotSupported, hookimpl
from plugin_sdk.containers import (
    ContainerConfig,
    ContainerRecord,
    Containers,
    ContainerState,
    ContainerStatus,
    HostConfig,
    Preparation,
)
from plugin_sdk.network import (
    EndpointRecord,
    IpamConfig,
    IpamDriver,
    JoinInfo,
    NetworkCapabilities,
    NetworkDriver,
    NetworkRecord,
)
from plugins.networks import ipam, service
from plugins.networks.base import Base
from plugins.networks.hosts import DnsChoice
from plugins.networks.ipam import DefaultIpam, NullIpam, parse_pools
from plugins.networks.objects import NetworkCreate
from plugins.networks.plugin import NetworksPlugin
from plugins.networks.records import Attachments, StoredNetwork
from plugins.networks.remote_driver import NetworkAdapter
from plugins.networks.remote_ipam import IpamAdapter
from plugins.networks.service import NetworksService

PLUGIN = "me/net:latest"


class FakePeer:
    """Fulfils `PluginPeer`: answers by method, each a reply or an exception, or a function of the arguments that gives one."""

    interfaces = ("docker.networkdriver/1", "docker.ipamdriver/1")

    def __init__(self, name: str = PLUGIN, **answers: Any) -> None:
        self.name = name
        self.answers: dict[str, Any] = answers
        self.calls: list[tuple[str, Any]] = []

    async def call(self, method: str, arguments: Mapping[str, Any] | None, reply: type[Any], *, deadline: float) -> Any:
        self.calls.append((method.partition(".")[2], arguments))
        assert deadline <= 30
        if method.partition(".")[2] not in self.answers:
            raise NotSupported(f"plugin {self.name!r}: {method}: not implemented by the plugin")
        answer = self.answers[method.partition(".")[2]]
        if callable(answer):
            answer = answer(arguments)
        if asyncio.iscoroutine(answer):
            answer = await answer
        if isinstance(answer, Exception):
            raise answer
        return reply.model_validate(answer)

    def of(self, method: str) -> list[Any]:
        """Arguments of the calls of one method."""
        return [arguments for name, arguments in self.calls if name == method]


class LocalDriver:
    """A network driver in the daemon that needs no interfaces; remembers what was asked of it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.restored: list[str] = []

    def capabilities(self) -> NetworkCapabilities:
        return NetworkCapabilities()

    def validate(self, network: NetworkRecord) -> None:
        return

    async def create_network(self, network: NetworkRecord) -> None:
        return

    async def delete_network(self, network: NetworkRecord) -> None:
        return

    async def create_endpoint(self, network: NetworkRecord, endpoint: EndpointRecord) -> EndpointRecord:
        return endpoint

    async def delete_endpoint(self, network: NetworkRecord, endpoint: EndpointRecord) -> None:
        self.calls.append(("delete_endpoint", endpoint.ContainerID))

    async def join(self, network: NetworkRecord, endpoint: EndpointRecord, sandbox: Path, interface: str) -> JoinInfo:
        self.calls.append(("join", endpoint.ContainerID))
        return JoinInfo(dst_name=interface, routes_set=True)

    async def leave(self, network: NetworkRecord, endpoint: EndpointRecord) -> None:
        return

    async def program_external(self, network: NetworkRecord, endpoint: EndpointRecord) -> EndpointRecord:
        return endpoint

    async def revoke_external(self, network: NetworkRecord, endpoint: EndpointRecord) -> None:
        return

    async def restore(self, networks: Any, endpoints: Any) -> None:
        self.restored = [endpoint.ContainerID for endpoint in endpoints]


class FakePool:
    """Sandboxes that are plain files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    async def take(self) -> Path:
        path = self.folder / f"ns{len(list(self.folder.iterdir()))}"
        path.touch()
        return path

    def destroy_soon(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    async def drop_strangers(self, owned: Iterable[Path]) -> int:
        strangers = [path for path in self.folder.iterdir() if path not in owned]
        for path in strangers:
            path.unlink()
        return len(strangers)


class FakeContainers:
    """The containers there are."""

    def __init__(self) -> None:
        self.records: dict[str, ContainerRecord] = {}

    def get(self, ref: str) -> ContainerRecord:
        if ref not in self.records:
            raise NotFound(f"No such container: {ref}")
        return self.records[ref]

    def list(self) -> list[ContainerRecord]:
        return [*self.records.values()]


class Bridge:
    """Contributes the network "bridge"."""

    @hookimpl
    def engine_predefined_networks(self) -> Iterable[NetworkRecord]:
        return [
            NetworkRecord(Id="", Name="bridge", Created="", Driver="bridge"),
            NetworkRecord(Id="", Name="host", Created="", Driver="host", IPAM=IpamConfig(Driver="null")),
        ]


class World:
    """The networks plugin's parts over a real store and a real driver registry; can be killed and started again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.containers = FakeContainers()
        self.start()

    def start(self) -> None:
        manager = HookManager()
        for module in MODULES:
            manager.add_specifications(module)
        manager.register(Bridge(), "net_bridge")
        threads = guard.Threads()
        hooks = Dispatcher(manager, threads, lambda *_: None)
        self.drivers = DriverRegistry(hooks, threads, lambda *_: None)
        self.store = Store(self.root / "state.db")
        services = Services()
        services.provide("containers", Containers, self.containers)  # type: ignore[arg-type]
        self.ctx = Context(
            NetworksPlugin.meta,
            None,
            data_root=self.root / "data",
            exec_root=self.root / "run",
            state=PluginStore(self.store, "networks"),
            events=Bus(),
            drivers=self.drivers,
            hooks=hooks,
            services=services,
        )
        self.pool = FakePool(self.root / "netns")
        self.base = Base(self.ctx, Attachments(self.ctx.state), self.pool)  # type: ignore[arg-type]
        self.networks = NetworksService(self.base, DnsChoice(), ())
        restorer = self.networks.restorer
        self.adapters = [
            (
                NetworkDriver,
                NetworkAdapter(self.ctx, lambda name: restorer.arrived(NetworkDriver, name), restorer.left),
            ),
            (IpamDriver, IpamAdapter(self.ctx, lambda name: restorer.arrived(IpamDriver, name), restorer.left)),
        ]
        self.bridge, self.host = LocalDriver(), LocalDriver()
        pool6 = ipam.ipaddress.IPv6Network("fd00::/48")
        self.ipam = DefaultIpam(parse_pools(()), pool6, lambda _: "")
        self.drivers.add("net_bridge", [DriverSpec(NetworkDriver, "bridge", self.bridge)])
        self.drivers.add("net_bridge", [DriverSpec(NetworkDriver, "host", self.host)])
        self.drivers.add(
            "networks", [DriverSpec(IpamDriver, "default", self.ipam), DriverSpec(IpamDriver, "null", NullIpam())]
        )

    async def connect(self, peer: FakePeer, *kinds: type[Any]) -> None:
        """The plugin is there, as a network driver, an IPAM driver, or both."""
        for kind, adapter in self.adapters:
            if not kinds or kind in kinds:
                self.drivers.add(peer.name, await adapter.connect(peer))  # type: ignore[arg-type]

    async def disconnect(self, peer: FakePeer) -> None:
        """The plugin is gone."""
        self.drivers.remove(peer.name)
        for _, adapter in self.adapters:
            await adapter.disconnect(peer)  # type: ignore[arg-type]

    async def killed_and_started(self) -> None:
        """As after kill -9: what was in memory is gone."""
        await self.close()
        self.start()

    async def close(self) -> None:
        await self.ctx.close(1)
        self.store.close()

    async def network(self, driver: str = PLUGIN, **fields: Any) -> StoredNetwork:
        return await self.networks.objects.create(NetworkCreate(Name="net", Driver=driver, **fields))

    async def run(self, record: ContainerRecord) -> Preparation:
        """What a start does."""
        self.containers.records[record.Id] = record
        preparation = Preparation(self.root / "bundle" / record.Id, self.root / "rootfs")
        await self.networks.runs.prepare(record, preparation)
        return preparation

    def owed(self) -> list[str]:
        """IDs of what is still to be given back."""
        return [debt.Id for debt in self.base.debts._store.values()]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what happens in the background."""
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
                await asyncio.sleep(0.005)


def container(mode: str = "net", name: str = "web", *, running: bool = True) -> ContainerRecord:
    """A container in this network mode."""
    status = ContainerStatus.RUNNING if running else ContainerStatus.EXITED
    return ContainerRecord(
        Id=name.ljust(64, "0"),
        Name=name,
        Created="",
        ImageID="",
        ImageRef="",
        Driver="",
        Runtime="",
        Config=ContainerConfig(),
        HostConfig=HostConfig(NetworkMode=mode),
        State=ContainerState(Status=status),
    )


@pytest.fixture
def peer() -> FakePeer:
    """A plugin that does as it should, of both kinds."""
    given = iter(range(5, 250))

    def address(said: dict[str, Any]) -> dict[str, str]:
        gateway = "RequestAddressType" in said["Options"]
        return {"Address": f"{said['Address'] or ('10.1.0.1' if gateway else f'10.1.0.{next(given)}')}/24"}

    return FakePeer(
        GetCapabilities={"Scope": "local"},
        CreateNetwork={},
        DeleteNetwork={},
        CreateEndpoint={},
        DeleteEndpoint={},
        Join={"DisableGatewayService": True},
        Leave={},
        GetDefaultAddressSpaces={"LocalDefaultAddressSpace": "here", "GlobalDefaultAddressSpace": "all"},
        RequestPool=lambda said: {"PoolID": f"pool {said['AddressSpace']}", "Pool": said["Pool"] or "10.1.0.0/24"},
        ReleasePool={},
        RequestAddress=address,
        ReleaseAddress={},
    )


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(ipam, "host_routes", list)
    # Here sandboxes are plain files.
    monkeypatch.setattr(service, "alive", Path.exists)
    monkeypatch.setattr("plugins.networks.guests.alive", Path.exists)
    monkeypatch.setattr("plugins.networks.discovery.Discovery.serve", _no_server)
    made = World(tmp_path)
    yield made
    await made.close()


async def _no_server(*_: Any) -> bool:
    return False

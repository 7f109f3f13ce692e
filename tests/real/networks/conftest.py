"""A network plugin that works, in the test's own process, and what tests of networks share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness import Client, Engine, OldStylePlugin
from harness.oldstyle import Refusal

Make = Callable[..., "BridgePlugin"]


class BridgePlugin(OldStylePlugin):
    """A network plugin that works: a bridge for each network, a veth pair for each endpoint.

    Attributes:
        returned: interfaces that lay in the host's namespace again when their endpoint was deleted.
    """

    def __init__(self, engine: Engine, name: str, implements: tuple[str, ...] = ("NetworkDriver",)) -> None:
        self._engine = engine
        self.returned: list[str] = []
        answers = {
            "NetworkDriver.GetCapabilities": lambda _: {"Scope": "local", "ConnectivityScope": "local"},
            "NetworkDriver.CreateNetwork": self._create_network,
            "NetworkDriver.DeleteNetwork": lambda said: self._ip("link", "del", self.bridge(said)),
            "NetworkDriver.CreateEndpoint": lambda _: {"Interface": {}},
            "NetworkDriver.Join": self._join,
            "NetworkDriver.Leave": lambda _: {},
            "NetworkDriver.DeleteEndpoint": self._delete_endpoint,
        }
        super().__init__(engine.plugin_dir, name, list(implements), answers)

    @staticmethod
    def bridge(said: dict[str, Any]) -> str:
        return f"pb-{said['NetworkID'][:8]}"

    def _ip(self, *args: str) -> dict[str, Any]:
        done = self._engine.nsenter(["ip", *args], check=False)
        if done.returncode != 0:
            raise Refusal(done.stderr.strip())
        return {}

    def _create_network(self, said: dict[str, Any]) -> dict[str, Any]:
        self.gateway = said["IPv4Data"][0]["Gateway"]
        self._ip("link", "add", self.bridge(said), "type", "bridge")
        self._ip("addr", "add", self.gateway, "dev", self.bridge(said))
        return self._ip("link", "set", self.bridge(said), "up")

    def _join(self, said: dict[str, Any]) -> dict[str, Any]:
        here, there = f"ph-{said['EndpointID'][:8]}", f"pc-{said['EndpointID'][:8]}"
        self._ip("link", "add", here, "type", "veth", "peer", "name", there)
        self._ip("link", "set", here, "master", self.bridge(said), "up")
        return {
            "InterfaceName": {"SrcName": there, "DstPrefix": "mine"},
            "Gateway": self.gateway.partition("/")[0],
            "StaticRoutes": [{"Destination": "198.51.100.0/24", "RouteType": 1}],
        }

    def _delete_endpoint(self, said: dict[str, Any]) -> dict[str, Any]:
        there = f"pc-{said['EndpointID'][:8]}"
        if self._engine.nsenter(["ip", "link", "show", there], check=False).returncode == 0:
            self.returned.append(there)
        return self._ip("link", "del", f"ph-{said['EndpointID'][:8]}")


@pytest.fixture
def remote(own_engine: Callable[..., Engine]) -> Iterator[tuple[Engine, Make]]:
    """An engine, and a maker of network plugins for it."""
    engine = own_engine()
    made: list[OldStylePlugin] = []

    def make(name: str = "", kind: type[BridgePlugin] = BridgePlugin, **options: Any) -> BridgePlugin:
        plugin = kind(engine, name or engine.name("plug"), **options)
        made.append(plugin)
        return plugin

    yield engine, make
    for name in engine.docker("ps", "-aq").stdout.split():
        engine.docker("rm", "-f", name)
    for name in engine.docker("network", "ls", "-q", "--filter", "type=custom").stdout.split():
        engine.docker("network", "rm", name)
    for plugin in made:
        plugin.close()


def sleeper(engine: Client, *options: str) -> str:
    name = engine.name("c")
    engine.docker("run", "-d", "--name", name, *options, engine.image, "sleep", "600")
    return name


def network(engine: Client, driver: str, *options: str) -> str:
    name = engine.name("net")
    engine.docker("network", "create", "-d", driver, *options, name)
    return name


def pings(engine: Client, source: str, target: str) -> bool:
    done = engine.docker("exec", source, "ping", "-c1", "-W3", target, check=False)
    return done.returncode == 0


def entry(engine: Client, name: str, net: str) -> dict[str, Any]:
    found: dict[str, Any] = engine.inspect(name)["NetworkSettings"]["Networks"][net]
    return found


def fails(engine: Engine, *args: str) -> str:
    """A docker command that must fail, within 20 s; gives what it says."""
    began = time.monotonic()
    done = engine.docker(*args, check=False)
    assert done.returncode != 0, done.stdout
    assert time.monotonic() - began < 20
    return done.stderr

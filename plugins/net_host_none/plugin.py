"""The network drivers "host" (the host's own namespace) and "null" (a namespace with nothing but a loopback)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from plugin_sdk import DriverSpec, Forbidden, Plugin, PluginContext, PluginMeta, hookimpl
from plugin_sdk.network import (
    EndpointRecord,
    IpamConfig,
    JoinInfo,
    NetworkCapabilities,
    NetworkDriver,
    NetworkRecord,
)


class EmptyDriver:
    """A driver of one network that needs no interfaces.

    Args:
        name: the driver's name.
        network: the name of its one network.
    """

    def __init__(self, name: str, network: str) -> None:
        self.name, self.network = name, network

    def capabilities(self) -> NetworkCapabilities:
        """Local."""
        return NetworkCapabilities()

    def validate(self, network: NetworkRecord) -> None:
        """There is one such network, and the engine makes it."""
        if network.Name != self.network:
            raise Forbidden(f'only one instance of "{self.name}" network is allowed')

    async def create_network(self, network: NetworkRecord) -> None:
        """Nothing to make."""

    async def delete_network(self, network: NetworkRecord) -> None:
        """Nothing to undo."""

    async def create_endpoint(self, network: NetworkRecord, endpoint: EndpointRecord) -> EndpointRecord:
        """Nothing is reserved, and no port can be published."""
        return endpoint.model_copy(update={"Ports": [], "MacAddress": "", "Interface": ""})

    async def delete_endpoint(self, network: NetworkRecord, endpoint: EndpointRecord) -> None:
        """Nothing to undo."""

    async def join(self, network: NetworkRecord, endpoint: EndpointRecord, sandbox: Path, interface: str) -> JoinInfo:
        """No interface, no routes."""
        return JoinInfo(routes_set=True, disable_gateway_service=True)

    async def leave(self, network: NetworkRecord, endpoint: EndpointRecord) -> None:
        """Nothing to undo."""

    async def program_external(self, network: NetworkRecord, endpoint: EndpointRecord) -> EndpointRecord:
        """No ports."""
        return endpoint.model_copy(update={"Ports": []})

    async def revoke_external(self, network: NetworkRecord, endpoint: EndpointRecord) -> None:
        """Nothing to undo."""

    async def restore(self, networks: Sequence[NetworkRecord], endpoints: Sequence[EndpointRecord]) -> None:
        """Nothing to mend."""


class NetHostNonePlugin(Plugin):
    """Contributes both drivers and their networks."""

    meta = PluginMeta(
        name="net_host_none",
        description="Network drivers host and null (none)",
        drivers=(NetworkDriver,),
    )

    async def start(self, ctx: PluginContext) -> None:
        """Make the drivers."""
        self._drivers = [EmptyDriver("host", "host"), EmptyDriver("null", "none")]

    @hookimpl
    def engine_drivers(self) -> Iterable[DriverSpec]:
        """Both drivers."""
        return [DriverSpec(NetworkDriver, driver.name, driver) for driver in self._drivers]

    @hookimpl
    def engine_predefined_networks(self) -> Iterable[NetworkRecord]:
        """Their one network each."""
        return [
            NetworkRecord(
                Id="", Name=driver.network, Created="", Driver=driver.name, EnableIPv4=False, IPAM=IpamConfig()
            )
            for driver in self._drivers
        ]

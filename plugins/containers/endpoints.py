"""A container's networks and ports, as inspect and ps show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from plugin_sdk import NotFound
from plugin_sdk.containers import ContainerRecord
from plugin_sdk.network import EndpointRecord, Networks

if TYPE_CHECKING:
    from .service import ContainerService


def of(service: ContainerService, record: ContainerRecord) -> Sequence[EndpointRecord]:
    """Its endpoints, connected or waiting for a start."""
    networks = service.ctx.find(Networks)
    return networks.endpoints(record.Id) if networks is not None else ()


GW_PRIORITY_SINCE = (1, 48)


def shown(
    service: ContainerService, found: Iterable[EndpointRecord], *, full: bool, priority: bool = True
) -> dict[str, Any]:
    """Network name to `EndpointSettings`; ps leaves links, aliases and names out.

    Args:
        priority: show the gateway's, which API 1.48 brought.
    """
    networks = service.ctx.find(Networks)
    views: dict[str, Any] = {}
    for endpoint in found:
        try:
            name = networks.get(endpoint.NetworkID).Name if networks is not None else endpoint.NetworkID
        except NotFound:
            name = endpoint.NetworkID
        owner = service.records.stored(endpoint.ContainerID)
        # Right after an end the endpoint is still being given back.
        views[name] = _view(endpoint, full, up=bool(endpoint.Sandbox) and (owner is None or owner.State.running))
        if not priority:
            del views[name]["GwPriority"]
    return views


def _view(endpoint: EndpointRecord, full: bool, *, up: bool) -> dict[str, Any]:
    address, prefix = _split(endpoint.IPv4Address)
    address6, prefix6 = _split(endpoint.IPv6Address)
    return {
        "IPAMConfig": endpoint.Asked.get("IPAMConfig") or None,
        "Links": (endpoint.Asked.get("Links") or None) if full else None,
        "Aliases": (endpoint.Aliases or None) if full else None,
        "MacAddress": endpoint.MacAddress if up else "",
        "DriverOpts": endpoint.DriverOpts or None,
        "GwPriority": endpoint.GwPriority,
        "NetworkID": endpoint.NetworkID,
        "EndpointID": endpoint.Id if up else "",
        "Gateway": endpoint.Gateway if up else "",
        "IPAddress": address if up else "",
        "IPPrefixLen": prefix if up else 0,
        "IPv6Gateway": endpoint.IPv6Gateway if up else "",
        "GlobalIPv6Address": address6 if up else "",
        "GlobalIPv6PrefixLen": prefix6 if up else 0,
        "DNSNames": (endpoint.DNSNames or None) if full else None,
    }


def _split(cidr: str) -> tuple[str, int]:
    address, _, prefix = cidr.partition("/")
    return address, int(prefix or 0)


def port_map(record: ContainerRecord, found: Sequence[EndpointRecord]) -> dict[str, list[dict[str, str]] | None]:
    """`NetworkSettings.Ports` of inspect: `80/tcp` to what it is bound to, or None."""
    ports: dict[str, list[dict[str, str]] | None] = {}
    if not record.State.running or not found:
        return ports
    for name in (*(text for endpoint in found for text in endpoint.Exposed), *record.Config.ExposedPorts):
        ports.setdefault(name if "/" in name else f"{name}/tcp", None)
    for endpoint in found:
        for port in endpoint.Ports:
            name = f"{port.Port}/{port.Proto}"
            bound = ports.get(name) or []
            bound.append({"HostIp": port.HostIp or "0.0.0.0", "HostPort": str(port.HostPort)})
            ports[name] = bound
    return dict(sorted(ports.items()))


def port_list(record: ContainerRecord, found: Sequence[EndpointRecord]) -> list[dict[str, Any]]:
    """`Ports` of ps."""
    listed: list[dict[str, Any]] = []
    for name, bound in port_map(record, found).items():
        number, _, protocol = name.partition("/")
        private = {"PrivatePort": int(number), "Type": protocol}
        if not bound:
            listed.append(private)
        for binding in bound or ():
            listed.append({"IP": binding["HostIp"], **private, "PublicPort": int(binding["HostPort"])})
    return listed

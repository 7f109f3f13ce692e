"""Legacy links (`--link NAME:ALIAS`) between containers of a predefined network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from plugin_sdk import Conflict, InvalidParameter
from plugin_sdk.containers import ContainerRecord, Containers
from plugin_sdk.network import EndpointRecord
from plugins.networks.modes import Mode, exposed_ports, parse_port

_NOT_TOLD = ("HOME", "PATH")


@dataclass(frozen=True, slots=True)
class Link:
    """A resolved link: the other container, and what this one calls it."""

    container_id: str
    name: str
    alias: str
    address: str
    ports: Sequence[str]
    env: Sequence[str] = ()


def split_link(text: str) -> tuple[str, str]:
    """(name, alias) of `name:alias`, `name`, or the stored form `/name:/me/alias`. Raises InvalidParameter."""
    name, _, alias = text.partition(":")
    name = name.removeprefix("/")
    alias = alias.rpartition("/")[2]
    if not text:
        raise InvalidParameter("empty string specified for links")
    if not name or ":" in alias:
        raise InvalidParameter(f"bad format for links: {text}")
    return name, alias or name


def resolve_links(
    container: ContainerRecord,
    mode: Mode,
    containers: Containers | None,
    endpoint_of: Callable[[str], EndpointRecord | None],
) -> list[Link]:
    """The links of a container on a predefined network; on others names are resolved by DNS.

    Raises:
        Conflict: a linked container does not run.
        NotFound: there is none of that name.
    """
    if mode.kind != "network" or mode.user_defined or containers is None:
        return []
    found = []
    for text in container.HostConfig.Links:
        name, alias = split_link(text)
        target = containers.get(name)
        endpoint = endpoint_of(target.Id)
        if not target.State.running or endpoint is None:
            own = container.Name.removeprefix("/")
            raise Conflict(f"Cannot link to a non running container: /{name} AS /{own}/{alias}")
        ports = exposed_ports(target.Config.ExposedPorts, target.HostConfig.PortBindings)
        address = endpoint.IPv4Address.partition("/")[0]
        found.append(Link(target.Id, target.Name.removeprefix("/"), alias, address, ports, target.Config.Env))
    return found


def link_environment(own_name: str, links: Sequence[Link]) -> list[str]:
    """The variables that a linked container finds: `DB_NAME`, `DB_PORT_5432_TCP_ADDR`, ..."""
    lines = []
    for link in links:
        prefix = link.alias.upper().replace("-", "_")
        for number, spec in enumerate(sorted(link.ports, key=parse_port)):
            port, proto = parse_port(spec)
            url = f"{proto}://{link.address}:{port}"
            if not number:
                lines.append(f"{prefix}_PORT={url}")
            long = f"{prefix}_PORT_{port}_{proto.upper()}"
            lines += [f"{long}={url}", f"{long}_ADDR={link.address}", f"{long}_PORT={port}", f"{long}_PROTO={proto}"]
        lines.append(f"{prefix}_NAME=/{own_name}/{link.alias}")
        lines += [f"{prefix}_ENV_{entry}" for entry in link.env if entry.partition("=")[0] not in _NOT_TOLD]
    return lines

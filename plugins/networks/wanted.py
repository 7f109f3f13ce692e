"""What a new container asks of networks: brought into one form, and checked before anything exists."""

from __future__ import annotations

import socket

from plugin_sdk import EngineError, InvalidParameter, NotFound
from plugin_sdk.containers import (
    ContainerConfig,
    ContainerDraft,
    Containers,
    EndpointConfig,
    EndpointIpam,
    HostConfig,
    NetworkingConfig,
)
from plugins.networks import modes
from plugins.networks.links import split_link
from plugins.networks.modes import Mode, parse_mode
from plugins.networks.objects import NetworkObjects
from plugins.networks.records import StoredNetwork

_MANY_NETWORKS = (1, 44)


def normalise(draft: ContainerDraft, objects: NetworkObjects, containers: Containers | None) -> None:
    """Check a draft and fill in defaults: the mode "default" becomes "bridge", and `container:NAME` `container:ID`.

    Raises:
        InvalidParameter: contradictions, bad addresses or ports; an unknown network too (with 404 the docker CLI would go
            and pull the image).
    """
    if draft.config.NetworkDisabled:
        draft.host = draft.host.model_copy(update={"NetworkMode": "none"})
    mode = parse_mode(draft.host.NetworkMode)
    host = draft.host
    if mode.kind == "network" and host.NetworkMode in ("", "default"):
        host = host.model_copy(update={"NetworkMode": "bridge"})
    modes.check_extra_hosts(host.ExtraHosts)
    modes.published_ports(draft.config, host)
    modes.exposed_ports(draft.config.ExposedPorts, host.PortBindings)
    for link in host.Links:
        name, _ = split_link(link)
        if mode.kind == "network" and containers is not None:
            _find_linked(name, containers)
    _check_servers(host.Dns)
    if mode.kind == "container":
        _check_shared(draft, mode, containers)
        host = _by_id(draft, mode, containers)
    else:
        modes.check_conflicts(mode, draft.config, host)
    _check_endpoints(draft, mode, objects)
    draft.host = host
    if mode.kind == "host" and not draft.config.Hostname:
        draft.config = draft.config.model_copy(update={"Hostname": socket.gethostname()})


def wanted_of(
    network_mode: str, config: ContainerConfig, networking: NetworkingConfig, objects: NetworkObjects
) -> dict[str, EndpointConfig]:
    """Network name to what is asked of it; the mode's own network first."""
    mode = parse_mode(network_mode)
    if mode.kind == "container":
        return {}
    asked: dict[str, EndpointConfig] = {}
    for key, endpoint in networking.EndpointsConfig.items():
        key = "bridge" if key == "default" else key
        network = objects.find(key) or (objects.find(endpoint.NetworkID) if endpoint.NetworkID else None)
        name = network.Name if network is not None else key
        asked[name] = endpoint.model_copy(update={"NetworkID": network.Id if network is not None else ""})
    primary = objects.find(mode.ref)
    name = primary.Name if primary is not None else mode.ref
    main = asked.pop(name, EndpointConfig(NetworkID=primary.Id if primary is not None else ""))
    if mode.kind in ("host", "none"):
        asked = {}
    if config.MacAddress and not main.MacAddress:
        main = main.model_copy(update={"MacAddress": config.MacAddress})
    return {name: main, **dict(sorted(asked.items()))}


def check_wanted(network: StoredNetwork, config: EndpointConfig, *, where: str) -> None:
    """One endpoint's wishes. Raises InvalidParameter."""
    modes.check_endpoint(config, network, any(pool.Subnet for pool in network.AskedPools), where=where)


def _check_endpoints(draft: ContainerDraft, mode: Mode, objects: NetworkObjects) -> None:
    asked = dict(draft.networking.EndpointsConfig)
    if len(asked) > 1 and draft.api_version < _MANY_NETWORKS:
        names = ", ".join(sorted(asked))
        raise InvalidParameter(f"Container cannot be created with multiple network endpoints: {names}")
    wanted = wanted_of(draft.host.NetworkMode, draft.config, draft.networking, objects)
    if mode.kind in ("host", "none") and len(asked.keys() - {mode.ref}) > 0 and mode.kind == "none":
        raise InvalidParameter(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode"
        )
    for name, config in wanted.items():
        modes.check_mac(config.MacAddress, name)
        if mode.kind in ("host", "none"):
            continue
        try:
            network = objects.usable(config.NetworkID or name)
        except NotFound:
            raise InvalidParameter(f"network {name} not found") from None
        check_wanted(network, _known_ipam(config), where=f"invalid config for network {name}: ")
    if mode.kind == "host" and draft.host.PortBindings:
        draft.warnings.append("Published ports are discarded when using host network mode")
    if draft.config.MacAddress and draft.api_version >= _MANY_NETWORKS:
        draft.warnings.append(
            "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."
        )


def _known_ipam(config: EndpointConfig) -> EndpointConfig:
    empty = config.IPAMConfig is not None and config.IPAMConfig == EndpointIpam()
    return config.model_copy(update={"IPAMConfig": None}) if empty else config


def _check_shared(draft: ContainerDraft, mode: Mode, containers: Containers | None) -> None:
    # By now the containers plugin may have given the draft a host name of its own: the ID's first 12 digits.
    config = draft.config
    if config.Hostname == draft.id[:12]:
        config = config.model_copy(update={"Hostname": ""})
    # An image's exposed ports are no wish of the client's.
    exposed = {port for port in config.ExposedPorts if port not in (draft.image.Config.ExposedPorts)}
    modes.check_conflicts(mode, config.model_copy(update={"ExposedPorts": {port: {} for port in exposed}}), draft.host)
    if containers is None:
        raise InvalidParameter("no enabled plugin provides containers")


def _by_id(draft: ContainerDraft, mode: Mode, containers: Containers | None) -> HostConfig:
    assert containers is not None
    try:
        target = containers.get(mode.ref)
    except EngineError as error:
        raise InvalidParameter(f"cannot share the network of container {mode.ref}: {error}") from None
    draft.config = draft.config.model_copy(update={"Hostname": target.Config.Hostname or target.Id[:12]})
    return draft.host.model_copy(update={"NetworkMode": f"container:{target.Id}"})


def _find_linked(name: str, containers: Containers) -> None:
    try:
        containers.get(name)
    except EngineError as error:
        raise InvalidParameter(f"could not get container for {name}: {error}") from None


def _check_servers(servers: list[str]) -> None:
    for server in servers:
        modes.check_server(server)

"""`GET /containers/ID/json`: all that is known of one container, in the API's shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from plugin_sdk import EngineError
from plugin_sdk.containers import ContainerConfig, ContainerRecord, ContainerState, ContainerStatus, HostConfig
from plugin_sdk.network import Networks
from plugin_sdk.times import NEVER

from . import endpoints, links
from .listing import mount_view

if TYPE_CHECKING:
    from .service import ContainerService

# Go's nil slices and maps are null on the wire, and `omitempty` fields are missing; clients have seen both for years.
_NULL_WHEN_EMPTY = {
    "Binds", "VolumesFrom", "CapAdd", "CapDrop", "ExtraHosts", "GroupAdd", "Links", "SecurityOpt", "DeviceCgroupRules",
    "DeviceRequests", "Env", "Volumes", "OnBuild", "Entrypoint",
}  # fmt: skip
_OMIT_WHEN_EMPTY = {
    "Tmpfs", "Mounts", "Sysctls", "StorageOpt", "Annotations", "Init", "KernelMemory", "KernelMemoryTCP", "ExposedPorts",
    "Healthcheck", "Shell", "StopSignal", "StopTimeout", "MacAddress", "NetworkDisabled", "ArgsEscaped",
}  # fmt: skip


async def inspect(
    service: ContainerService, record: ContainerRecord, *, size: bool = False, api_version: tuple[int, int] = (1, 51)
) -> dict[str, Any]:
    """The whole document.

    Args:
        size: measure the file systems too, which takes time.
    """
    files = service.live_files(record)
    document: dict[str, Any] = {
        "Id": record.Id,
        "Created": record.Created,
        "Path": record.Path,
        "Args": record.Args,
        "State": state_view(record.State),
        "Image": record.ImageID,
        "ResolvConfPath": files.get("/etc/resolv.conf", ""),
        "HostnamePath": files.get("/etc/hostname", ""),
        "HostsPath": files.get("/etc/hosts", ""),
        "LogPath": record.LogPath,
        "Name": f"/{record.Name}",
        "RestartCount": record.RestartCount,
        "Driver": record.Driver,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": list(service.execs.list_for(record.Id)) or None,
        "HostConfig": host_view(record.HostConfig, api_version),
        "GraphDriver": {"Name": record.Driver, "Data": _layer(service, record)},
        "Mounts": [mount_view(mount.model_dump()) for mount in record.Mounts],
        "Config": _config_view(record.Config),
        "NetworkSettings": _networks(service, record, api_version),
    }
    document["HostConfig"]["Links"] = links.shown(service, record) or None
    if size:
        document["SizeRw"], document["SizeRootFs"] = await service.sizes.of(record)
    return document


def state_view(state: ContainerState) -> dict[str, Any]:
    """`State` of inspect."""
    status = state.Status
    view: dict[str, Any] = {
        "Status": status,
        "Running": state.running or status is ContainerStatus.RESTARTING,
        "Paused": status is ContainerStatus.PAUSED,
        "Restarting": status is ContainerStatus.RESTARTING,
        "OOMKilled": state.OOMKilled,
        "Dead": status is ContainerStatus.DEAD,
        "Pid": state.Pid,
        "ExitCode": state.ExitCode,
        "Error": state.Error,
        "StartedAt": state.StartedAt or NEVER,
        "FinishedAt": state.FinishedAt or NEVER,
    }
    if state.Health is not None:
        view["Health"] = state.Health
    return view


def host_view(host: HostConfig, api_version: tuple[int, int]) -> dict[str, Any]:
    """`HostConfig` of inspect."""
    view = _go_shape(host.model_dump())
    if api_version >= (1, 42):
        view.pop("KernelMemory", None)
    # Of Windows alone; clients of typed languages expect the fields.
    view.update(CpuCount=0, CpuPercent=0, IOMaximumIOps=0, IOMaximumBandwidth=0)
    if "Mounts" in view:
        view["Mounts"] = [_mount_shape(mount) for mount in view["Mounts"]]
    return view


def _mount_shape(mount: dict[str, Any]) -> dict[str, Any]:
    """Without what was not said; options that were sent empty stay, as the kind of mount may depend on them."""
    return {
        key: {name: part for name, part in value.items() if part} if isinstance(value, dict) else value
        for key, value in mount.items()
        if value or isinstance(value, dict)
    }


def _config_view(config: ContainerConfig) -> dict[str, Any]:
    view = _go_shape(config.model_dump(include=set(ContainerConfig.model_fields)))
    if "Healthcheck" in view:
        view["Healthcheck"] = {key: value for key, value in view["Healthcheck"].items() if value}
    return view


def _go_shape(fields: dict[str, Any]) -> dict[str, Any]:
    shaped: dict[str, Any] = {}
    for key, value in fields.items():
        empty = not value
        if empty and key in _OMIT_WHEN_EMPTY and not (key in ("StopTimeout", "Init") and value is not None):
            continue
        shaped[key] = None if empty and key in _NULL_WHEN_EMPTY else value
    return shaped


def _layer(service: ContainerService, record: ContainerRecord) -> dict[str, str] | None:
    try:
        return service.storage_of(record).metadata(record.Id) or None
    except EngineError:
        return None


def _networks(service: ContainerService, record: ContainerRecord, api_version: tuple[int, int]) -> dict[str, Any]:
    networks = service.ctx.find(Networks)
    sandbox = networks.sandbox(record.Id) if networks is not None and record.State.running else None
    found = endpoints.of(service, record)
    shown = endpoints.shown(service, found, full=True, priority=api_version >= endpoints.GW_PRIORITY_SINCE)
    # Before there were user networks, the bridge's facts stood here; clients of then still read them.
    old = shown.get("bridge", {})
    texts = ("EndpointID", "Gateway", "GlobalIPv6Address", "IPAddress", "IPv6Gateway", "MacAddress")
    return {
        "Bridge": "",
        "SandboxID": sandbox.name if sandbox else "",
        "SandboxKey": str(sandbox) if sandbox else "",
        "Ports": endpoints.port_map(record, found),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        **{key: old.get(key, "") for key in texts},
        "GlobalIPv6PrefixLen": old.get("GlobalIPv6PrefixLen", 0),
        "IPPrefixLen": old.get("IPPrefixLen", 0),
        "Networks": shown,
    }

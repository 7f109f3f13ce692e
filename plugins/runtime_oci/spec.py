"""The OCI runtime spec of a container, put together from its record and what its start has prepared."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plugin_sdk.containers import ContainerRecord, HostConfig, Preparation, Ulimit
from plugin_sdk.runtime import OciMount, OciSpec
from plugins.runtime_oci import cdi, devices, mounts, process, remap, seccomp, users
from plugins.runtime_oci.limits import oci_resources
from plugins.runtime_oci.namespaces import OTHER, FindContainer, namespaces, running_donor
from plugins.runtime_oci.security import apparmor_profile, parse_security_options
from plugins.runtime_oci.ulimits import rlimits

OCI_VERSION = "1.0.2"

_NET_SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
"""dockerd's defaults for containers with a network namespace: all ports and `ping` without capabilities."""


@dataclass(frozen=True, slots=True)
class SpecDefaults:
    """What the daemon's settings and the host add to every spec.

    Attributes:
        cgroup_parent: "" for the driver's own default.
        profile: default seccomp profile: None for the built-in one, {} for none.
        shm: gives the place of a container's shareable /dev/shm.
        init_path: gives the init program; raises NotSupported when there is none.
        cdi_folders: where CDI devices are described.
    """

    cgroup_parent: str = ""
    systemd: bool = False
    ulimits: Mapping[str, Ulimit] = field(default_factory=dict)
    profile: dict[str, Any] | None = None
    no_new_privileges: bool = False
    init: bool = False
    shm: Callable[[str], Path] = Path
    init_path: Callable[[], str] = str
    cdi_folders: Sequence[str] = ()


def wants_init(container: ContainerRecord, defaults: SpecDefaults) -> bool:
    """An init runs first: never where another PID namespace's init does."""
    asked = container.HostConfig.Init
    return (defaults.init if asked is None else asked) and not container.HostConfig.PidMode


def cgroups_path(container: ContainerRecord, defaults: SpecDefaults) -> str:
    """`/docker/ID`, or for systemd `system.slice:docker:ID`."""
    parent = container.HostConfig.CgroupParent or defaults.cgroup_parent
    if defaults.systemd:
        return f"{parent or 'system.slice'}:docker:{container.Id}"
    return os.path.join("/" + os.path.normpath(f"/{parent or 'docker'}").lstrip("/"), container.Id)


def build(container: ContainerRecord, preparation: Preparation, defaults: SpecDefaults, find: FindContainer) -> OciSpec:
    """The whole spec. Blocking: reads the container's user database and looks at devices.

    Raises:
        InvalidParameter, NotFound, Conflict, NotSupported: see `Runtime.spec`.
    """
    config, host = container.Config, container.HostConfig
    options = parse_security_options(host.SecurityOpt)
    identity = users.identify(preparation.rootfs, config.User, host.GroupAdd)
    own_uts = host.UTSMode != "host"
    hostname = (config.Hostname or container.Id[:12]) if own_uts else os.uname().nodename
    init = wants_init(container, defaults)
    extra = list(preparation.mounts)
    if init:
        extra.append(OciMount(process.INIT_INSIDE, defaults.init_path(), options=("bind", "ro")))
    shm = None
    if host.IpcMode == "shareable":
        shm = defaults.shm(container.Id)
    elif host.IpcMode.startswith(OTHER):
        donor = running_donor(host.IpcMode, "IPC", find)
        shm = Path("/dev/shm") if donor.HostConfig.IpcMode == "host" else defaults.shm(donor.Id)

    first = process.for_container(container, identity, hostname=hostname, env=preparation.env, init=init)
    first["rlimits"] = rlimits(host.Ulimits, defaults.ulimits)
    asked = options.no_new_privileges
    first["noNewPrivileges"] = defaults.no_new_privileges if asked is None else asked
    if profile := apparmor_profile(options.apparmor, privileged=host.Privileged):
        first["apparmorProfile"] = profile
    writable_cgroups = host.Privileged or options.writable_cgroups
    usual = mounts.kernel_mounts(host, writable_cgroups=writable_cgroups, shm=shm)
    spec: OciSpec = {
        "ociVersion": OCI_VERSION,
        "process": first,
        "root": {"path": str(preparation.rootfs), "readonly": host.ReadonlyRootfs},
        "mounts": mounts.merge(usual, extra),
        "linux": _linux(container, preparation, defaults, find, first),
    }
    if own_uts:
        spec["hostname"] = hostname
        if config.Domainname:
            spec["linux"].setdefault("sysctl", {}).setdefault("kernel.domainname", config.Domainname)
    if host.DeviceRequests:
        cdi.apply(spec, cdi.find(cdi.wanted(host.DeviceRequests), defaults.cdi_folders))
    if annotations := {**host.Annotations, **preparation.annotations}:
        spec["annotations"] = annotations
    if found := _seccomp(options.seccomp, container, defaults, first):
        spec["linux"]["seccomp"] = found
    return spec


def _linux(
    container: ContainerRecord,
    preparation: Preparation,
    defaults: SpecDefaults,
    find: FindContainer,
    first: dict[str, Any],
) -> dict[str, Any]:
    host = container.HostConfig
    nodes, rules = devices.gather(host.Devices)
    if host.Privileged:
        taken = {node["path"] for node in nodes}
        nodes += [node for node in devices.host_devices() if node["path"] not in taken]
        allowed = [devices.ALL_RULE]
    else:
        allowed = [*devices.default_rules(), *rules, *map(devices.check_rule, host.DeviceCgroupRules)]
    linux: dict[str, Any] = {
        "cgroupsPath": cgroups_path(container, defaults),
        "namespaces": namespaces(container, preparation.netns, find, preparation.userns),
        "resources": {"devices": allowed, **_limits(host)},
    }
    if container.Ids is not None:
        linux["uidMappings"] = remap.oci_ranges(container.Ids.Uids)
        linux["gidMappings"] = remap.oci_ranges(container.Ids.Gids)
    if nodes:
        linux["devices"] = nodes
    sysctls = dict(_NET_SYSCTLS) if preparation.netns is not None and host.NetworkMode != "host" else {}
    if sysctls and container.Ids is not None:
        # Groups that the namespace does not have cannot be named in it.
        sysctls["net.ipv4.ping_group_range"] = f"0 {sum(part.Size for part in container.Ids.Gids) - 1}"
    sysctls |= host.Sysctls
    if sysctls:
        linux["sysctl"] = sysctls
    if propagation := mounts.root_propagation(preparation.mounts):
        linux["rootfsPropagation"] = propagation
    if not host.Privileged:
        masked = mounts.MASKED if host.MaskedPaths is None else host.MaskedPaths
        read_only = mounts.READ_ONLY if host.ReadonlyPaths is None else host.ReadonlyPaths
        linux["maskedPaths"] = list(masked)
        linux["readonlyPaths"] = list(read_only)
    return linux


def _limits(host: HostConfig) -> dict[str, Any]:
    # No quota, said as -1: new groups have none, and crun cannot write it.
    return oci_resources(host.model_copy(update={"CpuQuota": 0}) if host.CpuQuota < 0 else host)


def _seccomp(
    asked: str, container: ContainerRecord, defaults: SpecDefaults, first: dict[str, Any]
) -> dict[str, Any] | None:
    if asked == "unconfined" or not seccomp.supported() or (container.HostConfig.Privileged and not asked):
        return None
    names = tuple(first["capabilities"]["bounding"])
    if asked:
        return seccomp.oci(seccomp.parse(asked), names)
    if defaults.profile is None:
        return seccomp.builtin(names)
    return seccomp.oci(defaults.profile, names) if defaults.profile else None

"""Options of dockerd that describe the engine as a whole, or that no other plugin has a use for."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, field_validator

from plugin_sdk import setting

_NO_CONTAINERD = "this engine runs containers without containerd"
_NO_SWARM = "there is no swarm mode yet"


class Settings(BaseModel):
    """Everything that `engine daemon --help` shows for this plugin."""

    labels: list[str] = setting([], "Label of this engine, KEY=VALUE", flag="--label", key="labels", reloadable=True)
    rootless: bool = setting(False, "Run without root (not supported)", flag="--rootless")

    live_restore: bool = setting(
        True,
        "Keep containers running while the daemon is down",
        flag="--live-restore",
        ignored="containers always outlive the daemon",
    )
    shutdown_timeout: int = setting(
        15,
        "Seconds for containers to stop at shutdown",
        flag="--shutdown-timeout",
        ignored="stopping the daemon stops no container",
    )
    allow_nondistributable_artifacts: list[str] = setting(
        [],
        "Registry that takes nondistributable artifacts",
        flag="--allow-nondistributable-artifacts",
        key="allow-nondistributable-artifacts",
        ignored="removed from dockerd as well",
    )
    selinux_enabled: bool = setting(
        False, "Use SELinux labels", flag="--selinux-enabled", ignored="SELinux labels are not supported yet"
    )
    raw_logs: bool = setting(False, "Log without colours", flag="--raw-logs", ignored="the daemon's log has no colours")
    containerd: str = setting("", "containerd's address", flag="--containerd", ignored=_NO_CONTAINERD)
    containerd_namespace: str = setting(
        "moby", "containerd's namespace", flag="--containerd-namespace", ignored=_NO_CONTAINERD
    )
    containerd_plugins_namespace: str = setting(
        "plugins.moby",
        "containerd's namespace for plugins",
        flag="--containerd-plugins-namespace",
        ignored=_NO_CONTAINERD,
    )
    cri_containerd: bool = setting(False, "Start containerd with CRI", flag="--cri-containerd", ignored=_NO_CONTAINERD)
    swarm_default_advertise_addr: str = setting(
        "", "Address that a swarm node advertises", flag="--swarm-default-advertise-addr", ignored=_NO_SWARM
    )
    node_generic_resources: list[str] = setting(
        [],
        "Resource that a swarm node advertises",
        flag="--node-generic-resource",
        key="node-generic-resources",
        ignored=_NO_SWARM,
    )
    cluster_store: str = setting(
        "", "URL of the legacy cluster store", flag="--cluster-store", ignored="removed from dockerd as well"
    )
    cluster_advertise: str = setting(
        "", "Address in the legacy cluster", flag="--cluster-advertise", ignored="removed from dockerd as well"
    )
    cluster_store_opts: dict[str, str] = setting(
        {},
        "Options of the legacy cluster store",
        flag="--cluster-store-opt",
        key="cluster-store-opts",
        ignored="removed from dockerd as well",
    )
    default_network_opts: dict[str, Any] = setting(
        {},
        "Default option of networks of a driver",
        flag="--default-network-opt",
        key="default-network-opts",
        ignored="give the option to `network create`",
    )
    allow_direct_routing: bool = setting(
        False,
        "Let other hosts reach containers by their own addresses",
        flag="--allow-direct-routing",
        ignored="only published ports can be reached from outside",
    )
    bridge_accept_fwmark: str = setting(
        "", "Firewall mark that may pass to bridges", flag="--bridge-accept-fwmark", ignored="not supported yet"
    )
    firewall_backend: str = setting(
        "", "iptables or nftables", flag="--firewall-backend", ignored="the firewall is always nftables"
    )
    features: dict[str, Any] = setting(
        {}, "Feature to switch, NAME=BOOL", flag="--feature", key="features", ignored="there are no features to switch"
    )
    builder: dict[str, Any] = setting(
        {}, "Settings of the builder", flag="--builder", ignored="there is no builder plugin yet"
    )
    cpu_rt_period: int = setting(
        0, "CPU real-time period of all containers", flag="--cpu-rt-period", ignored="set it for each container"
    )
    cpu_rt_runtime: int = setting(
        0, "CPU real-time runtime of all containers", flag="--cpu-rt-runtime", ignored="set it for each container"
    )

    @field_validator("labels")
    @classmethod
    def _check_labels(cls, labels: list[str]) -> list[str]:
        seen: dict[str, str] = {}
        for label in labels:
            key, equals, value = label.partition("=")
            if not key or not equals:
                raise ValueError(f"bad attribute format: {label}; want KEY=VALUE")
            if seen.setdefault(key, value) != value:
                raise ValueError(f"conflict labels for {key}={value} and {key}={seen[key]}")
        return list(dict.fromkeys(labels))

    @field_validator("rootless")
    @classmethod
    def _refuse_rootless(cls, value: bool) -> bool:
        if value:
            raise ValueError("this engine cannot run without root yet; leave the option out")
        return value

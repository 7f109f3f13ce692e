"""`GET /version` and `GET /info`."""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plugin_sdk import EngineError, PluginAdmin, PluginContext, PluginState
from plugin_sdk.api import API_VERSION, MIN_API_VERSION
from plugin_sdk.containers import Containers
from plugin_sdk.images import ImageStore
from plugin_sdk.logs import LogDriver
from plugin_sdk.network import NetworkDriver
from plugin_sdk.runtime import Runtime, RuntimeDescription, Runtimes
from plugin_sdk.times import format_ns, now
from plugin_sdk.volumes import VolumeDriver
from plugins.system.host import Host, sysctl_on
from plugins.system.settings import Settings

NEWEST, OLDEST = (".".join(map(str, version)) for version in (API_VERSION, MIN_API_VERSION))


class Description:
    """Describes the engine, from what the host, the kernel and the plugins tell."""

    def __init__(self, ctx: PluginContext, host: Host) -> None:
        self._ctx = ctx
        self._host = host
        self._facts = ctx.require(PluginAdmin).facts
        self._built = format_ns(int(Path(__file__).stat().st_mtime) * 10**9)
        self.settings: Settings = ctx.settings
        self.listeners = 0

    def version(self) -> dict[str, Any]:
        """`SystemVersion`."""
        experimental = bool(self._told().get("ExperimentalBuild"))
        host, facts = self._host, self._facts
        python = f"python{platform.python_version()}"
        details = {
            "ApiVersion": NEWEST,
            "Arch": host.architecture,
            "BuildTime": self._built,
            "Experimental": "true" if experimental else "false",
            "GitCommit": "",
            "GoVersion": python,
            "KernelVersion": host.kernel,
            "MinAPIVersion": OLDEST,
            "Os": "linux",
        }
        components: list[dict[str, Any]] = [{"Name": "Engine", "Version": facts.version, "Details": details}]
        for runtime in self._runtimes().values():
            components.append(
                {"Name": runtime.name, "Version": runtime.version, "Details": {"GitCommit": runtime.commit}}
            )
        return {
            "Platform": {"Name": "Engine"},
            "Components": components,
            "Version": facts.version,
            "ApiVersion": NEWEST,
            "MinAPIVersion": OLDEST,
            "GitCommit": "",
            "GoVersion": python,
            "Os": "linux",
            "Arch": host.architecture,
            "KernelVersion": host.kernel,
            **({"Experimental": True} if experimental else {}),
            "BuildTime": self._built,
        }

    def info(self) -> dict[str, Any]:
        """`SystemInfo`; what plugins tell wins over what is found out here."""
        runtimes, default = self._runtimes(), self._ctx.find(Runtimes)
        chosen = default.default if default is not None else next(iter(runtimes), "")
        told = self._told()
        info: dict[str, Any] = {
            "ID": self._facts.id,
            **self._counts(told),
            "Driver": "",
            "DriverStatus": [],
            "Plugins": self._plugins(),
            **self._host.limits,
            **self._network(),
            "Debug": self._facts.debug,
            "NFd": len(os.listdir("/proc/self/fd")),
            "NGoroutines": len(asyncio.all_tasks()),
            "SystemTime": now(),
            "LoggingDriver": "",
            "CgroupDriver": "cgroupfs",
            "CgroupVersion": self._host.cgroup_version,
            "NEventsListener": self.listeners,
            "KernelVersion": self._host.kernel,
            "OperatingSystem": self._host.system,
            "OSVersion": self._host.system_version,
            "OSType": "linux",
            "Architecture": self._host.machine,
            "IndexServerAddress": "",
            "RegistryConfig": None,
            "NCPU": self._host.processors,
            "MemTotal": self._host.memory,
            "GenericResources": None,
            "DockerRootDir": str(self._facts.data_root),
            "HttpProxy": "",
            "HttpsProxy": "",
            "NoProxy": "",
            "Name": self._host.name,
            "Labels": self.settings.labels,
            "ExperimentalBuild": False,
            "ServerVersion": self._facts.version,
            "Runtimes": {name: _runtime(runtime) for name, runtime in runtimes.items()},
            "DefaultRuntime": chosen,
            "Swarm": _NO_SWARM,
            "LiveRestoreEnabled": True,
            "Isolation": "",
            "InitBinary": "",
            "ContainerdCommit": {"ID": "", "Expected": ""},
            "RuncCommit": _commit(runtimes.get(chosen)),
            "InitCommit": {"ID": "", "Expected": ""},
            "SecurityOptions": [],
            "Warnings": [],
        }
        info = merge(info, told)
        info["EnginePlugins"], failed = self._engine_plugins()
        info["Warnings"] = [_warning(text) for text in [*info["Warnings"], *failed]] or None
        info["UptimeSeconds"] = (time.time_ns() - self._facts.started_ns) // 10**9
        return info

    def _told(self) -> dict[str, Any]:
        told: dict[str, Any] = {}
        for _, part in self._ctx.hooks.sync("engine_info"):
            told = merge(told, part)
        return told

    def _counts(self, told: Mapping[str, Any]) -> dict[str, int]:
        """Containers and images, for what their plugins do not tell themselves."""
        containers, images = self._ctx.find(Containers), self._ctx.find(ImageStore)
        states: list[str] = []
        if containers is not None and "Containers" not in told:
            states = [container.State.Status for container in containers.list()]
        running, paused = states.count("running"), states.count("paused")
        return {
            "Containers": len(states),
            "ContainersRunning": running,
            "ContainersPaused": paused,
            "ContainersStopped": len(states) - running - paused,
            "Images": len(images.list()) if images is not None and "Images" not in told else 0,
        }

    def _plugins(self) -> dict[str, list[str] | None]:
        drivers = self._ctx.drivers
        return {
            "Volume": list(drivers.all(VolumeDriver)),
            "Network": list(drivers.all(NetworkDriver)),
            "Authorization": None,
            "Log": list(drivers.all(LogDriver)),
        }

    def _network(self) -> dict[str, bool]:
        return {
            "IPv4Forwarding": sysctl_on("net/ipv4/ip_forward"),
            "BridgeNfIptables": sysctl_on("net/bridge/bridge-nf-call-iptables"),
            "BridgeNfIp6tables": sysctl_on("net/bridge/bridge-nf-call-ip6tables"),
        }

    def _runtimes(self) -> dict[str, RuntimeDescription]:
        described = {}
        for name, runtime in self._ctx.drivers.all(Runtime).items():
            try:
                described[name] = runtime.describe()
            except EngineError as error:
                self._ctx.log.warning("runtime %s does not describe itself: %s", name, error)
        return described

    def _engine_plugins(self) -> tuple[list[dict[str, Any]], list[str]]:
        """State of each in-process plugin, and a warning for each that failed."""
        shown, failed = [], []
        for status in self._ctx.require(PluginAdmin).statuses():
            shown.append(
                {
                    "Name": status.name,
                    "State": str(status.state),
                    "Reason": status.reason,
                    "Version": status.version,
                    "Failures": status.failures,
                    "LastError": status.last_error,
                    "Restored": status.restored,
                }
            )
            if status.state is PluginState.FAILED:
                failed.append(f"plugin {status.name} failed: {status.reason}")
            elif status.last_error:
                failed.append(f"plugin {status.name}: {status.last_error}")
        return shown, failed


_NO_SWARM = {
    "NodeID": "",
    "NodeAddr": "",
    "LocalNodeState": "inactive",
    "ControlAvailable": False,
    "Error": "",
    "RemoteManagers": None,
}


def merge(base: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `part` laid over it: lists are joined, dicts merged, of anything else `part`'s counts."""
    merged = dict(base)
    for key, value in part.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(old, value)
        elif isinstance(old, list) and isinstance(value, list | tuple):
            merged[key] = [*old, *(item for item in value if item not in old)]
        else:
            merged[key] = value
    return merged


def _runtime(runtime: RuntimeDescription) -> dict[str, Any]:
    shown: dict[str, Any] = {"path": runtime.path}
    if runtime.arguments:
        shown["runtimeArgs"] = list(runtime.arguments)
    if runtime.facts:
        shown["status"] = dict(runtime.facts)
    return shown


def _commit(runtime: RuntimeDescription | None) -> dict[str, str]:
    known = (runtime.commit or runtime.version) if runtime is not None else ""
    return {"ID": known, "Expected": known}


def _warning(text: str) -> str:
    return text if text.startswith(("WARNING:", "[DEPRECATION")) else f"WARNING: {text}"

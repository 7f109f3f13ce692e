"""What a client asks for, completed by what the image says, and checked."""

from __future__ import annotations

import posixpath
from typing import Any

from plugin_sdk import InvalidParameter
from plugin_sdk.containers import ContainerConfig, HealthConfig, HostConfig, Mount

from . import restart
from .signals import parse_signal

_MILLISECOND = 10**6


def with_image(asked: ContainerConfig, image: ContainerConfig) -> ContainerConfig:
    """The client's configuration with the image's defaults, by Docker's rules.

    Lists of environment variables, labels, ports and volumes are joined, the client's entry wins. An entrypoint of the
    client's makes the image's command void.
    """
    own = {entry.partition("=")[0] for entry in asked.Env}
    changes: dict[str, Any] = {
        "Env": asked.Env + [entry for entry in image.Env if entry.partition("=")[0] not in own],
        "Labels": {**image.Labels, **asked.Labels},
        "ExposedPorts": {_with_protocol(p): {} for p in (*image.ExposedPorts, *asked.ExposedPorts)},
        "Volumes": {**image.Volumes, **asked.Volumes},
        "Healthcheck": _health(asked.Healthcheck, image.Healthcheck),
    }
    for field in ("User", "WorkingDir", "StopSignal"):
        changes[field] = getattr(asked, field) or getattr(image, field)
    if asked.StopTimeout is None:
        changes["StopTimeout"] = image.StopTimeout
    entrypoint, command = asked.Entrypoint, asked.Cmd
    if not entrypoint:
        if not command:
            command = image.Cmd
            changes["ArgsEscaped"] = image.ArgsEscaped
        if entrypoint is None:
            entrypoint = image.Entrypoint
    if changes["WorkingDir"].startswith("/"):
        changes["WorkingDir"] = "/" + posixpath.normpath(changes["WorkingDir"]).lstrip("/")
    changes["Cmd"] = command
    changes["Entrypoint"] = None if entrypoint == [""] else entrypoint
    return asked.model_copy(update=changes)


def _with_protocol(port: str) -> str:
    return port if "/" in port else f"{port}/tcp"


def _health(asked: HealthConfig | None, image: HealthConfig | None) -> HealthConfig | None:
    if asked is None or image is None:
        return asked or image
    return HealthConfig(
        **{field: getattr(asked, field) or getattr(image, field) for field in HealthConfig.model_fields}
    )


def command_line(config: ContainerConfig) -> tuple[str, list[str]]:
    """Program and arguments. Raises InvalidParameter without any."""
    line = [*(config.Entrypoint or ()), *(config.Cmd or ())]
    if not line:
        raise InvalidParameter("no command specified")
    return line[0], line[1:]


def check_config(config: ContainerConfig) -> None:
    """Raises InvalidParameter, in Docker's words."""
    if config.WorkingDir and not config.WorkingDir.startswith("/"):
        raise InvalidParameter(
            f"the working directory '{config.WorkingDir}' is invalid, it needs to be an absolute path"
        )
    for entry in config.Env:
        if not entry.partition("=")[0]:
            raise InvalidParameter(f"invalid environment variable: {entry}")
        if "\0" in entry:
            raise InvalidParameter("invalid environment variable: it holds a zero byte")
    if any("\0" in part for part in (*(config.Entrypoint or ()), *(config.Cmd or ()))):
        raise InvalidParameter("invalid command: an argument holds a zero byte")
    if config.StopSignal:
        parse_signal(config.StopSignal)
    if config.Healthcheck is not None:
        _check_health(config.Healthcheck)


def _check_health(health: HealthConfig) -> None:
    for field in ("Interval", "Timeout", "StartPeriod", "StartInterval"):
        if getattr(health, field) != 0 and getattr(health, field) < _MILLISECOND:
            raise InvalidParameter(f"{field} in Healthcheck cannot be less than 1ms")
    if health.Retries < 0:
        raise InvalidParameter("Retries in Healthcheck cannot be negative")


def for_version(host: HostConfig, version: tuple[int, int]) -> HostConfig:
    """What an older client meant: fields that its API version did not have are left out, and its defaults are taken.

    Source: moby's docs/api version history.
    """
    changes: dict[str, Any] = {}
    if version < (1, 40) and not host.IpcMode:
        changes["IpcMode"] = "shareable"
    if version < (1, 41) and not host.CgroupnsMode:
        changes["CgroupnsMode"] = "host"
    if version < (1, 42):
        changes["ConsoleSize"] = [0, 0]
    else:
        changes["KernelMemory"] = 0
    if version < (1, 43):
        changes["Annotations"] = {}
    if version < (1, 44):
        changes["Mounts"] = [mount.model_copy(update=_old_bind(mount, version)) for mount in host.Mounts]
    return host.model_copy(update=changes)


def _old_bind(mount: Mount, version: tuple[int, int]) -> dict[str, Any]:
    if mount.BindOptions is None:
        return {}
    gone = {"ReadOnlyNonRecursive": False, "ReadOnlyForceRecursive": False}
    if version < (1, 42):
        gone["CreateMountpoint"] = False
    if version < (1, 40):
        gone["NonRecursive"] = False
    return {"BindOptions": mount.BindOptions.model_copy(update=gone)}


def check_host(host: HostConfig, config: ContainerConfig) -> None:
    """Raises InvalidParameter for what belongs to no other plugin's part."""
    restart.check(host.RestartPolicy)
    if host.AutoRemove and host.RestartPolicy.Name not in ("", "no"):
        raise InvalidParameter("can't create 'AutoRemove' container with restart policy")
    if config.Hostname and host.UTSMode == "host":
        raise InvalidParameter("conflicting options: hostname and the UTS mode")
    if "" in host.Annotations:
        raise InvalidParameter("invalid Annotations: the empty string is not permitted as an annotation key")

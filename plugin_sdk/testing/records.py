"""Records as the engine hands them to drivers, made up for checks."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from kernel.contracts.container_config import ContainerConfig, HostConfig
from kernel.contracts.containers import ContainerRecord
from plugin_sdk.times import now


def container_record(
    command: Sequence[str] = ("true",), *, host: dict[str, Any] | None = None, **config: Any
) -> ContainerRecord:
    """A container that exists nowhere.

    Args:
        host: fields of its HostConfig.
        config: fields of its Config.
    """
    identity = secrets.token_hex(32)
    return ContainerRecord(
        Id=identity,
        Name=f"verify-{identity[:12]}",
        Created=now(),
        ImageID=f"sha256:{identity}",
        ImageRef="verify",
        Driver="",
        Runtime="",
        Path=command[0],
        Args=list(command[1:]),
        Config=ContainerConfig(**config),
        HostConfig=HostConfig(**{"CgroupnsMode": "host", "IpcMode": "private", **(host or {})}),
    )

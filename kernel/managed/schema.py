"""`config.json` of a managed plugin.

Source: Docker's "Plugin Config Version 1 of Plugin V2". Documents in the wild differ in the case of their keys and carry
unknown ones; both are accepted, and unknown keys are kept.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import ConfigDict, ValidationError, field_validator

from kernel.contracts.common import Wire
from kernel.errors import InvalidParameter

MAX_BYTES = 1 << 20
"""Size of `config.json` that is read."""

_INTERFACE = re.compile(r"[a-z0-9][a-z0-9._-]*\.[a-z0-9_-]+/[0-9][0-9a-z.]*\Z", re.IGNORECASE)


class _Part(Wire):
    model_config = ConfigDict(frozen=True, extra="allow")


class InterfaceSpec(_Part):
    """Types look like `docker.volumedriver/1.0`; unknown ones are kept."""

    Types: list[str] = []
    Socket: str = ""
    ProtocolScheme: str = ""

    @field_validator("Types")
    @classmethod
    def _types(cls, types: list[str]) -> list[str]:
        for text in types:
            if not _INTERFACE.match(text):
                raise ValueError(f"{text!r} is no interface type; want for example docker.volumedriver/1.0")
        return types

    @field_validator("Socket")
    @classmethod
    def _socket(cls, socket: str) -> str:
        if "/" in socket or socket in (".", ".."):
            raise ValueError(f"{socket!r} must be a file name, not a path")
        return socket


class EnvSpec(_Part):
    """Value None: not set unless a setting does."""

    Name: str
    Description: str = ""
    Settable: list[str] = []
    Value: str | None = None


class ArgsSpec(_Part):
    """Further arguments of the entrypoint."""

    Name: str = ""
    Description: str = ""
    Settable: list[str] = []
    Value: list[str] = []


class MountSpec(_Part):
    """Source None: given by a setting."""

    Name: str = ""
    Description: str = ""
    Settable: list[str] = []
    Source: str | None = None
    Destination: str = ""
    Type: str = ""
    Options: list[str] = []


class DeviceSpec(_Part):
    """Path None: given by a setting."""

    Name: str = ""
    Description: str = ""
    Settable: list[str] = []
    Path: str | None = None


class LinuxSpec(_Part):
    """What it may do beyond the default."""

    Capabilities: list[str] = []
    AllowAllDevices: bool = False
    Devices: list[DeviceSpec] = []


class NetworkSpec(_Part):
    """Type: "", "none", "host" or "bridge"."""

    Type: str = ""


class UserSpec(_Part):
    """Numeric IDs to run as."""

    UID: int = 0
    GID: int = 0


class PluginConfig(_Part):
    """The whole document, in the API's spelling."""

    Description: str = ""
    Documentation: str = ""
    DockerVersion: str = ""
    Interface: InterfaceSpec
    Entrypoint: list[str] = []
    WorkDir: str = ""
    User: UserSpec = UserSpec()
    Network: NetworkSpec = NetworkSpec()
    IpcHost: bool = False
    PidHost: bool = False
    PropagatedMount: str = ""
    Mounts: list[MountSpec] = []
    Env: list[EnvSpec] = []
    Args: ArgsSpec = ArgsSpec()
    Linux: LinuxSpec = LinuxSpec()
    rootfs: dict[str, Any] = {}

    @field_validator("PropagatedMount", "WorkDir")
    @classmethod
    def _absolute(cls, path: str) -> str:
        if path and (not path.startswith("/") or ".." in path.split("/")):
            raise ValueError(f"{path!r} must be an absolute path without ..")
        return path


def parse(raw: bytes) -> dict[str, Any]:
    """The config in the API's spelling, with every field present.

    Raises:
        InvalidParameter: not JSON or against the schema; names the field's path.
    """
    try:
        document = json.loads(raw)
    except ValueError as error:
        raise InvalidParameter(f"config.json: invalid JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidParameter("config.json: want an object")
    try:
        return PluginConfig.model_validate(document).model_dump()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise InvalidParameter(f"config.json: {where}: {first['msg']}") from None


def default_settings(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that a config begins with."""
    return {
        "Args": config["Args"]["Value"],
        "Devices": config["Linux"]["Devices"],
        "Env": [f"{item['Name']}={item['Value']}" for item in config["Env"] if item["Value"] is not None],
        "Mounts": config["Mounts"],
    }

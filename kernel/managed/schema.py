"""`config.json` of a managed plugin.

Source: Docker's "Plugin Config Version 1 of Plugin V2". Documents in the wild differ in the case of their keys and carry
unknown ones; both are accepted, and unknown keys are kept.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import ConfigDict, ValidationError, field_validator, model_validator

from kernel.contracts.common import Wire
from kernel.errors import InvalidParameter

MAX_BYTES = 1 << 20
"""Size of `config.json` that is read."""

NETWORKS = ("", "none", "null", "host", "bridge")

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
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
    """Value None: not set unless a setting does. Secret: a value that is set is kept apart and never shown."""

    Name: str
    Description: str = ""
    Settable: list[str] = []
    Value: str | None = None
    Secret: bool = False

    @field_validator("Name")
    @classmethod
    def _name(cls, name: str) -> str:
        return _setting_name(name)


class SecretSpec(_Part):
    """A setting that the plugin finds as a file below /run/secrets, on a tmpfs; never shown."""

    Name: str
    Description: str = ""

    @field_validator("Name")
    @classmethod
    def _name(cls, name: str) -> str:
        if not _FILE_NAME.match(name):
            raise ValueError(f"{name!r} must be a file name of letters, digits, '.', '_' and '-'")
        return name


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

    @field_validator("Destination")
    @classmethod
    def _inside(cls, path: str) -> str:
        return _absolute_path(path)


class DeviceSpec(_Part):
    """Path None: given by a setting."""

    Name: str = ""
    Description: str = ""
    Settable: list[str] = []
    Path: str | None = None

    @field_validator("Path")
    @classmethod
    def _absolute(cls, path: str | None) -> str | None:
        return _absolute_path(path) if path else path


class LinuxSpec(_Part):
    """What it may do beyond the default."""

    Capabilities: list[str] = []
    AllowAllDevices: bool = False
    Devices: list[DeviceSpec] = []


class NetworkSpec(_Part):
    """Type: "", "none", "host" or "bridge"."""

    Type: str = ""

    @field_validator("Type")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in NETWORKS:
            raise ValueError(f"{kind!r} is no network of a plugin; want one of none, host, bridge")
        return kind


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
    Secrets: list[SecretSpec] = []
    Os: str = ""
    Architecture: str = ""
    rootfs: dict[str, Any] = {}

    @field_validator("WorkDir")
    @classmethod
    def _absolute(cls, path: str) -> str:
        return _absolute_path(path) if path else path

    @field_validator("PropagatedMount")
    @classmethod
    def _below_root(cls, path: str) -> str:
        if path and path.strip("/.") == "":
            raise ValueError(f"{path!r} must name a folder below /")
        return _absolute_path(path) if path else path

    @model_validator(mode="after")
    def _runs(self) -> PluginConfig:
        if not self.Entrypoint or not self.Entrypoint[0]:
            raise ValueError("Entrypoint must name the program to run")
        if self.Interface.Types and not self.Interface.Socket:
            raise ValueError("Interface.Socket must name the socket, since Interface.Types is not empty")
        return self


def _absolute_path(path: str) -> str:
    if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise ValueError(f"{path!r} must be an absolute path without ..")
    return path


def _setting_name(name: str) -> str:
    if not name or "=" in name or "\0" in name:
        raise ValueError(f"{name!r} is no name of a variable")
    return name


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


def model(config: dict[str, Any]) -> PluginConfig:
    """A stored config, typed."""
    return PluginConfig.model_validate(config)

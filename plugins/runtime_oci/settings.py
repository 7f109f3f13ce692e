"""What the daemon can be told about runtimes, and checks of it that need more than a type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator

from plugin_sdk import InvalidParameter, setting
from plugin_sdk.containers import Ulimit
from plugin_sdk.files import parse_size
from plugins.runtime_oci.ulimits import parse_ulimit

MAX_PROFILE = 8 << 20


class RuntimeChoice(BaseModel):
    """An entry of `runtimes` in `daemon.json`: a program and arguments put before its command."""

    model_config = ConfigDict(extra="forbid")

    path: str
    runtimeArgs: list[str] = []


class RuntimeSettings(BaseModel):
    """dockerd's own options, where they concern the runtime."""

    model_config = ConfigDict(extra="forbid")

    default_runtime: str = setting(
        "", "Runtime for containers that name none (default: crun)", flag="--default-runtime"
    )
    runtimes: dict[str, RuntimeChoice] = setting(
        {}, "Register a further OCI runtime", flag="--add-runtime", key="runtimes", metavar="NAME=PATH"
    )
    default_ulimits: dict[str, Ulimit] = setting(
        {},
        "Ulimit for containers that do not set it",
        flag="--default-ulimit",
        key="default-ulimits",
        metavar="NAME=SOFT[:HARD]",
    )
    default_shm_size: int = setting(64 << 20, "Size of /dev/shm, for example 64m", flag="--default-shm-size")
    cgroup_parent: str = setting("", "Parent cgroup of all containers", flag="--cgroup-parent")
    exec_opts: list[str] = setting(
        [], "Runtime option: native.cgroupdriver=cgroupfs or =systemd", flag="--exec-opt", key="exec-opts"
    )
    init: bool = setting(False, "Run an init in every container that does not say otherwise", flag="--init")
    init_path: str = setting("", "Path of the init program", flag="--init-path")
    seccomp_profile: str = setting(
        "builtin", "Default seccomp profile: builtin, unconfined, or a file", flag="--seccomp-profile"
    )
    cdi_spec_dirs: list[str] = setting(
        ["/etc/cdi", "/var/run/cdi"], "Folder of CDI descriptions", flag="--cdi-spec-dir", key="cdi-spec-dirs"
    )
    userns_remap: str = setting(
        "", "User and group of the containers' IDs: default, USER[:GROUP] or UID[:GID]", flag="--userns-remap"
    )
    no_new_privileges: bool = setting(False, "Set no-new-privileges by default", flag="--no-new-privileges")
    default_cgroupns_mode: Literal["", "host", "private"] = setting(
        "", "Cgroup namespace of containers: private or host", flag="--default-cgroupns-mode"
    )
    default_ipc_mode: Literal["private", "shareable"] = setting(
        "private", "IPC namespace of containers: private or shareable", flag="--default-ipc-mode"
    )
    oom_score_adjust: int = setting(0, "The daemon's own oom_score_adj", flag="--oom-score-adjust")
    conmon: str = setting("", "Path of conmon, the containers' monitor")

    @field_validator("runtimes", mode="before")
    @classmethod
    def _runtimes(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: {"path": entry} if isinstance(entry, str) else entry for name, entry in value.items()}

    @field_validator("default_ulimits", mode="before")
    @classmethod
    def _ulimits(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {
            name: parse_ulimit(f"{name}={entry}") if isinstance(entry, str) else {"Name": name, **entry}
            for name, entry in value.items()
        }

    @field_validator("default_shm_size", mode="before")
    @classmethod
    def _shm_size(cls, value: Any) -> Any:
        try:
            return parse_size(value) if isinstance(value, str) else value
        except InvalidParameter as error:
            raise ValueError(str(error)) from None

    @field_validator("exec_opts")
    @classmethod
    def _exec_opts(cls, value: list[str]) -> list[str]:
        for option in value:
            key, _, choice = option.partition("=")
            if key.strip().lower() != "native.cgroupdriver":
                raise ValueError(f"Unknown option {option}: want native.cgroupdriver=cgroupfs or =systemd")
            if choice not in ("cgroupfs", "systemd"):
                raise ValueError(f"native.cgroupdriver option {choice} is not supported: want cgroupfs or systemd")
        return value

    @property
    def cgroup_driver(self) -> str:
        """ "cgroupfs" or "systemd"."""
        return self.exec_opts[-1].partition("=")[2] if self.exec_opts else "cgroupfs"


def read_profile(choice: str) -> dict[str, Any] | None:
    """The profile of `--seccomp-profile`: None for the built-in one, {} for unconfined. Blocking.

    Raises:
        InvalidParameter: the file cannot be read or is not a JSON object.
    """
    if choice in ("", "builtin", "default"):
        return None
    if choice == "unconfined":
        return {}
    try:
        with Path(choice).open("rb") as file:
            profile = json.loads(file.read(MAX_PROFILE))
    except OSError as error:
        raise InvalidParameter(f"opening seccomp profile ({choice}) failed: {error.strerror}") from None
    except ValueError as error:
        raise InvalidParameter(f"decoding seccomp profile ({choice}) failed: {error}") from None
    if not isinstance(profile, dict):
        raise InvalidParameter(f"decoding seccomp profile ({choice}) failed: want an object")
    return profile

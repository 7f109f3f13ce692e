"""Devices that vendors describe: the Container Device Interface. Blocking.

Source: the CDI specification, SPEC.md of cncf-tags/container-device-interface, versions up to 1.1. Descriptions are read as JSON;
those in YAML are not, and are named when a device is not found.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from plugin_sdk import InvalidParameter, Wire
from plugin_sdk.containers import DeviceMapping
from plugin_sdk.runtime import OciSpec
from plugins.runtime_oci import devices

DRIVER = "cdi"
"""`Driver` of a device request that names CDI devices."""
_NAME = re.compile(r"[a-zA-Z][\w.-]*/[a-zA-Z][\w.-]*=[a-zA-Z0-9]([\w.:-]*[a-zA-Z0-9])?\Z")
_LIMIT = 8 << 20


class Node(Wire):
    """A device node to be in the container."""

    path: str
    hostPath: str = ""
    permissions: str = ""


class BindMount(Wire):
    """A mount to be in the container."""

    hostPath: str
    containerPath: str
    type: str = "bind"
    options: list[str] = []


class Hook(Wire):
    """A program to run at a moment of the container's life."""

    hookName: str = Field(pattern="^(prestart|createRuntime|createContainer|startContainer|poststart|poststop)$")
    path: str
    args: list[str] = []
    env: list[str] = []
    timeout: int | None = None


class Edits(Wire):
    """What a device makes of a container."""

    env: list[str] = []
    deviceNodes: list[Node] = []
    mounts: list[BindMount] = []
    hooks: list[Hook] = []
    additionalGids: list[int] = []


class Described(Wire):
    """One device."""

    name: str
    containerEdits: Edits = Edits()


class Description(Wire):
    """One file: devices of a kind, and what all of them need."""

    cdiVersion: str
    kind: str
    devices: list[Described] = []
    containerEdits: Edits = Edits()


def wanted(requests: Iterable[dict[str, Any]]) -> list[str]:
    """Names of the CDI devices of a container's device requests.

    Raises InvalidParameter in dockerd's words for a request of another driver: there is none.
    """
    names: list[str] = []
    for request in requests:
        if request.get("Driver") != DRIVER or not request.get("DeviceIDs"):
            groups = request.get("Capabilities") or []
            text = "[" + " ".join("[" + " ".join(map(str, group)) + "]" for group in groups) + "]"
            raise InvalidParameter(
                f'could not select device driver "{request.get("Driver") or ""}" with capabilities: {text}'
            )
        names += map(str, request["DeviceIDs"])
    return names


def find(names: Sequence[str], folders: Iterable[str]) -> list[Edits]:
    """What the devices of these names (`vendor.com/class=name`) make of a container; what all of a kind need comes first.

    A file in a later folder takes precedence over one in an earlier.

    Raises InvalidParameter: a name that is none, or that no file describes.
    """
    known: dict[str, tuple[str, Edits, Edits]] = {}
    passed_over: list[str] = []
    for path in _files(folders):
        if path.suffix != ".json":
            passed_over.append(f"{path} is not JSON")
            continue
        try:
            with path.open("rb") as file:
                found = Description.model_validate(json.loads(file.read(_LIMIT)))
        except (OSError, ValueError) as error:
            text = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            passed_over.append(f"{path}: {text}")
            continue
        for device in found.devices:
            known[f"{found.kind}={device.name}"] = (str(path), found.containerEdits, device.containerEdits)
    missing = [name for name in names if not _NAME.match(name) or name not in known]
    if missing:
        hint = f" (passed over: {'; '.join(passed_over)})" if passed_over else ""
        raise InvalidParameter(f"CDI device injection failed: unresolvable CDI devices {', '.join(missing)}{hint}")
    common = {known[name][0]: known[name][1] for name in names}
    return [*common.values(), *(known[name][2] for name in names)]


def _files(folders: Iterable[str]) -> list[Path]:
    found: list[Path] = []
    for folder in folders:
        if os.path.isdir(folder):
            found += sorted(path for path in Path(folder).iterdir() if path.suffix in (".json", ".yaml", ".yml"))
    return found


def apply(spec: OciSpec, edits: Iterable[Edits]) -> None:
    """Change an OCI spec, in place. Raises InvalidParameter: a device that is not there, in dockerd's words."""
    process, linux = spec["process"], spec["linux"]
    for edit in edits:
        replaced = {entry.partition("=")[0] for entry in edit.env}
        process["env"] = [entry for entry in process["env"] if entry.partition("=")[0] not in replaced] + edit.env
        process["user"]["additionalGids"] = [*process["user"]["additionalGids"], *edit.additionalGids]
        mappings = [
            DeviceMapping(
                PathOnHost=node.hostPath or node.path, PathInContainer=node.path, CgroupPermissions=node.permissions
            )
            for node in edit.deviceNodes
        ]
        nodes, rules = devices.gather(mappings)
        paths = {node["path"] for node in nodes}
        linux["devices"] = [node for node in linux.get("devices", []) if node["path"] not in paths] + nodes
        linux["resources"]["devices"] = [*linux["resources"]["devices"], *rules]
        for mount in edit.mounts:
            spec["mounts"].append(
                {
                    "destination": mount.containerPath,
                    "type": mount.type or "bind",
                    "source": mount.hostPath,
                    "options": mount.options or ["rbind", "nosuid", "nodev"],
                }
            )
        for hook in edit.hooks:
            made = hook.model_dump(include={"path", "args", "env", "timeout"}, exclude_none=True)
            spec.setdefault("hooks", {}).setdefault(hook.hookName, []).append(made)

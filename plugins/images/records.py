"""From an image's configuration document to the `Image` that is stored, and back to Docker's shapes."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from plugin_sdk import InvalidParameter
from plugin_sdk.containers import ContainerConfig
from plugin_sdk.images import HistoryStep, Image

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm", "i686": "386", "i386": "386"}
_SHOWN_WHEN_SET = (
    "ExposedPorts", "Healthcheck", "ArgsEscaped", "NetworkDisabled", "MacAddress", "StopSignal", "StopTimeout", "Shell",
)  # fmt: skip
_NULL_WHEN_EMPTY = ("Env", "Cmd", "Volumes", "Entrypoint", "OnBuild", "Labels")
_IMAGE_FIELDS = (
    "User", "ExposedPorts", "Env", "Cmd", "Healthcheck", "ArgsEscaped", "Volumes", "WorkingDir", "Entrypoint", "OnBuild",
    "Labels", "StopSignal", "Shell",
)  # fmt: skip


def host_architecture() -> str:
    """Of this machine, in the words of the image spec."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def digest(content: bytes) -> str:
    """`sha256:...`."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """Chain IDs of a stack, the lowest first. Source: OCI image spec, "Layer ChainID"."""
    chains: list[str] = []
    for diff_id in diff_ids:
        chains.append(digest(f"{chains[-1]} {diff_id}".encode()) if chains else diff_id)
    return chains


def encode(document: Mapping[str, Any]) -> bytes:
    """A configuration document as bytes, the same for equal documents."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def image_of(raw: bytes, *, size: int = 0, parent: str = "") -> Image:
    """An image as its configuration document describes it, without names.

    Raises InvalidParameter when it is no such document.
    """
    try:
        document = json.loads(raw)
        text = raw.decode()
        rootfs = document.get("rootfs") or {}
        diff_ids = [str(each) for each in rootfs.get("diff_ids") or ()]
        if rootfs.get("type", "layers") != "layers":
            raise ValueError(f"its rootfs is of type {rootfs['type']!r}")
        chains = chain_ids(diff_ids)
        return Image(
            Id=digest(raw),
            Raw=text,
            Created=document.get("created") or "",
            Author=document.get("author") or "",
            Architecture=document.get("architecture") or "",
            Variant=document.get("variant") or "",
            Os=document.get("os") or "linux",
            Config=ContainerConfig.model_validate(document.get("config") or {}),
            History=[HistoryStep.model_validate(step) for step in document.get("history") or ()],
            DiffIDs=diff_ids,
            ChainID=chains[-1] if chains else "",
            Size=size,
            Parent=parent,
            Comment=document.get("comment") or "",
            DockerVersion=document.get("docker_version") or "",
        )
    except (ValueError, AttributeError, TypeError, ValidationError) as error:
        raise InvalidParameter(f"invalid image configuration: {str(error).splitlines()[0]}") from None


def config_document(config: ContainerConfig) -> dict[str, Any]:
    """A container configuration as Docker writes it: empty lists and maps are null, some fields only there when set."""
    document = config.model_dump()
    for name in _NULL_WHEN_EMPTY:
        if not document[name] and not (name in ("Cmd", "Entrypoint") and document[name] == []):
            document[name] = None
    for name in _SHOWN_WHEN_SET:
        if not document[name]:
            del document[name]
    if config.Healthcheck is not None:
        document["Healthcheck"] = {name: value for name, value in document["Healthcheck"].items() if value}
    return document


def image_config(config: ContainerConfig) -> dict[str, Any]:
    """`Config` of an image from API 1.50 on: only what belongs to an image, and only what is set."""
    document = config_document(config)
    return {name: document[name] for name in _IMAGE_FIELDS if document.get(name)}

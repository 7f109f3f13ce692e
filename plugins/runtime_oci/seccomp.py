"""Seccomp profiles: Docker's format (rules that depend on capabilities, machine and kernel) turned into the OCI spec's.

`seccomp.json` is the built-in profile: the system calls that Docker's default profile allows, in the same format, so
that it takes the same way as a profile of a user's own.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from plugin_sdk import InvalidParameter, Wire

_ACTION = r"^SCMP_ACT_[A-Z_]+$"
_OPTIONAL = ("architectures", "flags", "listenerPath", "listenerMetadata")

BUILTIN = Path(__file__).with_name("seccomp.json")

_MACHINES = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "loongarch64": ("loong64", "SCMP_ARCH_LOONGARCH64"),
}
"""`uname -m` to Go's name and libseccomp's."""


class Condition(Wire):
    """When a rule applies, or does not."""

    caps: list[str] = []
    arches: list[str] = []
    minKernel: str = ""


class Argument(Wire):
    """A comparison with one argument of the call."""

    index: int = Field(default=0, ge=0, le=5)
    value: int = Field(default=0, ge=0, lt=1 << 64)
    valueTwo: int = Field(default=0, ge=0, lt=1 << 64)
    op: str = Field(pattern=r"^SCMP_CMP_[A-Z_]+$")


class Rule(Wire):
    """What becomes of some calls."""

    name: str = ""
    names: list[str] = []
    action: str = Field(pattern=_ACTION)
    errnoRet: int | None = None
    args: list[Argument] = []
    includes: Condition = Condition()
    excludes: Condition = Condition()


class ArchMapping(Wire):
    """The further architectures of a machine."""

    architecture: str = ""
    subArchitectures: list[str] = []


class Profile(Wire):
    """A profile in Docker's format; the OCI spec's own is a part of it."""

    defaultAction: str = Field(pattern=_ACTION)
    defaultErrnoRet: int | None = None
    architectures: list[str] = []
    archMap: list[ArchMapping] = []
    flags: list[str] = []
    listenerPath: str = ""
    listenerMetadata: str = ""
    syscalls: list[Rule] = []


@cache
def supported() -> bool:
    """The kernel has seccomp filters."""
    return Path("/proc/sys/kernel/seccomp/actions_avail").exists()


@cache
def builtin(capabilities: tuple[str, ...]) -> dict[str, Any]:
    """The built-in profile for a container with these capabilities. Shared: do not change it."""
    return oci(json.loads(BUILTIN.read_bytes()), capabilities)


def parse(text: str) -> dict[str, Any]:
    """The profile that a client sent with `--security-opt seccomp=`. Raises InvalidParameter in dockerd's words."""
    try:
        profile = json.loads(text)
    except ValueError as error:
        raise InvalidParameter(f"decoding seccomp profile failed: {error}") from None
    if not isinstance(profile, dict):
        raise InvalidParameter("decoding seccomp profile failed: want an object")
    oci(profile, ())
    return profile


def oci(document: Mapping[str, Any], capabilities: Sequence[str]) -> dict[str, Any]:
    """The OCI spec's `linux.seccomp` of a profile in Docker's format, or in the OCI spec's own.

    Raises:
        InvalidParameter: it is neither; names the place.
    """
    try:
        profile = Profile.model_validate(dict(document))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidParameter(f"decoding seccomp profile failed: {where}: {first['msg']}") from None
    if profile.architectures and profile.archMap:
        raise InvalidParameter("seccomp profile: 'architectures' and 'archMap' were specified, want one of them")
    go_name, architecture = _MACHINES.get(platform.machine(), (platform.machine(), ""))
    found = profile.model_dump(include={"defaultAction", "defaultErrnoRet", *_OPTIONAL}, exclude_none=True)
    found = {key: value for key, value in found.items() if value not in ([], "")}
    for entry in profile.archMap:
        if architecture and entry.architecture == architecture:
            found["architectures"] = [architecture, *entry.subArchitectures]
    kept = [rule for rule in profile.syscalls if _applies(rule, frozenset(capabilities), go_name)]
    found["syscalls"] = [_rule(rule) for rule in kept]
    return found


def _rule(rule: Rule) -> dict[str, Any]:
    if bool(rule.name) == bool(rule.names):
        raise InvalidParameter("seccomp profile: a rule wants either 'name' or 'names' of system calls")
    made: dict[str, Any] = {"names": rule.names or [rule.name], "action": rule.action}
    if rule.errnoRet is not None:
        made["errnoRet"] = rule.errnoRet
    if rule.args:
        made["args"] = [argument.model_dump() for argument in rule.args]
    return made


def _applies(rule: Rule, capabilities: frozenset[str], machine: str) -> bool:
    wanted, unwanted = rule.includes, rule.excludes
    return (
        capabilities.issuperset(wanted.caps)
        and (not wanted.arches or machine in wanted.arches)
        and not capabilities.intersection(unwanted.caps)
        and machine not in unwanted.arches
        and _kernel() >= _version(wanted.minKernel)
        and not (unwanted.minKernel and _kernel() >= _version(unwanted.minKernel))
    )


def _version(text: str) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


@cache
def _kernel() -> tuple[int, ...]:
    return _version(os.uname().release)

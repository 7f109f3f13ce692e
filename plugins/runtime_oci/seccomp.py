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

from plugin_sdk import InvalidParameter

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

_RULE_KEYS = frozenset({"name", "names", "action", "errnoRet", "args", "comment", "includes", "excludes"})


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


def oci(profile: Mapping[str, Any], capabilities: Sequence[str]) -> dict[str, Any]:
    """The OCI spec's `linux.seccomp` of a profile in Docker's format, or in the OCI spec's own.

    Raises:
        InvalidParameter: it is neither.
    """
    go_name, architecture = _MACHINES.get(platform.machine(), (platform.machine(), ""))
    found: dict[str, Any] = {"defaultAction": _action(profile.get("defaultAction"), "defaultAction")}
    for key in ("defaultErrnoRet", "flags", "listenerPath", "listenerMetadata"):
        if profile.get(key) is not None:
            found[key] = profile[key]
    if profile.get("architectures") and profile.get("archMap"):
        raise InvalidParameter("seccomp profile: 'architectures' and 'archMap' were specified, want one of them")
    if profile.get("architectures"):
        found["architectures"] = list(profile["architectures"])
    for entry in _list(profile, "archMap"):
        if architecture and entry.get("architecture") == architecture:
            found["architectures"] = [architecture, *(entry.get("subArchitectures") or ())]
    found["syscalls"] = [
        _rule(rule) for rule in _list(profile, "syscalls") if _applies(rule, frozenset(capabilities), go_name)
    ]
    return found


def _list(profile: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    value = profile.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise InvalidParameter(f"seccomp profile: {key!r} wants a list of objects")
    return value


def _action(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.startswith("SCMP_ACT_"):
        raise InvalidParameter(f"seccomp profile: {where}: want an action such as SCMP_ACT_ERRNO, got {value!r:.80}")
    return value


def _rule(rule: dict[str, Any]) -> dict[str, Any]:
    if unknown := rule.keys() - _RULE_KEYS:
        raise InvalidParameter(f"seccomp profile: a rule has the unknown key {sorted(unknown)[0]!r:.80}")
    if rule.get("name") and rule.get("names"):
        raise InvalidParameter("seccomp profile: 'name' and 'names' were specified in one rule, want one of them")
    names = rule.get("names") or [rule.get("name")]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidParameter("seccomp profile: a rule wants a list of names of system calls")
    made: dict[str, Any] = {"names": names, "action": _action(rule.get("action"), "action")}
    if rule.get("errnoRet") is not None:
        made["errnoRet"] = rule["errnoRet"]
    if rule.get("args"):
        made["args"] = rule["args"]
    return made


def _applies(rule: Mapping[str, Any], capabilities: frozenset[str], machine: str) -> bool:
    wanted, unwanted = rule.get("includes") or {}, rule.get("excludes") or {}
    return (
        capabilities.issuperset(wanted.get("caps") or ())
        and (not wanted.get("arches") or machine in wanted["arches"])
        and not capabilities.intersection(unwanted.get("caps") or ())
        and machine not in (unwanted.get("arches") or ())
        and _kernel() >= _version(wanted.get("minKernel") or "")
        and not (unwanted.get("minKernel") and _kernel() >= _version(unwanted["minKernel"]))
    )


def _version(text: str) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


@cache
def _kernel() -> tuple[int, ...]:
    return _version(os.uname().release)

"""Device nodes and the device cgroup: what every container may use, and what `--device` and Privileged add.

Source: OCI runtime spec, config-linux.md, "Devices" and "Allowed Device list"; dockerd's defaults.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from plugin_sdk import InvalidParameter
from plugin_sdk.containers import DeviceMapping

Device = dict[str, Any]
Rule = dict[str, Any]

_RULE = re.compile(r"(a|b|c) ((?:\d+|\*)):((?:\d+|\*)) ([rwm]{1,3})\Z")
_NO_DEVICES_OF = frozenset({"pts", "shm", "fd", "mqueue", "console", ".lxc", ".lxd-mounts", ".udev"})
"""Entries of /dev that a privileged container gets anew, or not at all."""


def _rule(allow: bool, kind: str, major: int | None, minor: int | None, access: str) -> Rule:
    rule: Rule = {"allow": allow, "type": kind, "access": access}
    if major is not None:
        rule["major"] = major
    if minor is not None:
        rule["minor"] = minor
    return rule


def default_rules() -> list[Rule]:
    """Nothing but: make any node, and use null, zero, full, random, urandom, tty, console, ptmx, the ptys, tun."""
    used = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (10, 200), (136, None))
    return [
        {"allow": False, "access": "rwm"},
        _rule(True, "c", None, None, "m"),
        _rule(True, "b", None, None, "m"),
        *(_rule(True, "c", major, minor, "rwm") for major, minor in used),
    ]


ALL_RULE: Rule = {"allow": True, "access": "rwm"}
"""What a privileged container may."""


def check_rule(text: str) -> Rule:
    """`c 13:* rwm` of `--device-cgroup-rule`. Raises InvalidParameter in dockerd's words."""
    found = _RULE.match(text)
    if not found:
        raise InvalidParameter(f"invalid device cgroup rule format: '{text}'")
    kind, major, minor, access = found.groups()
    numbers = [None if number == "*" else int(number) for number in (major, minor)]
    return _rule(True, kind, numbers[0], numbers[1], access)


def check_mapping(mapping: DeviceMapping) -> None:
    """Raises InvalidParameter for permissions that are none, or a path that is not absolute."""
    access = mapping.CgroupPermissions
    if access and (set(access) - set("rwm") or len(set(access)) != len(access)):
        raise InvalidParameter(f"invalid device mode: {access}")
    if not mapping.PathOnHost:
        raise InvalidParameter("invalid device: no path on the host")


def gather(mappings: Iterable[DeviceMapping]) -> tuple[list[Device], list[Rule]]:
    """Nodes and rules of `--device`; a folder gives all devices below it. Blocking.

    Raises:
        InvalidParameter: not a device, in dockerd's words.
    """
    devices: list[Device] = []
    rules: list[Rule] = []
    for mapping in mappings:
        inside = mapping.PathInContainer or mapping.PathOnHost
        access = mapping.CgroupPermissions or "rwm"
        host = os.path.realpath(mapping.PathOnHost)
        problem = f'error gathering device information while adding custom device "{mapping.PathOnHost}"'
        try:
            found = list(_below(host, inside)) if os.path.isdir(host) else [_device(host, inside)]
        except OSError as error:
            raise InvalidParameter(f"{problem}: {str(error.strerror).lower()}") from None
        found_devices = [device for device in found if device is not None]
        if not found_devices:
            raise InvalidParameter(f"{problem}: not a device node")
        for device in found_devices:
            devices.append(device)
            rules.append(_rule(True, device["type"], device["major"], device["minor"], access))
    return devices, rules


def host_devices() -> list[Device]:
    """All nodes of the host's /dev that a privileged container gets. Blocking."""
    found = []
    with os.scandir("/dev") as entries:
        for entry in entries:
            if entry.name in _NO_DEVICES_OF or entry.is_symlink():
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    found += list(_below(entry.path, entry.path))
                elif (device := _device(entry.path, entry.path)) is not None:
                    found.append(device)
            except OSError:
                continue  # it went away while we looked
    return found


def numbers(path: str) -> tuple[int, int]:
    """Major and minor of a block device. Raises InvalidParameter. Blocking."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise InvalidParameter(f"{path}: {str(error.strerror).lower()}") from None
    if not stat.S_ISBLK(status.st_mode):
        raise InvalidParameter(f"{path}: not a block device")
    return os.major(status.st_rdev), os.minor(status.st_rdev)


def _below(folder: str, inside: str) -> Iterator[Device]:
    for place, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(place, name)
            device = _device(str(path), os.path.join(inside, path.relative_to(folder)))
            if device is not None:
                yield device


def _device(path: str, inside: str) -> Device | None:
    status = os.lstat(path)
    if stat.S_ISCHR(status.st_mode):
        kind = "c"
    elif stat.S_ISBLK(status.st_mode):
        kind = "b"
    else:
        return None
    return {
        "path": inside,
        "type": kind,
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
    }

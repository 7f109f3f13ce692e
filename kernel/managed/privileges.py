"""What a plugin may do beyond an ordinary container, computed from its config; granted by the operator at install.

Source: Docker's `GET /plugins/privileges` and "plugin install"; names and order are dockerd's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kernel.contracts.managed import Privilege
from kernel.errors import Forbidden
from kernel.managed import schema


def of(config: Mapping[str, Any]) -> list[Privilege]:
    """The privileges that a config asks for."""
    told = schema.model(dict(config))
    found: list[Privilege] = []
    if told.Network.Type not in ("", "null", "none", "bridge"):
        found.append(Privilege("network", "permissions to access a network", (told.Network.Type,)))
    if told.IpcHost:
        found.append(Privilege("host ipc namespace", "allow access to host ipc namespace", ("true",)))
    if told.PidHost:
        found.append(Privilege("host pid namespace", "allow access to host pid namespace", ("true",)))
    found += [
        Privilege("mount", "host path to mount", (mount.Source,)) for mount in told.Mounts if mount.Source is not None
    ]
    found += [
        Privilege("device", "host device to access", (device.Path,))
        for device in told.Linux.Devices
        if device.Path is not None
    ]
    if told.Linux.AllowAllDevices:
        found.append(Privilege("allow-all-devices", "allow 'rwm' access to all devices", ("true",)))
    if told.Linux.Capabilities:
        description = "list of additional capabilities required"
        found.append(Privilege("capabilities", description, tuple(told.Linux.Capabilities)))
    return found


def check(asked: Sequence[Privilege], granted: Iterable[Privilege]) -> None:
    """Whether exactly what is asked for was granted, whatever the order.

    Raises:
        Forbidden: names what differs.
    """
    wanted, given = Counter(map(_key, asked)), Counter(map(_key, granted))
    if wanted == given:
        return
    lacking = ", ".join(_text(key) for key in (wanted - given))
    beyond = ", ".join(_text(key) for key in (given - wanted))
    parts = [f"not granted: {lacking}" if lacking else "", f"granted and not asked for: {beyond}" if beyond else ""]
    raise Forbidden(f"incorrect privileges: {'; '.join(filter(None, parts))}")


def _key(privilege: Privilege) -> tuple[str, tuple[str, ...]]:
    return privilege.name, tuple(sorted(privilege.value))


def _text(key: tuple[str, tuple[str, ...]]) -> str:
    return f"{key[0]} [{', '.join(key[1])}]"

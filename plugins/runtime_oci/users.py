"""Who a container's process is: USER[:GROUP] looked up in the container's own /etc/passwd and /etc/group."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from plugin_sdk import InvalidParameter
from plugins.runtime_oci.openroot import read_in

MAX_ID = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class Identity:
    """IDs, supplementary groups (the primary one among them) and home folder."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def identify(root: Path | str, user: str, extra: Iterable[str] = ()) -> Identity:
    """Look a user up. Blocking.

    Args:
        root: the container's root file system on the host.
        user: `Config.User`: "", USER, UID, each with an optional :GROUP or :GID.
        extra: `HostConfig.GroupAdd`: names or numbers.

    Raises:
        InvalidParameter: no such user or group, in dockerd's words.
    """
    return resolve(read_in(root, "/etc/passwd"), read_in(root, "/etc/group"), user, extra)


def resolve(passwd: str, group: str, user: str, extra: Iterable[str] = ()) -> Identity:
    """`identify` on the two files' texts. A number need not be in them; a name must."""
    name, colon, group_name = user.partition(":")
    name = name or "0"
    entry = next((line for line in _lines(passwd, 7) if line[0] == name), None)
    if entry is None and name.isdecimal():
        entry = next((line for line in _lines(passwd, 7) if line[2] == name), None)
    if entry is not None:
        uid, gid, login, home = _number(entry[2]), _number(entry[3]), entry[0], entry[5] or "/"
    elif name.isdecimal():
        uid, gid, login, home = _number(name), 0, "", "/"
    elif name.removeprefix("-").isdecimal():
        raise InvalidParameter(f"uids and gids must be in range 0-{MAX_ID}")
    else:
        raise InvalidParameter(f"unable to find user {name}: no matching entries in passwd file")
    groups = list(_lines(group, 4))
    if colon and group_name:
        # An explicit group replaces the memberships, as dockerd has it.
        gid, supplementary = _group(groups, group_name), []
    else:
        supplementary = [_number(line[2]) for line in groups if login and login in line[3].split(",")]
    supplementary += [_group(groups, wanted, "Unable") for wanted in extra]
    return Identity(uid, gid, tuple(dict.fromkeys([gid, *supplementary])), home)


def _lines(text: str, fields: int) -> Iterable[list[str]]:
    for line in text.splitlines():
        parts = line.strip().split(":")
        if len(parts) >= fields - 1 and parts[2].isdecimal():
            yield parts + [""] * (fields - len(parts))


def _group(groups: list[list[str]], wanted: str, unable: str = "unable") -> int:
    for line in groups:
        if line[0] == wanted:
            return _number(line[2])
    if wanted.isdecimal():
        return _number(wanted)
    raise InvalidParameter(f"{unable} to find group {wanted}: no matching entries in group file")


def _number(text: str) -> int:
    number = int(text[:12])
    if number > MAX_ID:
        raise InvalidParameter(f"uids and gids must be in range 0-{MAX_ID}")
    return number

"""`--userns-remap`: which subordinate IDs the containers' users have on the host.

Source: user_namespaces(7), subuid(5); dockerd's documentation, "Isolate containers with a user namespace".
"""

from __future__ import annotations

import grp
import pwd
import subprocess
from pathlib import Path

from plugin_sdk import IdMap, IdRange, InvalidParameter
from plugin_sdk.containers import HostConfig

DEFAULT_USER = "dockremap"
SUBUID, SUBGID = Path("/etc/subuid"), Path("/etc/subgid")
_CREATE_DEADLINE = 20.0


def read_remap(choice: str) -> IdMap | None:
    """The IDs of `default`, `user`, `user:group`, `uid` or `uid:gid`; None for "". Blocking.

    "default" is the user and group `dockremap`, which are made where they do not exist.

    Raises InvalidParameter: no such user or group, or /etc/subuid or /etc/subgid give it nothing.
    """
    if not choice:
        return None
    if choice == "default":
        _make_default()
        choice = DEFAULT_USER
    user, colon, group = choice.partition(":")
    if not user or (colon and not group):
        raise InvalidParameter(f"invalid --userns-remap {choice!r}: want default, USER, USER:GROUP, UID or UID:GID")
    try:
        account = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except KeyError:
        raise InvalidParameter(f"--userns-remap: there is no user {user!r} on this host") from None
    name = group or account.pw_name
    try:
        members = grp.getgrgid(int(name)) if name.isdecimal() else grp.getgrnam(name)
    except KeyError:
        raise InvalidParameter(f"--userns-remap: there is no group {name!r} on this host") from None
    return IdMap(
        Uids=ranges(SUBUID, account.pw_name, account.pw_uid), Gids=ranges(SUBGID, members.gr_name, members.gr_gid)
    )


def ranges(file: Path, name: str, number: int) -> list[IdRange]:
    """All ranges that a file gives to a name or its number, one behind the other from the container's 0 on.

    Raises InvalidParameter without any.
    """
    found: list[IdRange] = []
    inside = 0
    try:
        lines = file.read_text().splitlines()
    except OSError as error:
        raise InvalidParameter(f"--userns-remap: {file}: {error.strerror}") from None
    for line in lines:
        owner, _, rest = line.strip().partition(":")
        first, _, size = rest.partition(":")
        if owner in (name, str(number)) and first.isdecimal() and size.isdecimal() and int(size):
            start, end = int(first), int(first) + int(size)
            if any(part.Host < end and start < part.Host + part.Size for part in found):
                raise InvalidParameter(
                    f"--userns-remap: {file} gives {name} the IDs {start} to {end - 1} twice: leave one line"
                )
            found.append(IdRange(Inside=inside, Host=int(first), Size=int(size)))
            inside += int(size)
    if not found:
        raise InvalidParameter(f"--userns-remap: {file} gives {name} no IDs: add a line such as {name}:100000:65536")
    return found


def _make_default() -> None:
    """The user and group `dockremap`, with subordinate IDs as useradd(8) chooses them."""
    try:
        pwd.getpwnam(DEFAULT_USER)
    except KeyError:
        command = [
            "useradd",
            "--system",
            "--user-group",
            "--no-create-home",
            "--shell",
            "/usr/sbin/nologin",
            DEFAULT_USER,
        ]
        _run(command)
    for file, option in ((SUBUID, "--add-subuids"), (SUBGID, "--add-subgids")):
        lines = file.read_text().splitlines() if file.exists() else []
        if not any(line.startswith(f"{DEFAULT_USER}:") for line in lines):
            first = max([100_000, *(_end(line) for line in lines)])
            _run(["usermod", option, f"{first}-{first + 65_535}", DEFAULT_USER])


def _end(line: str) -> int:
    _, first, size = ([*line.split(":"), "", "", ""])[:3]
    return int(first) + int(size) if first.isdecimal() and size.isdecimal() else 0


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_CREATE_DEADLINE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InvalidParameter(f"--userns-remap=default: {command[0]}: {error}") from None
    if done.returncode != 0:
        raise InvalidParameter(f"--userns-remap=default: {command[0]}: {done.stderr.strip()}")


def check_remapped(host: HostConfig) -> None:
    """What a container in a user namespace cannot have. Raises InvalidParameter in dockerd's words."""
    if host.Privileged:
        raise InvalidParameter(
            "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when"
            " running privileged mode"
        )
    if host.NetworkMode == "host":
        raise InvalidParameter("cannot share the host's network namespace when user namespaces are enabled")
    if host.PidMode == "host":
        raise InvalidParameter("cannot share the host PID namespace when user namespaces are enabled")


def oci_ranges(ranges_: list[IdRange]) -> list[dict[str, int]]:
    """The OCI spec's `uidMappings` or `gidMappings`."""
    return [{"containerID": part.Inside, "hostID": part.Host, "size": part.Size} for part in ranges_]

"""The OCI spec's `process`: command, environment, user, capabilities; for a container and for an exec in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from plugin_sdk import InvalidParameter
from plugin_sdk.containers import ContainerRecord, ExecSpec
from plugin_sdk.runtime import OciSpec
from plugins.runtime_oci import capabilities, users
from plugins.runtime_oci.messages import EXEC

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INIT_INSIDE = "/sbin/docker-init"


def merge_env(*parts: Iterable[str]) -> list[str]:
    """Later entries of a name win and keep the first one's place; an entry without `=` removes the name."""
    found: dict[str, str] = {}
    for entry in (entry for part in parts for entry in part):
        name, equals, _ = entry.partition("=")
        if equals:
            found[name] = entry
        else:
            found.pop(name, None)
    return list(found.values())


def capability_sets(names: Sequence[str], uid: int) -> dict[str, list[str]]:
    """As execve(2) would leave them: a user other than root has only the bounding set."""
    kept = list(names)
    return {"bounding": kept, "effective": kept if uid == 0 else [], "permitted": kept if uid == 0 else []}


def user(identity: users.Identity) -> dict[str, Any]:
    """The spec's `process.user`."""
    return {"uid": identity.uid, "gid": identity.gid, "additionalGids": list(identity.groups)}


def for_container(
    container: ContainerRecord,
    identity: users.Identity,
    *,
    hostname: str,
    env: Iterable[str],
    init: bool,
) -> dict[str, Any]:
    """The first process, without limits and security, which the caller adds.

    Raises:
        InvalidParameter: there is no command.
    """
    config, host = container.Config, container.HostConfig
    command = [container.Path, *container.Args] if container.Path else list(container.Args)
    if not command:
        raise InvalidParameter("no command specified")
    names = capabilities.effective(host.CapAdd, host.CapDrop, privileged=host.Privileged)
    made: dict[str, Any] = {
        "terminal": config.Tty,
        "user": user(identity),
        "args": [INIT_INSIDE, "--", *command] if init else command,
        "env": merge_env(
            [DEFAULT_PATH, f"HOSTNAME={hostname}", *(["TERM=xterm"] if config.Tty else [])],
            config.Env,
            [f"HOME={identity.home}"] if "HOME" not in container.env else [],
            env,
        ),
        "cwd": config.WorkingDir or "/",
        "capabilities": capability_sets(names, identity.uid),
        "oomScoreAdj": host.OomScoreAdj,
    }
    if config.Tty and all(host.ConsoleSize[:2]):
        made["consoleSize"] = {"height": host.ConsoleSize[0], "width": host.ConsoleSize[1]}
    return made


def for_exec(spec: OciSpec, container: ContainerRecord, asked: ExecSpec, root: Path | str) -> dict[str, Any]:
    """A further process: the container's own, changed as asked. Blocking: looks the user up.

    Args:
        spec: the running container's.
        root: its root file system as it sees it now.

    Raises:
        InvalidParameter: no such user or group, or a relative working directory.
    """
    if asked.cwd and not asked.cwd.startswith("/"):
        raise InvalidParameter(f"{EXEC}Cwd must be an absolute path: unknown")
    own = spec["process"]
    made = {key: value for key, value in own.items() if key not in ("consoleSize", "ioPriority", "scheduler")}
    home = [f"HOME={container.env['HOME']}"] if "HOME" in container.env else []
    if asked.user:
        identity = users.identify(root, asked.user, container.HostConfig.GroupAdd)
        made["user"] = user(identity)
        home = home or [f"HOME={identity.home}"]
        made["capabilities"] = capability_sets(own["capabilities"]["bounding"], identity.uid)
    if asked.privileged:
        everything = list(capabilities.available())
        made["capabilities"] = {"bounding": everything, "effective": everything, "permitted": everything}
    made["args"] = list(asked.argv)
    # A terminal's name belongs to who has a terminal, unless the container's own configuration gives one.
    term = [] if "TERM" in container.env else ["TERM=xterm" if asked.tty else "TERM"]
    made["env"] = merge_env(own["env"], home, term, asked.env)
    made["cwd"] = asked.cwd or own["cwd"]
    made["terminal"] = asked.tty
    if asked.tty and all(asked.console):
        made["consoleSize"] = {"height": asked.console[0], "width": asked.console[1]}
    return made

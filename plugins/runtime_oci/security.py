"""`--security-opt`: what it says, and what the host can do of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from plugin_sdk import InvalidParameter


@dataclass(slots=True)
class SecurityOptions:
    """Parsed options.

    Attributes:
        seccomp: "" for the default profile, "unconfined", or a profile as JSON.
        apparmor: name of a profile, "unconfined", or "".
        no_new_privileges: None when nothing was said.
    """

    seccomp: str = ""
    apparmor: str = ""
    no_new_privileges: bool | None = None
    writable_cgroups: bool = False


def parse_security_options(options: Iterable[str]) -> SecurityOptions:
    """Raises InvalidParameter in dockerd's words. SELinux labels are accepted: they matter on no host without it."""
    found = SecurityOptions()
    for option in options:
        if option == "no-new-privileges":
            found.no_new_privileges = True
            continue
        if option == "writable-cgroups":
            found.writable_cgroups = True
            continue
        key, separator, value = option.partition("=")
        if not separator:
            key, separator, value = option.partition(":")
        if not separator:
            raise InvalidParameter(f'invalid --security-opt 1: "{option}"')
        match key:
            case "label":
                pass
            case "apparmor":
                found.apparmor = value
            case "seccomp":
                found.seccomp = "" if value == "builtin" else value
            case "no-new-privileges":
                found.no_new_privileges = _boolean(option, value)
            case "writable-cgroups":
                found.writable_cgroups = _boolean(option, value)
            case _:
                raise InvalidParameter(f'invalid --security-opt 2: "{option}"')
    return found


def _boolean(option: str, value: str) -> bool:
    if value.lower() in ("1", "t", "true"):
        return True
    if value.lower() in ("0", "f", "false"):
        return False
    raise InvalidParameter(f'invalid --security-opt 2: "{option}"')


@cache
def apparmor_enabled() -> bool:
    """The kernel enforces AppArmor profiles."""
    try:
        return Path("/sys/module/apparmor/parameters/enabled").read_text().startswith("Y")
    except OSError:
        return False


@cache
def selinux_enabled() -> bool:
    """SELinux is mounted, enforcing or not."""
    return Path("/sys/fs/selinux/enforce").exists()


def apparmor_profile(asked: str, *, privileged: bool) -> str:
    """The profile to confine with: Docker's default one where somebody has loaded it. "": none."""
    if not apparmor_enabled() or asked == "unconfined" or (privileged and not asked):
        return ""
    if asked:
        return asked
    try:
        loaded = Path("/sys/kernel/security/apparmor/profiles").read_text()
    except OSError:
        return ""
    return "docker-default" if "docker-default (" in loaded else ""

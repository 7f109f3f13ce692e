"""The files that tell a container about its network: /etc/hosts, /etc/hostname and /etc/resolv.conf. Blocking."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from plugin_sdk import IdMap
from plugin_sdk.runtime import OciMount

EMBEDDED_DNS = "127.0.0.11"
HOSTS, HOSTNAME, RESOLV = "hosts", "hostname", "resolv.conf"

_HOST_RESOLV = Path("/etc/resolv.conf")
_HOST_HOSTS = Path("/etc/hosts")
_STUB_UPSTREAM = Path("/run/systemd/resolve/resolv.conf")
_STUB = "127.0.0.53"
_LAST_RESORT = ("8.8.8.8", "8.8.4.4")
_PREAMBLE = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::0\tip6-localnet\n"
    "ff00::0\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\n"
    "ff02::2\tip6-allrouters\n"
)


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """What a resolv.conf says; unknown lines are dropped."""

    nameservers: Sequence[str] = ()
    search: Sequence[str] = ()
    options: Sequence[str] = ()

    def text(self, comment: str = "") -> str:
        """As a file."""
        lines = [f"# {comment}"] if comment else []
        lines += [f"nameserver {server}" for server in self.nameservers]
        lines += [f"search {' '.join(self.search)}"] if self.search else []
        lines += [f"options {' '.join(self.options)}"] if self.options else []
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class DnsChoice:
    """What a container, or the daemon, was told about DNS; empty means the host's."""

    servers: Sequence[str] = ()
    search: Sequence[str] = ()
    options: Sequence[str] = ()

    def over(self, default: DnsChoice) -> DnsChoice:
        """This one where it says something, else `default`."""
        return DnsChoice(
            self.servers or default.servers, self.search or default.search, self.options or default.options
        )


@dataclass(frozen=True, slots=True)
class HostFiles:
    """The content of the three files.

    Attributes:
        copy_hosts: start from the host's own /etc/hosts (host mode).
        names: (address, names) lines.
    """

    hostname: str
    resolv: str
    copy_hosts: bool = False
    names: Sequence[tuple[str, str]] = field(default_factory=tuple)


def host_resolv() -> ResolvConf:
    """The host's resolvers; behind the stub of systemd-resolved the real ones."""
    conf = parse_resolv(_read(_HOST_RESOLV))
    if list(conf.nameservers) == [_STUB] and _STUB_UPSTREAM.exists():
        return parse_resolv(_read(_STUB_UPSTREAM))
    return conf


def parse_resolv(text: str) -> ResolvConf:
    """The meaning of a resolv.conf."""
    servers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        word, _, rest = line.split("#")[0].split(";")[0].strip().partition(" ")
        values = rest.split()
        if word == "nameserver" and values:
            servers.append(values[0])
        elif word in ("search", "domain"):
            search = values
        elif word == "options":
            options += values
    return ResolvConf(servers, search, options)


def plain_resolv(choice: DnsChoice, host: ResolvConf) -> ResolvConf:
    """For containers that ask the resolvers themselves: loopback ones, which they cannot reach, are left out."""
    servers = list(choice.servers) or [server for server in host.nameservers if not _loopback(server)]
    return ResolvConf(servers or _LAST_RESORT, _search(choice, host), choice.options or host.options)


def embedded_resolv(choice: DnsChoice, host: ResolvConf) -> ResolvConf:
    """For containers whose questions the engine answers."""
    options = list(choice.options or host.options)
    if not any(option.startswith("ndots:") for option in options):
        options.append("ndots:0")
    return ResolvConf([EMBEDDED_DNS], _search(choice, host), options)


def host_mode_resolv(choice: DnsChoice, host: ResolvConf) -> ResolvConf:
    """For containers in the host's namespace: loopback resolvers work there."""
    return ResolvConf(choice.servers or host.nameservers, _search(choice, host), choice.options or host.options)


def upstreams(choice: DnsChoice, host: ResolvConf) -> list[str]:
    """Whom the embedded server asks, from the host's namespace."""
    return list(choice.servers or host.nameservers or _LAST_RESORT)


def write(folder: Path, files: HostFiles, ids: IdMap | None = None) -> list[OciMount]:
    """Write the files into `folder` and give the mounts that bring them into the container.

    Args:
        ids: of the container's user namespace, whose root owns the files.
    """
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    hosts = _read(_HOST_HOSTS) if files.copy_hosts else _PREAMBLE
    if hosts and not hosts.endswith("\n"):
        hosts += "\n"
    hosts += "".join(f"{address}\t{names}\n" for address, names in files.names)
    _write(folder / HOSTS, hosts)
    _write(folder / HOSTNAME, files.hostname + "\n")
    _write(folder / RESOLV, files.resolv)
    if ids is not None:
        for name in (HOSTS, HOSTNAME, RESOLV):
            os.chown(folder / name, *ids.root, follow_symlinks=False)
    return mounts(folder)


def mounts(folder: Path) -> list[OciMount]:
    """The mounts of a folder that `write` filled."""
    return [
        OciMount(f"/etc/{name}", str(folder / name), "bind", ("rbind", "rprivate", "rw"))
        for name in (RESOLV, HOSTNAME, HOSTS)
    ]


def for_guest(mounts: Iterable[OciMount]) -> list[OciMount]:
    """The mounts that a managed plugin gets: hosts and resolv.conf, read-only."""
    return read_only(mount for mount in mounts if mount.destination != f"/etc/{HOSTNAME}")


def read_only(mounts: Iterable[OciMount]) -> list[OciMount]:
    """The same mounts, which nobody inside can write through."""
    return [dataclasses.replace(mount, options=("rbind", "rprivate", "ro")) for mount in mounts]


def change_names(folder: Path, *, add: Iterable[tuple[str, str]] = (), drop: Iterable[str] = ()) -> None:
    """Add lines to the hosts file, and drop those of some addresses; what else stands there stays.

    The file is rewritten in place: it is bind-mounted, and a new one would not be seen.
    """
    path = folder / HOSTS
    gone = set(drop)
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return
    kept = [line for line in lines if not line.split() or line.split()[0] not in gone]
    kept += [f"{address}\t{names}" for address, names in add]
    _write(path, "\n".join(kept) + "\n")


def replace(path: Path, text: str) -> None:
    """New content for a file that is bind-mounted into a container, so that it must stay the same file."""
    if path.exists():
        _write(path, text)


def _search(choice: DnsChoice, host: ResolvConf) -> Sequence[str]:
    # A single "." asks for no search list at all.
    return [] if list(choice.search) == ["."] else choice.search or host.search


def _loopback(server: str) -> bool:
    try:
        return ipaddress.ip_address(server.partition("%")[0]).is_loopback
    except ValueError:
        return True


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)

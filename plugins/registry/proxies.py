"""Which proxy leads to a URL, by Go's rules: loopback never goes through one, `no_proxy` knows names, suffixes and CIDRs."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxies:
    """The three settings; empty: none.

    Attributes:
        none: hosts to reach without a proxy, separated by commas; "*" is all.
    """

    http: str = ""
    https: str = ""
    none: str = ""

    @classmethod
    def chosen(cls, told: Mapping[str, str], environment: Mapping[str, str]) -> Proxies:
        """What is told ("http", "https", "no"), else the environment's HTTP_PROXY, HTTPS_PROXY and NO_PROXY."""

        def one(kind: str) -> str:
            name = f"{kind}_proxy"
            return told.get(kind) or environment.get(name.upper()) or environment.get(name) or ""

        return cls(one("http"), one("https"), one("no"))

    def lead_to(self, url: str) -> str | None:
        """The proxy's URL, or None."""
        parts = urlsplit(url)
        proxy = self.https if parts.scheme == "https" else self.http
        host = (parts.hostname or "").rstrip(".")
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
        if not proxy or is_loopback(host) or any(_covers(entry.strip(), host, port) for entry in self.none.split(",")):
            return None
        return proxy if "://" in proxy else f"http://{proxy}"


def is_loopback(host: str) -> bool:
    """A loopback address or "localhost". Other names are not resolved: their owner could make them mean anything."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def masked(proxy: str) -> str:
    """A proxy's URL for eyes: dockerd shows credentials in it as xxxxx:xxxxx."""
    parts = urlsplit(proxy)
    if not parts.hostname or "@" not in parts.netloc:
        return proxy
    return urlunsplit(parts._replace(netloc="xxxxx:xxxxx@" + parts.netloc.rpartition("@")[2]))


def _covers(entry: str, host: str, port: int) -> bool:
    if not entry:
        return False
    if entry == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        pass  # the entry is a name, or the host is
    name, colon, wanted = entry.rpartition(":")
    if colon and wanted.isdecimal() and "]" not in wanted and name.count(":") == 0:
        if int(wanted) != port:
            return False
        entry = name
    suffix = entry.removeprefix("*").lower()
    host = host.lower()
    return host.endswith(suffix) if suffix.startswith(".") else host == suffix or host.endswith(f".{suffix}")

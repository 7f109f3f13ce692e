"""Where a registry's name leads: addresses, mirrors, and how much its TLS must prove."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from plugin_sdk import InvalidParameter
from plugin_sdk.reference import DEFAULT_DOMAIN, parse

from .proxies import is_loopback
from .settings import Settings, network
from .tls import default_context, folder_context, lenient_context

HUB = "registry-1.docker.io"
"""Where docker.io's registry really is."""

_LOOKUP_TIMEOUT = 5.0
_KNOWN_FOR = 5.0
"""Seconds until a changed certificate is seen."""
_MOST_KNOWN = 256


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A registry to talk to.

    Attributes:
        host: HOST[:PORT].
        path: what comes before "/v2/": "" except for some mirrors.
        scheme: "https", "http", or "" for an insecure one where it must be found out.
        mirror: a mirror of Docker Hub: it gets no credentials, and others follow it.
    """

    host: str
    scheme: str = "https"
    path: str = ""
    mirror: bool = False


@dataclass(frozen=True, slots=True)
class Trust:
    """How to talk TLS with a host.

    Attributes:
        insecure: plain http will do, and any certificate.
    """

    context: ssl.SSLContext
    insecure: bool = False


class Hosts:
    """Knows the settings, and remembers which insecure registries speak plain http.

    Explicit beats implicit: `--insecure-registry` first, then a folder in certs.d, then loopback, which is insecure.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._insecure = set(settings.insecure_registries)
        self._networks = [found for text in settings.insecure_registries if (found := network(text)) is not None]
        self._default: ssl.SSLContext | None = None
        self._lenient: ssl.SSLContext | None = None
        self._known: dict[str, tuple[float, Trust]] = {}
        self.schemes: dict[str, str] = {}

    async def endpoints(self, domain: str, *, mirrors: bool) -> list[Endpoint]:
        """Those to try, in this order; with `mirrors`, Docker Hub's come first."""
        found: list[Endpoint] = []
        if domain == DEFAULT_DOMAIN and mirrors:
            for mirror in self._settings.registry_mirrors:
                parts = urlsplit(mirror)
                found.append(Endpoint(parts.netloc, parts.scheme, parts.path.rstrip("/"), mirror=True))
        host = HUB if domain == DEFAULT_DOMAIN else domain
        insecure = (await self.trust(host)).insecure
        return [*found, Endpoint(host, "" if insecure else "https")]

    async def trust(self, host: str) -> Trust:
        """What a host must prove. Raises InvalidParameter when its certificates in certs.d cannot be used."""
        until, known = self._known.get(host, (0.0, None))
        if known is None or until < time.monotonic():
            known = await self._find_out(host)
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[host] = (time.monotonic() + _KNOWN_FOR, known)
        return known

    async def _find_out(self, host: str) -> Trust:
        if host in self._insecure:
            return Trust(self._any(), True)
        folder = self._settings.registry_certs_dir / host
        if (own := await asyncio.to_thread(_own_context, self._settings.registry_certs_dir, folder)) is not None:
            return Trust(own)
        if await self._reached_insecurely(_hostname(host)):
            return Trust(self._any(), True)
        if self._default is None:
            self._default = await asyncio.to_thread(default_context)
        return Trust(self._default)

    def _any(self) -> ssl.SSLContext:
        if self._lenient is None:
            self._lenient = lenient_context()
        return self._lenient

    async def _reached_insecurely(self, name: str) -> bool:
        if is_loopback(name):
            return True
        if not self._networks:
            return False
        try:
            addresses = [ipaddress.ip_address(name)]
        except ValueError:
            addresses = await _addresses(name)
        return any(address in network for address in addresses for network in self._networks)


def _own_context(root: Path, folder: Path) -> ssl.SSLContext | None:
    # The name came over the wire: it must not lead elsewhere.
    return folder_context(folder) if folder.parent == root else None


def _hostname(host: str) -> str:
    return urlsplit(f"//{host}").hostname or host


async def _addresses(name: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """All addresses of a name; none when it is not known, or not in time: it then has to prove itself."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_LOOKUP_TIMEOUT):
            found = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError):
        return []
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]


def domain_of(address: str) -> str:
    """The registry that a client's `serveraddress` means: "https://index.docker.io/v1/" and "" are docker.io.

    Raises:
        InvalidParameter: no host is there.
    """
    text = address.strip()
    host = (text.partition("://")[2] if "://" in text else text).partition("/")[0]
    if not text or host in (HUB, DEFAULT_DOMAIN):
        return DEFAULT_DOMAIN
    try:
        # Through the grammar of references: what comes out is a host and nothing else.
        reference = parse(f"{host}/x")
    except InvalidParameter:
        raise InvalidParameter(f"invalid registry address {address!r}: want HOST or HOST:PORT") from None
    return reference.domain if reference.path in ("x", "library/x") else host

"""Options of dockerd that concern registries, and `RegistryConfig` of info."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, field_validator

from plugin_sdk import setting

from .proxies import Proxies, masked

INDEX = "https://index.docker.io/v1/"
"""Docker Hub's name in credentials."""

LOOPBACK = ("127.0.0.0/8", "::1/128")

_SEPARATE = "layers are not transferred side by side yet"


class Settings(BaseModel):
    """Everything that `engine daemon --help` shows for this plugin."""

    registry_mirrors: list[str] = setting(
        [], "Registry mirror to prefer", flag="--registry-mirror", key="registry-mirrors", reloadable=True
    )
    insecure_registries: list[str] = setting(
        [],
        "Registry, or CIDR of registries, to reach without verified TLS",
        flag="--insecure-registry",
        key="insecure-registries",
        reloadable=True,
    )
    registry_certs_dir: Path = setting(
        Path("/etc/docker/certs.d"),
        "Folder with HOST[:PORT]/{*.crt,*.cert,*.key} of registries",
        flag="--registry-certs-dir",
        reloadable=True,
    )
    http_proxy: str = setting("", "HTTP proxy for outgoing traffic", flag="--http-proxy")
    https_proxy: str = setting("", "HTTPS proxy for outgoing traffic", flag="--https-proxy")
    no_proxy: str = setting("", "Hosts to reach without the proxy, separated by commas", flag="--no-proxy")
    proxies: dict[str, str] = setting({}, "The three proxy options in one table of the file", flag="--proxies")
    max_download_attempts: int = setting(
        5, "Attempts for a download that breaks", flag="--max-download-attempts", reloadable=True
    )
    max_concurrent_downloads: int = setting(
        3, "Layers to pull at once", flag="--max-concurrent-downloads", ignored=_SEPARATE
    )
    max_concurrent_uploads: int = setting(
        5, "Layers to push at once", flag="--max-concurrent-uploads", ignored=_SEPARATE
    )

    @field_validator("registry_mirrors")
    @classmethod
    def _check_mirrors(cls, mirrors: list[str]) -> list[str]:
        for mirror in mirrors:
            parts = urlsplit(mirror)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
                raise ValueError(f"invalid mirror: {mirror!r}: want http://HOST or https://HOST")
            if "@" in parts.netloc:
                raise ValueError("invalid mirror: username/password not allowed in URI")
        return [mirror.rstrip("/") + "/" for mirror in mirrors]

    @field_validator("insecure_registries")
    @classmethod
    def _check_insecure(cls, registries: list[str]) -> list[str]:
        hosts = [registry.removeprefix("http://").removeprefix("https://").rstrip("/") for registry in registries]
        for host in hosts:
            if not host or ("/" in host and network(host) is None) or any(sign.isspace() for sign in host):
                raise ValueError(f"insecure registry {host!r} is not valid: want HOST, HOST:PORT or a CIDR")
        return hosts

    @field_validator("max_download_attempts")
    @classmethod
    def _check_attempts(cls, attempts: int) -> int:
        if attempts < 1:
            raise ValueError("want 1 or more")
        return attempts

    def proxy_choice(self) -> Proxies:
        """The proxies of the flags, else of the file's table, else of the environment."""
        flags = {"http": self.http_proxy, "https": self.https_proxy, "no": self.no_proxy}
        told = {kind: value or self.proxies.get(f"{kind}-proxy", "") for kind, value in flags.items()}
        return Proxies.chosen(told, os.environ)

    def info(self) -> dict[str, Any]:
        """What `/info` shows of registries."""
        plain = [registry for registry in self.insecure_registries if network(registry) is None]
        networks = [str(found) for registry in self.insecure_registries if (found := network(registry)) is not None]
        indexes: dict[str, Any] = {
            host: {"Name": host, "Mirrors": [], "Secure": False, "Official": False} for host in plain
        }
        indexes["docker.io"] = {
            "Name": "docker.io",
            "Mirrors": self.registry_mirrors,
            "Secure": True,
            "Official": True,
        }
        proxies = self.proxy_choice()
        return {
            "IndexServerAddress": INDEX,
            "RegistryConfig": {
                "AllowNondistributableArtifactsCIDRs": None,
                "AllowNondistributableArtifactsHostnames": None,
                "InsecureRegistryCIDRs": [*LOOPBACK, *networks],
                "IndexConfigs": indexes,
                "Mirrors": self.registry_mirrors or None,
            },
            "HttpProxy": masked(proxies.http),
            "HttpsProxy": masked(proxies.https),
            "NoProxy": proxies.none,
        }


def network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """A CIDR; None for anything else, a bare address included."""
    if "/" not in text:
        return None
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None

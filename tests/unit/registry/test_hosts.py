"""Which host a name leads to, how, and through which proxy."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from plugin_sdk import InvalidParameter
from plugins.registry.hosts import HUB, Endpoint, Hosts, domain_of
from plugins.registry.proxies import Proxies, masked
from plugins.registry.settings import Settings


@pytest.mark.parametrize(
    ("address", "domain"),
    [
        ("", "docker.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("docker.io", "docker.io"),
        ("127.0.0.1:5000", "127.0.0.1:5000"),
        ("http://127.0.0.1:5000/v2/", "127.0.0.1:5000"),
        ("localhost", "localhost"),
        ("registry", "registry"),
        ("[::1]:5000", "[::1]:5000"),
    ],
)
def test_domain_of_a_login(address: str, domain: str) -> None:
    assert domain_of(address) == domain


@pytest.mark.parametrize("address", ["https://", "a b", "user@host", "../etc", "host:port", "https://x:y@host/"])
def test_what_is_no_registry(address: str) -> None:
    with pytest.raises(InvalidParameter):
        domain_of(address)


async def test_docker_hub_and_its_mirrors() -> None:
    hosts = Hosts(Settings(registry_mirrors=["https://mirror.example", "http://other.example:81/base/"]))
    assert await hosts.endpoints("docker.io", mirrors=True) == [
        Endpoint("mirror.example", "https", "", mirror=True),
        Endpoint("other.example:81", "http", "/base", mirror=True),
        Endpoint(HUB),
    ]
    assert await hosts.endpoints("docker.io", mirrors=False) == [Endpoint(HUB)]
    assert await hosts.endpoints("example.com", mirrors=True) == [Endpoint("example.com")]


@pytest.mark.parametrize(
    ("host", "insecure"),
    [
        ("127.0.0.1:5000", True),
        ("127.9.9.9", True),
        ("localhost:5000", True),
        ("[::1]:5000", True),
        ("10.1.2.3:5000", True),
        ("10.2.2.3:5000", False),
        ("example.com:5000", True),
        ("example.com", False),
        ("other.example", True),
        ("third.example", False),
    ],
)
async def test_insecure(host: str, insecure: bool) -> None:
    hosts = Hosts(Settings(insecure_registries=["10.1.0.0/16", "example.com:5000", "https://other.example/"]))
    assert (await hosts.trust(host)).insecure is insecure


async def test_a_folder_of_certificates_makes_loopback_secure(tmp_path: Path) -> None:
    folder = tmp_path / "127.0.0.1:5000"
    folder.mkdir()
    (folder / "readme").write_text("none of the three kinds")
    assert (await Hosts(Settings(registry_certs_dir=tmp_path)).trust("127.0.0.1:5000")).insecure
    (folder / "client.cert").write_text("")
    with pytest.raises(InvalidParameter, match=r"missing key .*client\.key for client certificate"):
        await Hosts(Settings(registry_certs_dir=tmp_path)).trust("127.0.0.1:5000")
    (folder / "client.cert").unlink()
    (folder / "ca.crt").write_text("rubbish")
    with pytest.raises(InvalidParameter, match=r"cannot use .*ca\.crt"):
        await Hosts(Settings(registry_certs_dir=tmp_path)).trust("127.0.0.1:5000")


@pytest.mark.parametrize(
    "bad",
    [
        {"registry_mirrors": ["mirror.example"]},
        {"registry_mirrors": ["ftp://mirror.example"]},
        {"registry_mirrors": ["https://me:secret@mirror.example"]},
        {"insecure_registries": ["example.com/path"]},
        {"insecure_registries": [""]},
        {"max_download_attempts": 0},
    ],
)
def test_settings_that_cannot_be(bad: dict) -> None:
    with pytest.raises(ValidationError):
        Settings(**bad)


def test_info() -> None:
    settings = Settings(
        registry_mirrors=["https://m.example"],
        insecure_registries=["r.example:5000", "10.0.0.1/8"],
        proxies={"https-proxy": "http://me:secret@proxy:3128"},
        no_proxy="a,b",
    )
    info = settings.info()
    registries = info["RegistryConfig"]
    assert registries["Mirrors"] == ["https://m.example/"]
    assert registries["InsecureRegistryCIDRs"] == ["127.0.0.0/8", "::1/128", "10.0.0.0/8"]
    assert registries["IndexConfigs"]["r.example:5000"]["Secure"] is False
    assert registries["IndexConfigs"]["docker.io"]["Official"] is True
    assert info["IndexServerAddress"] == "https://index.docker.io/v1/"
    assert info["HttpsProxy"] == "http://xxxxx:xxxxx@proxy:3128"
    assert info["NoProxy"] == "a,b"


def test_flags_beat_the_environment() -> None:
    environment = {"HTTPS_PROXY": "env:1", "no_proxy": "here"}
    assert Proxies.chosen({"https": "flag:1"}, environment) == Proxies("", "flag:1", "here")
    assert masked("proxy:3128") == "proxy:3128"


@pytest.mark.parametrize(
    ("url", "proxied"),
    [
        ("https://example.com/v2/", True),
        ("http://example.com/v2/", False),
        ("https://127.0.0.1:5000/v2/", False),
        ("https://localhost/v2/", False),
        ("https://sub.inside.example/", False),
        ("https://inside.example/", False),
        ("https://notinside.example/", True),
        ("https://10.1.2.3/", False),
        ("https://ported.example:444/", False),
        ("https://ported.example/", True),
        ("https://a.dotted.example/", False),
        ("https://dotted.example/", True),
    ],
)
def test_proxies(url: str, proxied: bool) -> None:
    proxies = Proxies("", "proxy:3128", "inside.example, 10.0.0.0/8,ported.example:444,.dotted.example")
    assert proxies.lead_to(url) == ("http://proxy:3128" if proxied else None)

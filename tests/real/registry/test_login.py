"""`docker login`, `docker logout` and what `docker info` tells, as a user sees them, against real registries."""

from __future__ import annotations

import base64
import json
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Client, Engine, Registry, eventually

pytestmark = pytest.mark.real

OwnEngine = Callable[..., Engine]


def _saved(engine: Client) -> dict:
    """Logins that the CLI remembers."""
    path = Path(engine.env()["DOCKER_CONFIG"]) / "config.json"
    return json.loads(path.read_text()).get("auths", {}) if path.exists() else {}


def _login(engine: Client, host: str, password: str, *, check: bool = True) -> tuple[int, str]:
    done = engine.docker("login", "-u", "me", "--password-stdin", host, input=password, check=check)
    return done.returncode, done.stdout + done.stderr


def test_login_and_logout(engine: Client) -> None:
    with Registry(netns=engine.netns, users={"me": "secret"}) as registry:
        code, said = _login(engine, registry.host, "wrong", check=False)
        assert code != 0
        assert f"login attempt to http://{registry.host}/v2/ failed with status: 401 Unauthorized" in said
        assert registry.host not in _saved(engine)

        assert "Login Succeeded" in _login(engine, registry.host, "secret")[1]
        assert base64.b64decode(_saved(engine)[registry.host]["auth"]) == b"me:secret"

        engine.docker("logout", registry.host)
        assert registry.host not in _saved(engine)


def test_the_route(engine: Client) -> None:
    with Registry(netns=engine.netns, users={"me": "secret"}) as registry:
        address = f"http://{registry.host}/v2/"
        good = engine.http("POST", "/auth", {"username": "me", "password": "secret", "serveraddress": address})
        assert (good.status, good.json()) == (200, {"IdentityToken": "", "Status": "Login Succeeded"})
        bad = engine.http("POST", "/v1.25/auth", {"username": "me", "password": "no", "serveraddress": address})
        assert bad.status == 401
        none = engine.http("POST", "/auth", {"serveraddress": address})
        assert (none.status, none.message) == (401, f"login to {registry.host} failed: no basic auth credentials")
        odd = engine.http("POST", "/auth", {"serveraddress": "a b"})
        assert (odd.status, odd.message) == (400, "invalid registry address 'a b': want HOST or HOST:PORT")


def test_nobody_there(engine: Client) -> None:
    with Registry(netns=engine.netns) as registry:
        host = registry.host
        assert "Login Succeeded" in _login(engine, host, "anything")[1]
        registry.stop()
        gone = engine.http("POST", "/auth", {"username": "me", "password": "x", "serveraddress": host})
    assert gone.status == 503
    assert (
        gone.message == f'failed to do request: Get "http://{host}/v2/": dial tcp {host}: connect: connection refused'
    )
    engine.docker("logout", host)


def test_tls_on_loopback_needs_no_certificate(engine: Client) -> None:
    with Registry(netns=engine.netns, users={"me": "secret"}, tls=True) as registry:
        assert "Login Succeeded" in _login(engine, registry.host, "secret")[1]
        code, said = _login(engine, registry.host, "wrong", check=False)
        assert code != 0
        assert f"login attempt to https://{registry.host}/v2/ failed with status: 401" in said
        engine.docker("logout", registry.host)


def test_a_port_that_now_speaks_tls(engine: Client) -> None:
    with Registry(netns=engine.netns, users={"me": "secret"}) as plain:
        assert "Login Succeeded" in _login(engine, plain.host, "secret")[1]
    port = int(plain.host.rpartition(":")[2])
    with Registry(netns=engine.netns, users={"me": "secret"}, tls=True, port=port) as registry:
        assert registry.host == plain.host
        assert "Login Succeeded" in _login(engine, registry.host, "secret")[1]
        engine.docker("logout", registry.host)


def test_client_certificates(own_engine: OwnEngine, tmp_path: Path) -> None:
    """A folder in certs.d is read anew, and makes a registry on loopback prove itself."""
    engine = own_engine("--registry-certs-dir", str(tmp_path), image=False)
    with Registry(netns=engine.netns, users={"me": "secret"}, tls=True, client_ca=True) as registry:
        code, said = _login(engine, registry.host, "secret", check=False)
        assert code != 0
        assert re.search("remote error: tls: .*certificate", said), said

        folder = tmp_path / registry.host
        folder.mkdir()
        for source, target in (("ca.pem", "ca.crt"), ("client.pem", "client.cert"), ("client-key.pem", "client.key")):
            (folder / target).write_bytes((registry.certificates / source).read_bytes())
        _wait_for_success(engine, registry.host)

        (folder / "ca.crt").write_bytes((registry.certificates / "other.pem").read_bytes())
        engine.restart()
        code, said = _login(engine, registry.host, "secret", check=False)
        assert code != 0
        assert "tls: failed to verify certificate" in said


def _wait_for_success(engine: Engine, host: str) -> None:
    eventually(lambda: _login(engine, host, "secret", check=False)[0] == 0, what="the certificates are used")


def test_insecure_registries(own_engine: OwnEngine) -> None:
    """An address that is not loopback: refused without TLS, accepted with the option, which SIGHUP reads anew."""
    config = Path(own_engine(start=False).root) / "daemon.json"
    config.write_text("{}")
    engine = own_engine("--config-file", str(config), image=False)
    engine.nsenter(["ip", "addr", "add", "10.111.0.1/32", "dev", "lo"])
    with Registry(netns=engine.netns, address="10.111.0.1") as registry:
        code, said = _login(engine, registry.host, "x", check=False)
        assert code != 0
        assert "http: server gave HTTP response to HTTPS client" in said

        for insecure in ("10.111.0.0/16", registry.host):
            config.write_text(json.dumps({"insecure-registries": [insecure]}))
            _reload(engine, insecure)
            assert "Login Succeeded" in _login(engine, registry.host, "x")[1]
            config.write_text("{}")
            _reload(engine)
            assert _login(engine, registry.host, "x", check=False)[0] != 0


def _reload(engine: Engine, insecure: str = "") -> None:
    """Have the daemon read its file again, and wait until it knows this registry, or none."""

    def known() -> list[str]:
        registries = engine.http("GET", "/info").json()["RegistryConfig"]
        return [*registries["InsecureRegistryCIDRs"][2:], *(set(registries["IndexConfigs"]) - {"docker.io"})]

    engine.signal(signal.SIGHUP)
    eventually(lambda: known() == ([insecure] if insecure else []), what="the settings are read anew")


def test_info(own_engine: OwnEngine) -> None:
    flags = ("--insecure-registry", "10.0.0.0/8", "--insecure-registry", "reg.test:5000", "--registry-mirror")
    engine = own_engine(*flags, "https://mirror.test", image=False, environment={"HTTPS_PROXY": "http://u:p@proxy:1"})
    info = engine.http("GET", "/info").json()
    registries = info["RegistryConfig"]
    assert registries["InsecureRegistryCIDRs"] == ["127.0.0.0/8", "::1/128", "10.0.0.0/8"]
    assert registries["IndexConfigs"]["reg.test:5000"]["Secure"] is False
    assert registries["Mirrors"] == ["https://mirror.test/"]
    assert (info["IndexServerAddress"], info["HttpsProxy"]) == (
        "https://index.docker.io/v1/",
        "http://xxxxx:xxxxx@proxy:1",
    )
    shown = engine.docker("info").stdout
    assert "Registry Mirrors:\n  https://mirror.test/" in shown
    assert "reg.test:5000" in shown


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--registry-mirror", "mirror.test"), "invalid mirror: 'mirror.test'"),
        (("--insecure-registry", "a/b"), "insecure registry 'a/b' is not valid"),
    ],
)
def test_options_that_cannot_be(own_engine: OwnEngine, flags: tuple[str, str], message: str) -> None:
    engine = own_engine(*flags, start=False)
    process = engine.spawn()
    assert process.wait(20) != 0
    assert message in engine.log()

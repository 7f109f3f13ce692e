"""A real registry: Debian's `docker-registry`, with a folder and a port of its own.

with Registry(netns=engine.netns, users={"me": "secret"}) as registry:
    engine.docker("login", "-u", "me", "-p", "secret", registry.host)
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.certificates import make_certificates

_START_TIMEOUT = 20.0
_LISTENING = re.compile(r"listening on [^ \"]*:([0-9]+)")


@dataclass(frozen=True, slots=True)
class TokenAuth:
    """Where a registry sends its clients for tokens, and whose it trusts.

    Attributes:
        realm: the token server's URL.
        bundle: PEM certificates; a token's signer must have one of them, or one signed by them.
    """

    realm: str
    bundle: Path
    service: str = "test registry"
    issuer: str = "test issuer"


class Registry:
    """Runs from the beginning of the context to its end.

    Args:
        netns: network namespace to run in, an engine's for example; None: the tests' own. End the context before the
            engine, whose `destroy` complains of processes in its namespace.
        users: name to password; with any, it wants HTTP Basic (htpasswd).
        token: instead of `users`, it wants tokens.
        tls: serve https; `certificates` is then filled as by `make_certificates`, the server's signed by `ca.pem`.
        client_ca: with `tls`: clients need a certificate signed by `ca.pem`.
        address: where it listens; with `tls`, the certificate is for 127.0.0.1 and localhost.

    Attributes:
        host: "127.0.0.1:PORT" (or another `address`), for references.
        certificates: folder of certificates, for `tls`.
    """

    def __init__(
        self,
        *,
        netns: Path | None = None,
        users: Mapping[str, str] | None = None,
        token: TokenAuth | None = None,
        tls: bool = False,
        client_ca: bool = False,
        address: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.netns = netns
        self.address = address
        self.folder = Path(tempfile.mkdtemp(prefix="registry-", dir="/var/tmp"))
        self.certificates = self.folder / "certificates"
        self._users, self._token = dict(users or {}), token
        self._tls, self._client_ca = tls, client_ca
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        if tls:
            self.certificates.mkdir()
            make_certificates(self.certificates)

    @property
    def host(self) -> str:
        """Where it listens."""
        assert self._port, "the registry was never started"
        return f"{self.address}:{self._port}"

    def start(self) -> None:
        """Start, on the port of the last time if there was one, and wait until it listens."""
        # Another namespace's free port cannot be found out from here: the registry takes one and tells.
        config = self.folder / "config.yml"
        config.write_text(json.dumps(self._config()))  # JSON is YAML
        enter = ["nsenter", f"--net={self.netns}"] if self.netns else []
        log = self.folder / "log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*enter, "docker-registry", "serve", config],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_TIMEOUT
        while not (found := _LISTENING.search(log.read_text())):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"docker-registry does not listen:\n{self.log()[-3000:]}")
            time.sleep(0.02)
        self._port = int(found.group(1))

    def stop(self) -> None:
        """End it; what was pushed stays until the context ends."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
        self._process = None

    def log(self) -> str:
        """What it has written since its last start, its access log included."""
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def blob(self, digest: str) -> Path:
        """The file of a stored blob: for tests that damage it."""
        algorithm, _, hexadecimal = digest.partition(":")
        blobs = self.folder / "data/docker/registry/v2/blobs"
        return blobs / algorithm / hexadecimal[:2] / hexadecimal / "data"

    def _config(self) -> dict[str, Any]:
        http: dict[str, Any] = {"addr": f"{self.address}:{self._port}", "secret": "for tests"}
        if self._tls:
            http["tls"] = {
                "certificate": str(self.certificates / "server.pem"),
                "key": str(self.certificates / "server-key.pem"),
            }
            if self._client_ca:
                http["tls"]["clientcas"] = [str(self.certificates / "ca.pem")]
        config: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": str(self.folder / "data")}, "delete": {"enabled": True}},
            "http": http,
        }
        if self._users:
            config["auth"] = {"htpasswd": {"realm": "test registry", "path": str(self._htpasswd())}}
        elif token := self._token:
            config["auth"] = {
                "token": {
                    "realm": token.realm,
                    "service": token.service,
                    "issuer": token.issuer,
                    "rootcertbundle": str(token.bundle),
                }
            }
        return config

    def _htpasswd(self) -> Path:
        import bcrypt

        path = self.folder / "htpasswd"
        hashes = {
            user: bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode() for user, password in self._users.items()
        }
        path.write_text("".join(f"{user}:{hashed}\n" for user, hashed in hashes.items()))
        return path

    def __enter__(self) -> Registry:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End it and remove all it has."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

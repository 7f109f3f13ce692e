"""Certificates for tests of mutual TLS, made by openssl and good for two days."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
# Python 3.13 checks strictly: a CA says what its key is for, and each certificate whose key signed it.
_KEYS = "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
_CLIENT = "extendedKeyUsage=clientAuth"


def make_certificates(folder: Path, clients: Sequence[str] = ("client",)) -> None:
    """NAME.pem and NAME-key.pem of two authorities (ca, other), and of server and clients (by ca) and stranger (by other).

    The common name is "test NAME".
    """
    for authority in ("ca", "other"):
        _openssl(
            folder, "req", "-x509", *_CURVE, "-keyout", f"{authority}-key.pem", "-out", f"{authority}.pem", "-days", "2",
            "-subj", f"/CN=test {authority}", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        )  # fmt: skip
    leaves = [("server", "ca", "subjectAltName=DNS:localhost,IP:127.0.0.1"), ("stranger", "other", _CLIENT)]
    for name, authority, extension in [*leaves, *((client, "ca", _CLIENT) for client in clients)]:
        _openssl(
            folder, "req", *_CURVE, "-keyout", f"{name}-key.pem", "-out", f"{name}.csr", "-subj", f"/CN=test {name}"
        )
        (folder / f"{name}.ext").write_text(_KEYS + extension)
        _openssl(
            folder, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.pem", "-CAkey", f"{authority}-key.pem",
            "-CAcreateserial", "-out", f"{name}.pem", "-days", "2", "-extfile", f"{name}.ext",
        )  # fmt: skip


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=30)

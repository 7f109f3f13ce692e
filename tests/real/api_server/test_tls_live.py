"""The stock docker CLI over mutual TLS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Engine
from harness.certificates import make_certificates

pytestmark = pytest.mark.real

PORT = 23760


@pytest.fixture
def secured(own_engine: Callable[..., Engine], tmp_path: Path) -> Engine:
    """An engine that wants certificates."""
    make_certificates(tmp_path)
    files = ["--tlscacert", f"{tmp_path}/ca.pem", "--tlscert", f"{tmp_path}/server.pem"]
    return own_engine("-H", f"tcp://127.0.0.1:{PORT}", "--tlsverify", *files, "--tlskey", f"{tmp_path}/server-key.pem")


def docker(folder: Path, who: str, *arguments: str) -> list[str]:
    """A command line of the docker CLI over TLS."""
    files = [
        "--tlscacert",
        f"{folder}/ca.pem",
        "--tlscert",
        f"{folder}/{who}.pem",
        "--tlskey",
        f"{folder}/{who}-key.pem",
    ]
    return ["docker", "--host", f"tcp://127.0.0.1:{PORT}", "--tlsverify", *files, *arguments]


def test_input_ends_and_output_goes_on(secured: Engine, tmp_path: Path) -> None:
    count = docker(tmp_path, "client", "run", "--rm", "-i", "--network", "none", secured.image, "wc", "-c")
    assert secured.nsenter(count, input="hi\n", timeout=60).stdout == "3\n"
    big = "x" * 1_000_000
    assert secured.nsenter(count, input=big, timeout=60).stdout == "1000000\n"
    echo = docker(
        tmp_path,
        "client",
        "run",
        "--rm",
        "-i",
        "--network",
        "none",
        secured.image,
        "sh",
        "-c",
        "cat; sleep 0.3; echo end",
    )
    assert secured.nsenter(echo, input=big, timeout=60).stdout == big + "end\n"


def test_exec_over_tls(secured: Engine, tmp_path: Path) -> None:
    name = secured.name()
    secured.docker("run", "-d", "--name", name, "--network", "none", secured.image, "sleep", "100")
    try:
        count = docker(tmp_path, "client", "exec", "-i", name, "wc", "-c")
        assert secured.nsenter(count, input="hello", timeout=60).stdout == "5\n"
    finally:
        secured.docker("rm", "-f", name)


def test_strangers_are_kept_out(secured: Engine, tmp_path: Path) -> None:
    assert secured.nsenter(docker(tmp_path, "client", "version")).returncode == 0
    assert secured.nsenter(docker(tmp_path, "stranger", "version"), check=False).returncode != 0
    bare = secured.nsenter(["docker", "--host", f"tcp://127.0.0.1:{PORT}", "version"], check=False)
    assert "Client sent an HTTP request to an HTTPS server" in bare.stderr


def test_missing_certificate_is_named(own_engine: Callable[..., Engine], tmp_path: Path) -> None:
    engine = own_engine("--tls", "--tlscert", f"{tmp_path}/none.pem", start=False)
    assert engine.spawn().wait(20) != 0
    assert f"{tmp_path}/none.pem does not exist" in engine.log()

"""Input that ends while output goes on: over a Unix socket, TCP and TLS, by the docker CLI and by docker-py."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Engine
from harness.certificates import make_certificates

pytestmark = pytest.mark.real

PORT = 23761


@pytest.mark.parametrize("secure", [False, True], ids=["unix-and-tcp", "tls"])
def test_half_close(own_engine: Callable[..., Engine], tmp_path: Path, secure: bool) -> None:
    options: list[str] = []
    files: list[str] = []
    if secure:
        make_certificates(tmp_path)
        options = ["--tlsverify", "--tlscacert", f"{tmp_path}/ca.pem"]
        options += ["--tlscert", f"{tmp_path}/server.pem", "--tlskey", f"{tmp_path}/server-key.pem"]
        files = ["--tlsverify", "--tlscacert", f"{tmp_path}/ca.pem"]
        files += ["--tlscert", f"{tmp_path}/client.pem", "--tlskey", f"{tmp_path}/client-key.pem"]
    engine = own_engine("-H", f"tcp://127.0.0.1:{PORT}", *options)
    name = engine.name()
    engine.docker("run", "-d", "--name", name, "--network", "none", engine.image, "sleep", "600")
    for host in ([] if secure else [engine.host]) + [f"tcp://127.0.0.1:{PORT}"]:
        by_cli(engine, ["docker", "--host", host, *files], name)
        by_docker_py(engine, host, str(tmp_path) if secure else "", name)


def by_cli(engine: Engine, docker: list[str], name: str) -> None:
    def run(*arguments: str, input: str = "hi\n") -> str:
        return engine.nsenter([*docker, *arguments], input=input, timeout=60).stdout

    assert run("exec", "-i", name, "wc", "-c") == "3\n"
    assert run("exec", name, "wc", "-c") == "0\n"
    assert run("run", "--rm", "-i", "--network", "none", engine.image, "wc", "-c") == "3\n"
    assert run("run", "--rm", "-i", "--network", "none", engine.image, "sh", "-c", "cat; echo end") == "hi\nend\n"
    big = os.urandom(3_000_000).hex()
    assert run("exec", "-i", name, "sh", "-c", "cat; echo end", input=big) == big + "end\n"
    assert run("exec", "-i", name, "sha256sum", input=big).split()[0] == hashlib.sha256(big.encode()).hexdigest()
    failed = engine.nsenter([*docker, "exec", "-i", name, "sh", "-c", "cat >&2; exit 7"], input="hi\n", check=False)
    assert (failed.stdout, failed.stderr, failed.returncode) == ("", "hi\n", 7)


def by_docker_py(engine: Engine, host: str, certificates: str, name: str) -> None:
    program = Path(__file__).with_name("streams_client.py")
    url = host.replace("tcp://", "https://") if certificates else host
    done = engine.nsenter([sys.executable, str(program), url, certificates, name, engine.image], timeout=60)
    seen = json.loads(done.stdout)
    assert seen.pop("echo", True)
    assert seen == {"exec": ["3", "err\n", 3], "sum": True, "run": ["through end\n", 0]}

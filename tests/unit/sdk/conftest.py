"""Drivers served by a process of their own, and a caller for their sockets."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("served.py")
PATIENCE = 15.0


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@dataclass
class Served:
    """A served plugin."""

    process: subprocess.Popen[str]
    socket: Path
    folder: Path

    def raw(self, path: str, body: bytes | None = None, method: str = "POST") -> tuple[int, bytes]:
        """Status and body of one request."""
        connection = UnixConnection(self.socket)
        try:
            connection.request(method, path, body=body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def call(self, method: str, /, **arguments: Any) -> Any:
        """The reply of a call that must succeed; without arguments the body is empty."""
        status, body = self.raw(f"/{method}", json.dumps(arguments).encode() if arguments else None)
        assert status == 200, f"{method}: {status} {body!r}"
        return json.loads(body)

    def refusal(self, method: str, /, **arguments: Any) -> tuple[int, Any]:
        """Status and reply of a call that must fail."""
        status, body = self.raw(f"/{method}", json.dumps(arguments).encode())
        assert status != 200, f"{method}: {body!r}"
        return status, json.loads(body)

    def seen(self) -> list[Any]:
        """What the driver was asked so far: [method, arguments...]."""
        path = self.folder / "seen"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def stop(self) -> int:
        """SIGTERM; gives the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's name (108 bytes in all)."""
    folder = Path(tempfile.mkdtemp(prefix="sdk-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def serve(short_path: Path) -> Iterator[Callable[..., Served]]:
    """`serve("volume", ...)` serves test drivers of these kinds; again with the same folder after `stop`."""
    running: list[Served] = []

    def start(*kinds: str) -> Served:
        path = short_path / "plugin.sock"
        environment = {
            **os.environ,
            "ENGINE_PLUGIN_SOCKET": str(path),
            "ENGINE_PLUGIN_FOLDER": str(short_path / "kept"),
        }
        process = subprocess.Popen(
            [sys.executable, PROGRAM, short_path, *kinds], env=environment, stderr=subprocess.PIPE, text=True
        )
        served = Served(process, path, short_path)
        running.append(served)
        until = time.monotonic() + PATIENCE
        while not answers(path):
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            assert time.monotonic() < until, "the socket does not answer"
            time.sleep(0.01)
        return served

    yield start
    for served in running:
        if served.process.poll() is None:
            served.process.kill()
            served.process.wait(PATIENCE)
        if served.process.stderr:
            served.process.stderr.close()


def answers(path: Path) -> bool:
    """Somebody accepts connections there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True

"""A thin HTTP client for the commands: no imports that would make them slow."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

DEFAULT_HOST = "unix:///var/run/docker.sock"
TIMEOUT = 120.0
"""Seconds that one answer may take."""


class ClientError(Exception):
    """The engine refused, or cannot be reached; the text is for people."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Client:
    """Speaks to the engine at `host` ("" for $DOCKER_HOST, else the default socket)."""

    def __init__(self, host: str = "") -> None:
        self.host = host or os.environ.get("DOCKER_HOST", "") or DEFAULT_HOST

    def _connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.host)
        if parts.scheme == "unix":
            return _UnixConnection(parts.path)
        if parts.scheme != "tcp" or not parts.hostname:
            raise ClientError(f"invalid host {self.host!r}: want unix://PATH or tcp://HOST:PORT")
        if not os.environ.get("DOCKER_TLS_VERIFY"):
            return http.client.HTTPConnection(parts.hostname, parts.port or 2375, timeout=TIMEOUT)
        folder = Path(os.environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker")
        context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        return http.client.HTTPSConnection(parts.hostname, parts.port or 2376, timeout=TIMEOUT, context=context)

    def call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """The answer's JSON, None without a body.

        Args:
            body: bytes, or an iterable of bytes to stream.

        Raises:
            ClientError: with the engine's message.
        """
        content = b"".join(self.pieces(method, path, body, headers))
        return json.loads(content) if content.strip() else None

    def pieces(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Iterator[bytes]:
        """The answer's bytes as they come. Raises ClientError like `call`."""
        connection = self._connect()
        try:
            connection.request(method, path, body=body, headers=headers or {})
            answer = connection.getresponse()
            if answer.status >= 400:
                raise ClientError(_message(answer.read(), answer.status))
            while piece := answer.read1(1 << 16):
                yield piece
        except http.client.HTTPException as error:
            raise ClientError(f"the engine at {self.host} broke off its answer: {error!r}") from None
        except OSError as error:
            raise ClientError(f"cannot reach the engine at {self.host}: {error}. Is the daemon running?") from None
        finally:
            connection.close()

    def converse(self, path: str, body: bytes, *, stdin: BinaryIO | None) -> Iterator[tuple[int, bytes]]:
        """Frames (stream, payload) of a hijacked connection, while `stdin` is sent to it. Raises ClientError."""
        connection = self._connect()
        try:
            headers = {"Content-Type": "application/json", "Connection": "Upgrade", "Upgrade": "tcp"}
            connection.request("POST", path, body=body, headers=headers)
            wire = connection.sock
            wire.settimeout(None)
            answer = wire.makefile("rb")
            status = int(answer.readline().split()[1])
            length = 0
            while line := answer.readline().strip():
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            if status not in (101, 200):
                raise ClientError(_message(answer.read(length), status))
            if stdin is not None:
                threading.Thread(target=_send, args=(stdin, wire), daemon=True).start()
            while len(head := answer.read(8)) == 8:
                yield head[0], answer.read(int.from_bytes(head[4:]))
        except OSError as error:
            raise ClientError(f"cannot reach the engine at {self.host}: {error}. Is the daemon running?") from None
        finally:
            connection.close()

    def progress(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Iterator[str]:
        """The lines of a stream of progress messages. Raises ClientError, also for one that the stream ends with."""
        for line in self.lines(method, path, body, headers):
            message = json.loads(line)
            if message.get("error"):
                raise ClientError(message["error"])
            label = f"{message['id']}: " if message.get("id") else ""
            if not message.get("progressDetail"):
                yield f"{label}{message.get('status', '')}"

    def lines(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Iterator[bytes]:
        """Like `pieces`, line by line, without those that are empty."""
        rest = b""
        for piece in self.pieces(method, path, body, headers):
            *lines, rest = (rest + piece).split(b"\n")
            yield from filter(None, map(bytes.strip, lines))
        if rest.strip():
            yield rest.strip()


def _send(source: BinaryIO, wire: socket.socket) -> None:
    """All of a file, then the end of our side. Ends quietly when the other side has gone first."""
    with contextlib.suppress(OSError):
        while piece := source.read1(1 << 16):  # type: ignore[attr-defined]
            wire.sendall(piece)
        wire.shutdown(socket.SHUT_WR)


def _message(content: bytes, status: int) -> str:
    try:
        parsed = json.loads(content)
    except ValueError:
        parsed = None
    return parsed.get("message", "") if isinstance(parsed, dict) else f"status {status}"

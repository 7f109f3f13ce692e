"""An old-style plugin in the test's own process: a unix socket that speaks Docker's plugin protocol with scripted answers."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

Answer = Callable[[dict[str, Any]], Any]
"""Takes the arguments ({} for an empty body); gives a reply as a JSON value, or a `Raw`."""


class Raw:
    """A reply byte for byte: for plugins that misbehave."""

    def __init__(self, body: bytes, status: int = 200) -> None:
        self.body, self.status = body, status


class Refusal(Exception):
    """Raised by an answer: status 500 and `{"Err": text}`."""


class OldStylePlugin:
    """Serves until `close`. Use it as a context.

    Args:
        folder: one of the engine's `--plugin-dir`; the socket lies there as NAME.sock.
        implements: for `Plugin.Activate`, for example ["VolumeDriver"].
        answers: by method ("VolumeDriver.Mount"); one that is missing is answered with 404. May be changed at any time.

    Attributes:
        calls: (method, arguments) of all calls so far, `Plugin.Activate` included.
    """

    def __init__(self, folder: Path, name: str, implements: list[str], answers: Mapping[str, Answer]) -> None:
        self.name = name
        self.socket = folder / f"{name}.sock"
        self.answers: dict[str, Answer] = {"Plugin.Activate": lambda _: {"Implements": implements}, **answers}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        plugin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                method = self.path.lstrip("/")
                arguments = json.loads(raw) if raw.strip() else {}
                plugin.calls.append((method, arguments))
                answer = plugin.answers.get(method)
                try:
                    told = Raw(b"404 page not found\n", 404) if answer is None else answer(arguments)
                except Refusal as refusal:
                    told = Raw(json.dumps({"Err": str(refusal)}).encode(), 500)
                reply = told if isinstance(told, Raw) else Raw(json.dumps(told).encode())
                self.send_response(reply.status)
                self.send_header("Content-Type", "application/vnd.docker.plugins.v1.1+json")
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

            def address_string(self) -> str:
                return "unix"

            def log_message(self, format: str, *args: Any) -> None:
                return

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 64

            def handle_error(self, request: Any, client_address: Any) -> None:
                return  # a client that did not wait for the answer

        folder.mkdir(parents=True, exist_ok=True)
        self.socket.unlink(missing_ok=True)
        self._server = Server(str(self.socket), Handler)
        threading.Thread(target=self._server.serve_forever, name=f"plugin {name}", daemon=True).start()

    def called(self, method: str) -> list[dict[str, Any]]:
        """Arguments of the calls of one method."""
        return [arguments for name, arguments in self.calls if name == method]

    def close(self) -> None:
        """Stop serving; the socket's file goes too."""
        self._server.shutdown()
        self._server.server_close()
        self.socket.unlink(missing_ok=True)

    def __enter__(self) -> OldStylePlugin:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

"""Strict receivers of logs, each in a process of its own that can be killed and started again.

with Receiver("forward", netns=engine.netns) as receiver:
    ... fluentd-address=127.0.0.1:{receiver.port} ...
    receiver.events()  # what came, in order; over all lives of the receiver

Kinds: `forward` (Fluentd's forward protocol), `gelf` (UDP and TCP on one port), `hec` (Splunk's collector over HTTPS),
`cloudwatch` (the calls of CloudWatch Logs), `google` (Cloud Logging's entries:write). What breaks a protocol's rules is
recorded as {"wrong": what}, and `events` fails. Texts that may be bytes are in Latin-1, a character for each byte.
"""

from __future__ import annotations

import gzip
import json
import os
import socket
import socketserver
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_READY = 20.0


class Receiver:
    """Runs from the beginning of the context to its end.

    Args:
        netns: network namespace to run in.
        path: listen on this socket instead of a port (`forward` alone).
        certificates: folder of `make_certificates`: TLS (`forward`; `hec` always has it).
        token: what `hec` wants.
    """

    def __init__(
        self, kind: str, netns: Path | None = None, *, path: str = "", certificates: Path | None = None, token: str = ""
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="receiver-")
        self._out = Path(self._folder.name, "events")
        self._out.touch()
        self._settings: dict[str, Any] = {
            "kind": kind,
            "path": path,
            "certificates": str(certificates or ""),
            "token": token,
            "out": str(self._out),
            "port": 0,
        }
        self._enter = ["nsenter", f"--net={netns}"] if netns else []
        self._process: subprocess.Popen[str] | None = None

    @property
    def port(self) -> int:
        """Of 127.0.0.1; the same in each life."""
        return int(self._settings["port"])

    def start(self) -> None:
        """Start; returns when it listens."""
        command = [*self._enter, sys.executable, __file__, json.dumps(self._settings)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError(f"the receiver {self._settings['kind']} did not start")
        self._settings["port"] = int(line)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def say(self, **settings: Any) -> None:
        """Change how the next life behaves."""
        self._settings |= settings

    def events(self) -> list[dict[str, Any]]:
        """What has come."""
        # What stands behind the last line end is being written.
        rows = [json.loads(row) for row in self._out.read_bytes().split(b"\n")[:-1]]
        wrong = [row for row in rows if "wrong" in row]
        assert not wrong, wrong[:3]
        return rows

    def __enter__(self) -> Receiver:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._folder.cleanup()


class _Out:
    """The file of events, in whole lines: what a kill left of one is cut off by the next life."""

    def __init__(self, path: str) -> None:
        whole = Path(path).read_bytes().rfind(b"\n") + 1
        os.truncate(path, whole)
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - for the process's life
        self._lock = threading.Lock()

    def put(self, *rows: Mapping[str, Any]) -> None:
        with self._lock:
            self._file.write(b"".join(json.dumps(row).encode() + b"\n" for row in rows))

    def wrong(self, what: str) -> None:
        self.put({"wrong": what})


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return value


# Fluentd's forward protocol.


def _forward(settings: Mapping[str, Any], out: _Out) -> int:
    import msgpack

    def moment(value: Any) -> list[int] | None:
        if isinstance(value, int):
            return [value]
        if isinstance(value, msgpack.ExtType) and value.code == 0 and len(value.data) == 8:
            return list(struct.unpack(">II", value.data))
        return None

    def take(message: Any) -> bytes:
        if not isinstance(message, list) or not 2 <= len(message) <= 4 or not isinstance(message[0], bytes):
            out.wrong(f"no message: {message!r:.200}")
            return b""
        tag, *rest = message
        entries, options = ([rest[:2]], rest[2:]) if not isinstance(rest[0], list) else (rest[0], rest[1:])
        rows = []
        for entry in entries:
            if len(entry) != 2 or moment(entry[0]) is None or not isinstance(entry[1], dict):
                out.wrong(f"no entry: {entry!r:.200}")
                continue
            rows.append({"tag": _plain(tag), "time": moment(entry[0]), "record": _plain(entry[1])})
        out.put(*rows)
        chunk = options[0].get(b"chunk") if options else None
        return msgpack.packb({"ack": chunk.decode()}) if chunk and not settings.get("silent") else b""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            unpacker = msgpack.Unpacker(raw=True)
            while data := self.request.recv(1 << 16):
                unpacker.feed(data)
                for message in unpacker:
                    if answer := take(message):
                        self.request.sendall(answer)

    return _serve(settings, Handler)


def _serve(settings: Mapping[str, Any], handler: Any) -> int:
    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True
        address_family = socket.AF_UNIX if settings["path"] else socket.AF_INET

        def finish_request(self, request: Any, client: Any) -> None:
            if settings["certificates"]:
                request = _tls(settings).wrap_socket(request, server_side=True)
            super().finish_request(request, client)

    if settings["path"]:
        Path(settings["path"]).unlink(missing_ok=True)
    server = Server(settings["path"] or ("127.0.0.1", settings["port"]), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return 0 if settings["path"] else int(server.server_address[1])


def _tls(settings: Mapping[str, Any]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    folder = Path(settings["certificates"])
    context.load_cert_chain(folder / "server.pem", folder / "server-key.pem")
    return context


# GELF.


def _gelf(settings: Mapping[str, Any], out: _Out) -> int:
    def take(packed: bytes, how: str) -> None:
        kind = "none"
        if packed[:2] == b"\x1f\x8b":
            packed, kind = gzip.decompress(packed), "gzip"
        elif packed[:1] == b"\x78":
            packed, kind = zlib.decompress(packed), "zlib"
        try:
            message = json.loads(packed)
        except ValueError as error:
            out.wrong(f"no JSON: {error}: {packed[:200]!r}")
            return
        known = {"version", "host", "short_message", "full_message", "timestamp", "level"}
        odd = [name for name in message if name not in known and not name.startswith("_")] + ["_id"] * (
            "_id" in message
        )
        if odd or message.get("version") != "1.1" or not isinstance(message.get("host"), str):
            out.wrong(f"no GELF 1.1: {odd} {message!r:.300}")
        elif not isinstance(message.get("timestamp"), int | float) or not isinstance(message.get("short_message"), str):
            out.wrong(f"no GELF 1.1: {message!r:.300}")
        else:
            out.put({"how": how, "packed": kind, **message})

    class Stream(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            buffer = b""
            while data := self.request.recv(1 << 16):
                *messages, buffer = (buffer + data).split(b"\0")
                for message in messages:
                    take(message, "tcp")

    port = _serve(settings, Stream)
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    datagrams.bind(("127.0.0.1", port))

    def receive() -> None:
        chunks: dict[bytes, dict[int, bytes]] = {}
        while True:
            data = datagrams.recv(1 << 16)
            if data[:2] != b"\x1e\x0f":
                take(data, "udp")
                continue
            key, number, count = data[2:10], data[10], data[11]
            if not 0 < count <= 128 or number >= count or len(data) > 8192:
                out.wrong(f"no chunk: {number} of {count}, {len(data)} bytes")
                continue
            have = chunks.setdefault(key, {})
            if number in have:
                out.wrong("a chunk twice")
            have[number] = data[12:]
            if len(have) == count:
                take(b"".join(part for _, part in sorted(chunks.pop(key).items())), "udp chunked")

    threading.Thread(target=receive, daemon=True).start()
    return port


# HTTP.


def _http(settings: Mapping[str, Any], answer: Callable[[Any, bytes], tuple[int, Any]]) -> int:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            status, reply = answer(self, body)
            data = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_OPTIONS = _any

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", settings["port"]), Handler)
    server.daemon_threads = True
    if settings["certificates"]:
        server.socket = _tls(settings).wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_address[1])


def _hec(settings: Mapping[str, Any], out: _Out) -> int:
    def answer(request: Any, body: bytes) -> tuple[int, Any]:
        if request.path != "/services/collector/event/1.0":
            return 404, {"text": "The requested URL was not found on this server.", "code": 404}
        if settings.get("status"):
            return settings["status"], {"text": "Server is busy", "code": 9}
        if request.command == "OPTIONS":
            return 200, {}
        if request.headers.get("Authorization") != f"Splunk {settings['token']}":
            return 403, {"text": "Invalid token", "code": 4}
        decoder, rest, rows = json.JSONDecoder(), body.decode(), []
        while rest:
            try:
                event, end = decoder.raw_decode(rest)
            except ValueError:
                return 400, {"text": "Invalid data format", "code": 6, "invalid-event-number": len(rows)}
            if not event.get("event") or event["event"] == settings.get("refused"):
                return 400, {"text": "Event field cannot be blank", "code": 13, "invalid-event-number": len(rows)}
            odd = event.keys() - {"event", "time", "host", "source", "sourcetype", "index", "fields"}
            if odd or not isinstance(event.get("host"), str):
                out.wrong(f"no event: {event!r:.300}")
            rows.append(event | {"gzip": request.headers.get("Content-Encoding") == "gzip"})
            rest = rest[end:]
        if not rows:
            return 400, {"text": "No data", "code": 5}
        out.put(*rows)
        return 200, {"text": "Success", "code": 0}

    return _http(settings, answer)


def _cloudwatch(settings: Mapping[str, Any], out: _Out) -> int:
    groups: dict[str, set[str]] = (settings.get("groups") and {name: set() for name in settings["groups"]}) or {}

    def no(kind: str) -> tuple[int, Any]:
        return 400, {"__type": kind, "message": "not here"}

    def answer(request: Any, body: bytes) -> tuple[int, Any]:
        call = request.headers.get("X-Amz-Target", "").removeprefix("Logs_20140328.")
        asked = json.loads(body)
        if not request.headers.get("Authorization", "").startswith("AWS4-HMAC-SHA256 "):
            out.wrong("a call that is not signed")
        group, stream = asked.get("logGroupName"), asked.get("logStreamName")
        if call == "CreateLogGroup":
            if group in groups:
                return no("ResourceAlreadyExistsException")
            groups[group] = set()
            return 200, {}
        if group not in groups:
            return no("ResourceNotFoundException")
        if call == "CreateLogStream":
            if stream in groups[group]:
                return no("ResourceAlreadyExistsException")
            groups[group].add(stream)
            return 200, {}
        if call != "PutLogEvents":
            return no("UnknownOperationException")
        if stream not in groups[group]:
            return no("ResourceNotFoundException")
        events = asked["logEvents"]
        times = [event["timestamp"] for event in events]
        size = sum(len(event["message"].encode()) + 26 for event in events)
        if not 1 <= len(events) <= 10_000 or size > 1 << 20 or times != sorted(times):
            out.wrong(f"{len(events)} events of {size} bytes, in order: {times == sorted(times)}")
        if times[-1] - times[0] >= 24 * 3600 * 1000 or not all(event["message"] for event in events):
            out.wrong("events of more than a day, or an empty one")
        extra = {"group": group, "stream": stream, "format": request.headers.get("x-amzn-logs-format", "")}
        out.put(*({**event, **extra} for event in events))
        return 200, {}

    return _http(settings, answer)


def _google(settings: Mapping[str, Any], out: _Out) -> int:
    def answer(request: Any, body: bytes) -> tuple[int, Any]:
        if (request.command, request.path.partition("?")[0]) != ("POST", "/v2/entries:write"):
            return 404, {"error": {"code": 404, "message": "not here", "status": "NOT_FOUND"}}
        if settings.get("status"):
            return settings["status"], {"error": {"code": settings["status"], "message": "later"}}
        asked = json.loads(body)
        out.put(*({"logName": asked.get("logName"), **entry} for entry in asked["entries"]))
        return 200, {}

    return _http(settings, answer)


def main(settings: dict[str, Any]) -> None:
    """Run one receiver until it is killed. Prints its port."""
    kinds = {"forward": _forward, "gelf": _gelf, "hec": _hec, "cloudwatch": _cloudwatch, "google": _google}
    print(kinds[settings["kind"]](settings, _Out(settings["out"])), flush=True)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

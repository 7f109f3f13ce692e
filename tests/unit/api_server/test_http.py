"""Requests and answers over real sockets."""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import Any

import pytest
from fastapi import APIRouter, Request
from fastapi.responses import Response

from plugin_sdk.api import Denial
from plugins.api_server import app

CLOSE = b"Host: x\r\nConnection: close\r\n"


def get(path: str, extra: bytes = b"") -> bytes:
    return b"GET %b HTTP/1.1\r\n%b%b\r\n" % (path.encode(), CLOSE, extra)


def post(path: str, content: bytes, kind: bytes = b"application/json", extra: bytes = b"") -> bytes:
    head = b"POST %b HTTP/1.1\r\n%bContent-Type: %b\r\nContent-Length: %d\r\n%b\r\n"
    return head % (path.encode(), CLOSE, kind, len(content), extra) + content


def parse(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, content = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return int(first.split()[1]), headers, content


def message(answer: bytes) -> tuple[int, str]:
    status, _, content = parse(answer)
    return status, json.loads(content)["message"]


def test_every_answer_says_what_serves_it(running: Any) -> None:
    for path in ("/small", "/nothing", "/v1.99/small"):
        _, headers, _ = parse(running.ask(get(path)))
        assert headers["api-version"] == "1.51"
        assert headers["docker-experimental"] == "false"
        assert headers["ostype"] == "linux"
        assert headers["server"] == "Docker/9.9 (linux)"


@pytest.mark.parametrize("path", ["/small", "/v1.51/small"])
def test_newest_version(running: Any, path: str) -> None:
    assert json.loads(parse(running.ask(get(path)))[2]) == {"Version": "1.51"}


def test_asked_version(running: Any) -> None:
    assert json.loads(parse(running.ask(get("/v1.24/small")))[2]) == {"Version": "1.24"}


def test_version_gate(running: Any) -> None:
    too_new = "client version 1.99 is too new. Maximum supported API version is 1.51"
    assert message(running.ask(get("/v1.99/small"))) == (400, too_new)
    too_old = (
        "client version 1.10 is too old. Minimum supported API version is 1.24, "
        "please upgrade your client to a newer version"
    )
    assert message(running.ask(get("/v1.10/small"))) == (400, too_old)


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nothing"), ("DELETE", "/small"), ("GET", "/v1.44"), ("GET", "/vx/small")]
)
def test_no_such_page(running: Any, method: str, path: str) -> None:
    request = b"%b %b HTTP/1.1\r\n%b\r\n" % (method.encode(), path.encode(), CLOSE)
    assert message(running.ask(request)) == (404, "page not found")


def test_path_parameters(running: Any) -> None:
    answer = parse(running.ask(get("/named/a%2Fb/c:tag/json?limit=3")))
    assert json.loads(answer[2]) == {"Name": "a/b/c:tag", "Limit": 3}


def test_a_bad_query_parameter_is_named(running: Any) -> None:
    status, text = message(running.ask(get("/named/a/json?limit=x")))
    assert status == 400
    assert "limit" in text


def test_errors(running: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert message(running.ask(get("/missing"))) == (404, "No such thing: x")
    with caplog.at_level(logging.ERROR):
        status, text = message(running.ask(get("/boom")))
    assert status == 500
    assert "a bug" in text
    assert "Traceback" in caplog.text
    assert message(running.ask(get("/file")))[0] == 500


def test_not_modified_has_no_body(running: Any) -> None:
    status, headers, content = parse(running.ask(get("/same")))
    assert (status, content) == (304, b"")
    assert "transfer-encoding" not in headers


def test_denied(running: Any) -> None:
    running.denial = Denial("not today")
    assert message(running.ask(get("/v1.40/small?a=b"))) == (403, "not today")
    view = running.views[-1]
    assert (view.method, view.path, view.query, view.api_version) == ("GET", "/small", "a=b", (1, 40))
    assert view.headers["Connection"] == "close"


def test_json_body(running: Any) -> None:
    status, _, content = parse(running.ask(post("/document", b'{"name": "a", "Count": null}')))
    assert (status, json.loads(content)) == (201, {"Name": "a", "Count": 0})


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (b"{", b"application/json", "invalid JSON"),
        (b"", b"application/json", "got EOF while reading request body"),
        (b"{} x", b"application/json", "invalid JSON"),
        (b'{"Count": "many"}', b"application/json", "Count"),
        (b"[]", b"application/json", "invalid value"),
        (b"{}", b"text/plain", "unsupported Content-Type header (text/plain): must be 'application/json'"),
    ],
)
def test_bad_body(running: Any, content: bytes, kind: bytes, words: str) -> None:
    status, text = message(running.ask(post("/document", content, kind)))
    assert status == 400
    assert words in text


def test_huge_body_is_refused_and_the_client_can_read_why(running: Any) -> None:
    with running.connect() as client:
        client.sendall(
            b"POST /document HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999999\r\n\r\n"
        )
        client.sendall(b" " * 100_000)
        got = client.recv(65536)
    assert b"413" in got.split(b"\r\n")[0]
    chunked = (
        b"POST /document HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with running.connect() as client:
        client.sendall(chunked)
        piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
        for _ in range(65):
            client.sendall(piece)
        assert b"413" in client.recv(65536).split(b"\r\n")[0]


@pytest.mark.parametrize("kind", ["unix", "tls"])
@pytest.mark.parametrize("path", ["/upload", "/spooled"])
def test_uploads_have_no_limit(running: Any, kind: str, path: str, read: Any) -> None:
    size = 20 * 1024 * 1024
    with running.connect(kind) as client:
        client.sendall(b"POST %b HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n" % (path.encode(), CLOSE, size))
        for _ in range(20):
            client.sendall(b"x" * 1024 * 1024)
        assert json.loads(parse(read(client))[2])["Bytes"] == size


def test_chunked_upload_in_small_pieces(running: Any, read: Any) -> None:
    with running.connect() as client:
        request = b"POST /upload HTTP/1.1\r\n" + CLOSE + b"Transfer-Encoding: chunked\r\n\r\n"
        request += b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nTrailer: x\r\n\r\n"
        for byte in request:
            client.sendall(bytes([byte]))
        assert json.loads(parse(read(client))[2])["Bytes"] == 11


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
        b"POST /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n",
        b"rubbish\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /named/a%00b/json HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT :x HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    ],
)
def test_rubbish_is_refused(running: Any, request_: bytes) -> None:
    assert running.ask(request_).startswith(b"HTTP/1.1 400 ")
    assert parse(running.ask(get("/small")))[0] == 200


def test_endless_headers_are_refused(running: Any) -> None:
    answer = running.ask(b"GET / HTTP/1.1\r\n" + b"A: " + b"b" * 70_000)
    assert answer.startswith(b"HTTP/1.1 431 ")


def test_keep_alive_and_pipelining(running: Any, until: Any) -> None:
    request = b"GET /small HTTP/1.1\r\nHost: x\r\n\r\n"
    with running.connect() as client:
        for _ in range(3):
            client.sendall(request)
            assert b"200 OK" in until(client, b"}\n")
        client.sendall(request * 20)
        for _ in range(20):
            assert b"200 OK" in until(client, b"}\n")


def test_a_client_that_ends_its_side_still_gets_its_answer(running: Any, read: Any) -> None:
    import socket

    for kind in ("unix", "tcp"):
        with running.connect(kind) as client:
            client.sendall(b"GET /small HTTP/1.1\r\nHost: x\r\n\r\n")
            client.shutdown(socket.SHUT_WR)
            assert b"200 OK" in read(client)


def test_head(running: Any) -> None:
    answer = running.ask(b"HEAD /small HTTP/1.1\r\n" + CLOSE + b"\r\n")
    assert parse(answer)[0] == 404
    assert answer.endswith(b"\r\n\r\n")


def test_http_1_0(running: Any) -> None:
    assert running.ask(b"GET /small HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 OK")


def test_expect_continue(running: Any, until: Any, read: Any) -> None:
    with running.connect() as client:
        client.sendall(b"POST /upload HTTP/1.1\r\n" + CLOSE + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert until(client, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"abc")
        assert json.loads(parse(read(client))[2])["Bytes"] == 3


@pytest.mark.parametrize("kind", ["unix", "tcp", "tls"])
@pytest.mark.parametrize("path", ["/ticks", "/silent"])
def test_a_stream_ends_with_its_client(running: Any, kind: str, path: str, until: Any) -> None:
    with running.connect(kind) as client:
        client.sendall(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
        until(client, b"\r\n\r\n")
    running.wait_for(f"{path[1:]} ended")


def test_work_goes_on_without_its_client_unless_it_says_so(running: Any) -> None:
    for path, note in (("/work", "work done"), ("/work?abandon=1", "work abandoned")):
        running.seen.clear()
        with running.connect() as client:
            client.sendall(post(path, b""))
            running.wait_for("work began")
        running.wait_for(note)


def test_progress(running: Any) -> None:
    assert b'{"status":"one"}\r\n' in running.ask(post("/progress", b""))
    assert message(running.ask(post("/progress?fail=first", b""))) == (404, "nothing there")
    assert b'{"errorDetail":{"message":"gone meanwhile"},"error":"gone meanwhile"}' in running.ask(
        post("/progress?fail=later", b"")
    )


def test_a_broken_stream_is_seen_as_broken(running: Any) -> None:
    answer = running.ask(get("/broken"))
    assert b"half" in answer
    assert not answer.endswith(b"0\r\n\r\n")


def test_half_a_request_does_no_harm(running: Any) -> None:
    clients = [running.connect() for _ in range(20)]
    for client in clients:
        client.sendall(
            b"POST /document HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
        )
    assert parse(running.ask(get("/small")))[0] == 200
    for client in clients:
        client.close()
    assert parse(running.ask(get("/small")))[0] == 200


def test_stop_cuts_streams_off(running: Any, until: Any, read: Any) -> None:
    with running.connect() as client:
        client.sendall(b"GET /ticks HTTP/1.1\r\nHost: x\r\n\r\n")
        until(client, b"tick\n")
        began = time.monotonic()
        stopper = threading.Thread(target=running.run, args=(running.server.stop,))
        stopper.start()
        read(client)
        assert time.monotonic() - began < 3
        stopper.join()
    assert "ticks ended" in running.seen
    assert not running.path.exists()


def test_a_request_waits_for_a_plugin_that_is_starting(running: Any) -> None:
    router = APIRouter()

    @router.get("/late")
    async def late(request: Request) -> Response:
        return Response(b"here")

    def come() -> None:
        running.late = router

    running.api.starting = True
    running.loop.call_soon_threadsafe(running.loop.call_later, 0.3, come)
    assert parse(running.ask(get("/late")))[2] == b"here"
    assert parse(running.ask(get("/small")))[0] == 200


def test_what_has_not_come_when_all_have_started_does_not_exist(running: Any) -> None:
    def started() -> None:
        running.api.starting = False

    running.api.starting = True
    running.loop.call_soon_threadsafe(running.loop.call_later, 0.3, started)
    assert message(running.ask(get("/late"))) == (404, "page not found")


def test_patience_ends(running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "PATIENCE", 0.1)
    running.api.starting = True
    status, text = message(running.ask(get("/late")))
    assert status == 503
    assert "is starting" in text

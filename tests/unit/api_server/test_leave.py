"""What those who guard see of requests and replies: all of it, before it goes on; or it does not go on."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import socket
import time
from typing import Any

import pytest

from plugin_sdk import NotFound
from plugin_sdk.api import RESPONSE_SHOWN, Denial, RequestView


def parse(raw: bytes) -> tuple[int, bytes, bytes]:
    """Status, head and body of an answer that was read to its end."""
    head, _, body = raw.partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 100"):
        head, _, body = body.partition(b"\r\n\r\n")
    return int(head.split()[1]), head, body


def message(raw: bytes) -> tuple[int, str]:
    status, _, body = parse(raw)
    return status, json.loads(body)["message"]


def get(path: str, more: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n".encode()


def post(path: str, more: str) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n".encode()


class Bodies:
    """An `inspect` that reads bodies and keeps them."""

    def __init__(self, limit: int = 4 << 20, *, careless: bool = False) -> None:
        self.limit, self.careless = limit, careless
        self.seen: list[bytes] = []

    async def __call__(self, view: RequestView) -> None:
        try:
            self.seen.append(await view.body(self.limit))
        except Exception:
            if not self.careless:
                raise


async def judge(view: RequestView) -> None:
    view.judge_response()


# Requests


def framed(body: bytes, pick: random.Random) -> tuple[str, list[bytes]]:
    """A body in some framing that HTTP/1.1 allows: header lines, and the pieces to send."""
    if pick.random() < 0.5:
        cuts = sorted(pick.randrange(len(body) + 1) for _ in range(pick.randrange(4)))
        pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
        return f"{pick.choice(['Content-Length', 'content-length', 'CONTENT-LENGTH'])}: {len(body)}\r\n", pieces
    pieces, rest = [], body
    while rest:
        size = pick.randrange(1, len(rest) + 1)
        extension = pick.choice([b"", b";a=b"])
        pieces.append(b"%x%b\r\n%b\r\n" % (size, extension, rest[:size]))
        rest = rest[size:]
    pieces.append(b"0\r\n" + pick.choice([b"", b"X-Trailer: 1\r\n"]) + b"\r\n")
    return (
        f"{pick.choice(['Transfer-Encoding', 'transfer-encoding'])}: {pick.choice(['chunked', 'Chunked'])}\r\n",
        pieces,
    )


@pytest.mark.parametrize("seed", range(12))
def test_a_guard_sees_the_very_bytes_that_the_route_gets(running: Any, read: Any, seed: int) -> None:
    pick = random.Random(seed)
    running.inspect = bodies = Bodies()
    body = pick.randbytes(pick.choice([0, 1, 17, 5000, 300_000]))
    lines, pieces = framed(body, pick)
    if pick.random() < 0.5:
        lines += "Expect: 100-continue\r\n"
    with running.connect(pick.choice(["unix", "tcp", "tls"])) as client:
        client.sendall(post("/upload", lines))
        for piece in pieces:
            client.sendall(piece)
            if pick.random() < 0.3:
                time.sleep(0.01)
        status, _, content = parse(read(client))
    assert status == 200
    assert json.loads(content) == {"Bytes": len(body)}
    assert running.seen == ["uploaded", hashlib.sha256(body).hexdigest()]
    assert bodies.seen == [body]


def test_a_body_is_asked_for_only_when_wanted(running: Any, until: Any, read: Any) -> None:
    """Without a guard that wants it, nothing is read for it: the client of `Expect` gets no `100`."""
    running.denial = Denial("no")
    with running.connect() as client:
        client.sendall(post("/upload", "Content-Length: 5\r\nExpect: 100-continue\r\n"))
        assert read(client).startswith(b"HTTP/1.1 403")


@pytest.mark.parametrize("careless", [False, True])
@pytest.mark.parametrize("lines", ["Content-Length: 101\r\n", "Transfer-Encoding: chunked\r\n"])
def test_a_body_over_the_limit_is_refused(running: Any, lines: str, careless: bool) -> None:
    running.inspect = Bodies(100, careless=careless)
    payload = b"x" * 101 if "Length" in lines else b"40\r\n" + b"x" * 64 + b"\r\n40\r\n" + b"x" * 64 + b"\r\n0\r\n\r\n"
    status, text = message(running.ask(post("/upload", lines) + payload))
    assert status == 413
    assert "larger than the 100 bytes" in text
    assert "uploaded" not in running.seen


def test_a_body_at_the_limit_passes(running: Any) -> None:
    running.inspect = Bodies(100)
    assert parse(running.ask(post("/upload", "Content-Length: 100\r\n") + b"x" * 100))[0] == 200


def test_a_declared_giant_is_refused_before_it_comes(running: Any, read: Any) -> None:
    running.inspect = Bodies(100)
    with running.connect() as client:
        client.sendall(post("/upload", "Content-Length: 99999999999\r\nExpect: 100-continue\r\n"))
        assert read(client).startswith(b"HTTP/1.1 413")


def test_two_guards_with_limits_of_their_own(running: Any) -> None:
    wide, narrow = Bodies(1000), Bodies(10)

    async def both(view: RequestView) -> None:
        await wide(view)
        await narrow(view)

    running.inspect = both
    assert parse(running.ask(post("/upload", "Content-Length: 11\r\n") + b"x" * 11))[0] == 413
    assert parse(running.ask(post("/upload", "Content-Length: 10\r\n") + b"x" * 10))[0] == 200
    assert wide.seen == [b"x" * 11, b"x" * 10]
    assert narrow.seen == [b"x" * 10]


def test_a_client_that_leaves_half_way_through_its_body(running: Any) -> None:
    running.inspect = bodies = Bodies()
    with running.connect() as client:
        client.sendall(post("/upload", "Content-Length: 50\r\n") + b"x" * 20)
        time.sleep(0.05)
    time.sleep(0.1)
    assert bodies.seen == []
    assert "uploaded" not in running.seen
    assert parse(running.ask(get("/small")))[0] == 200


def test_a_client_that_leaves_behind_its_request_still_has_it_done(running: Any) -> None:
    async def slow(view: RequestView) -> None:
        await asyncio.sleep(0.1)

    running.inspect = slow
    with running.connect() as client:
        client.sendall(post("/work", "Content-Length: 0\r\n"))
    running.wait_for("work done")


@pytest.mark.parametrize(
    "lines",
    [
        "Content-Length: 5\r\nContent-Length: 0\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Type: application/json\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n",
        "Content-Type: application/json\r\ncontent-type: text/plain\r\nContent-Length: 5\r\n",
    ],
)
def test_two_readings_of_a_head_are_none(running: Any, lines: str) -> None:
    """What one reader would take for a body and another for none, or in another form, is no request."""
    running.inspect = bodies = Bodies()
    assert parse(running.ask(post("/upload", lines) + b"5\r\nhello\r\n0\r\n\r\n"))[0] == 400
    assert bodies.seen == []
    assert "uploaded" not in running.seen


def test_a_body_without_a_length_is_the_next_request(running: Any, read: Any) -> None:
    """Bytes behind a head that announces none belong to no body, and the route gets none of them either."""
    running.inspect = bodies = Bodies()
    with running.connect() as client:
        client.sendall(b"POST /upload HTTP/1.1\r\nHost: x\r\n\r\n" + get("/small"))
        answer = read(client)
    assert answer.count(b"HTTP/1.1 200") == 2
    assert bodies.seen == [b"", b""]


def test_the_hijacked_stream_begins_behind_the_body(running: Any, until: Any) -> None:
    running.inspect = bodies = Bodies()
    with running.connect() as client:
        lines = "Content-Length: 2\r\nContent-Type: application/json\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        client.sendall(f"POST /echo HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode() + b"{}more")
        until(client, b"\r\n\r\n")
        assert until(client, b"more") == b"more"
        client.shutdown(socket.SHUT_WR)
        assert until(client, b"bye 4") == b"bye 4"
    assert bodies.seen == [b"{}"]


def test_who_asks(running: Any, read: Any) -> None:
    with running.connect("tls") as client:
        client.sendall(get("/v1.40/small?a=%20b"))
        read(client)
    running.ask(get("/small"))
    over_tls, plain = running.views
    assert (over_tls.peer, over_tls.auth_method) == ("test client", "TLS")
    own = (running.certificates / "client.pem").read_text()
    assert over_tls.certificates[0].split() == own[own.index("-----BEGIN") :].split()
    assert over_tls.target == "/v1.40/small?a=%20b"
    assert (plain.peer, plain.auth_method, plain.certificates) == ("", "", ())


def test_ping_needs_leave(running: Any) -> None:
    running.denial = Denial("no ping")
    assert message(running.ask(get("/_ping"))) == (403, "no ping")


def test_an_error_of_a_guard_keeps_its_status(running: Any) -> None:
    async def fail(view: RequestView) -> None:
        raise NotFound("the plugin guard is not there")

    running.inspect = fail
    assert message(running.ask(get("/small"))) == (404, "the plugin guard is not there")


# Replies


def test_nothing_is_judged_unasked(running: Any) -> None:
    running.reply_denial = Denial("never")
    assert parse(running.ask(get("/small")))[0] == 200
    assert running.replies == []


@pytest.mark.parametrize(
    ("request_", "status", "body"),
    [
        (get("/v1.40/small"), 200, b'{"Version":"1.40"}\n'),
        (get("/missing"), 404, b'{"message":"No such thing: x"}\n'),
        (get("/nowhere"), 404, b'{"message":"page not found"}\n'),
        (get("/same"), 304, b""),
        (get("/ticks"), 200, None),
        (get("/silent"), 200, None),
        (post("/echo", "Upgrade: tcp\r\nConnection: Upgrade\r\n"), 101, None),
        (post("/echo", ""), 200, None),
        (post("/progress", ""), 200, None),
        (post("/progress?fail=first", ""), 404, b'{"message":"nothing there"}\n'),
    ],
    ids=[
        "small",
        "error",
        "no route",
        "304",
        "stream",
        "silent stream",
        "upgrade",
        "hijack",
        "progress",
        "no progress",
    ],
)
def test_a_reply_is_judged_before_any_of_it_leaves(
    running: Any, request_: bytes, status: int, body: bytes | None
) -> None:
    running.inspect = judge
    running.reply_denial = Denial("not that")
    answer = running.ask(request_)
    assert message(answer) == (403, "not that")
    assert answer.count(b"HTTP/1.1") == 1
    (shown,) = running.replies
    assert (shown.status, shown.body) == (status, body)


def test_a_reply_that_may_leave_is_unchanged(running: Any, until: Any) -> None:
    before = [running.ask(get(path)) for path in ("/v1.40/small", "/missing", "/same")]
    running.inspect = judge
    after = [running.ask(get(path)) for path in ("/v1.40/small", "/missing", "/same")]
    dateless = [[line for line in answer.split(b"\r\n") if not line.startswith(b"Date")] for answer in before + after]
    assert dateless[:3] == dateless[3:]
    assert len(running.replies) == 3
    assert running.replies[0].headers["content-type"] == "application/json"
    with running.connect() as client:
        client.sendall(get("/ticks"))
        until(client, b"tick\n")
        until(client, b"tick\n")
    running.wait_for("ticks ended")


def test_a_stream_has_its_head_before_its_first_byte(running: Any, until: Any) -> None:
    running.inspect = judge
    with running.connect() as client:
        client.sendall(get("/silent"))
        assert b"200 OK" in until(client, b"\r\n\r\n")


def test_a_long_reply_is_judged_without_its_body(running: Any) -> None:
    from fastapi import APIRouter
    from fastapi.responses import Response

    running.inspect = judge
    running.late = router = APIRouter()

    @router.get("/big")
    async def big(size: int) -> Response:
        return Response(b"x" * size)

    for size in (RESPONSE_SHOWN, RESPONSE_SHOWN + 1):
        assert len(parse(running.ask(get(f"/big?size={size}")))[2]) == size
    assert [reply.body and len(reply.body) for reply in running.replies] == [RESPONSE_SHOWN, None]
    assert running.replies[1].headers["content-length"] == str(RESPONSE_SHOWN + 1)


def test_a_refused_request_is_not_judged_again(running: Any) -> None:
    running.inspect = judge
    running.denial, running.reply_denial = Denial("no"), Denial("not that")
    assert message(running.ask(get("/small"))) == (403, "no")
    assert running.replies == []


def test_a_judge_that_fails_refuses(running: Any) -> None:
    running.inspect = judge
    running.reply_denial = NotFound("the judge is gone")
    assert message(running.ask(get("/small"))) == (404, "the judge is gone")


WEBSOCKET = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Mine: 1\r\n"
)


def upgrade(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n{WEBSOCKET}\r\n".encode()


def test_websockets_are_guarded_alike(running: Any, until: Any) -> None:
    running.inspect = judge
    with running.connect("tls") as client:
        client.sendall(upgrade("/v1.40/talk?a=b"))
        assert b"101" in until(client, b"\r\n\r\n")
        until(client, b"hello")
    (view,), (reply,) = running.views, running.replies
    assert (view.path, view.target, view.peer, view.auth_method) == ("/talk", "/v1.40/talk?a=b", "test client", "TLS")
    assert view.headers["x-mine"] == "1"
    assert (reply.status, reply.body) == (101, None)
    running.reply_denial = Denial("no talk")
    with running.connect() as client:
        client.sendall(upgrade("/talk"))
        assert until(client, b'{"message":"no talk"}').startswith(b"HTTP/1.1 403")


def test_routes_are_timed(running: Any) -> None:
    running.ask(get("/named/a/json"))
    running.ask(get("/named/b/json"))
    running.ask(get("/missing"))
    times = running.api.table.times()
    assert times["GET", "/named/{name}/json"].done == 2
    assert sum(times["GET", "/named/{name}/json"].buckets) == 2
    assert (times["GET", "/missing"].done, times["GET", "/missing"].failed) == (0, 1)

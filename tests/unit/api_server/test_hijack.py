"""Connections that a route takes over."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any

import pytest

UPGRADE = b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"
PLAIN = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"

KINDS = ["unix", "tcp", "tls"]


def end_of_input(client: socket.socket) -> None:
    """What a client's CloseWrite does."""
    if not hasattr(client, "unwrap"):
        client.shutdown(socket.SHUT_WR)
        return
    # Python's SSLSocket cannot send close_notify and go on reading by its own means: `_sslobj.shutdown` waits for the
    # other side's, but has sent ours when it times out.
    client.settimeout(0.2)
    with contextlib.suppress(OSError):
        client._sslobj.shutdown()
    client.settimeout(10)


def test_upgraded_head(running: Any, until: Any) -> None:
    with running.connect() as client:
        client.sendall(UPGRADE)
        head = until(client, b"\r\n\r\n")
    assert head.startswith(
        b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n"
        b"Connection: Upgrade\r\nUpgrade: tcp\r\nApi-Version: 1.51\r\n"
    )


def test_head_without_upgrade(running: Any, until: Any) -> None:
    with running.connect() as client:
        client.sendall(PLAIN)
        head = until(client, b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n")
    assert b"chunked" not in head


@pytest.mark.parametrize("kind", ["unix", "tcp"])
@pytest.mark.parametrize("request_", [UPGRADE, PLAIN])
def test_half_close(running: Any, kind: str, request_: bytes, until: Any, read: Any) -> None:
    with running.connect(kind) as client:
        client.sendall(request_)
        until(client, b"\r\n\r\n")
        client.sendall(b"hi")
        assert client.recv(10) == b"hi"
        end_of_input(client)
        assert read(client) == b"bye 2"


@pytest.mark.parametrize("request_", [UPGRADE, PLAIN])
def test_bytes_right_behind_the_request_belong_to_the_stream(running: Any, request_: bytes, read: Any) -> None:
    for kind in ("unix", "tcp"):
        with running.connect(kind) as client:
            client.sendall(request_ + b"GET / HTTP/1.1\r\n\r\n")
            end_of_input(client)
            assert read(client).endswith(b"\r\n\r\nGET / HTTP/1.1\r\n\r\nbye 18")


def test_a_lot_behind_the_request(running: Any, read: Any) -> None:
    import threading

    with running.connect() as client:
        sender = threading.Thread(target=lambda: (client.sendall(PLAIN + b"x" * 3_000_000), end_of_input(client)))
        sender.start()
        answer = read(client)
        sender.join()
    assert answer.endswith(b"bye 3000000")


def test_a_slow_reader_holds_the_writer_up(running: Any, read: Any) -> None:
    request = PLAIN.replace(b"/echo", b"/flood?pieces=400")
    with running.connect() as client:
        client.sendall(request)
        time.sleep(0.5)
        assert len(running.seen) < 100
        assert len(read(client)) > 400 * 65536


@pytest.mark.parametrize("kind", ["unix", "tls"])
def test_gone(running: Any, kind: str, until: Any) -> None:
    with running.connect(kind) as client:
        client.sendall(PLAIN.replace(b"/echo", b"/watch"))
        until(client, b"\r\n\r\n")
        if kind == "tls":
            end_of_input(client)  # over TLS, as over TCP, only what was said before tells an end from a half-close
    running.wait_for("gone")


@pytest.mark.parametrize("request_", [UPGRADE, PLAIN])
def test_the_end_of_tcp_under_tls_ends_the_input_alone(running: Any, request_: bytes, until: Any, read: Any) -> None:
    with running.connect("tls") as client:
        client.sendall(request_)
        until(client, b"\r\n\r\n")
        client.sendall(b"hi")
        assert client.recv(10) == b"hi"
        socket.socket.shutdown(client, socket.SHUT_WR)
        assert read(client) == b"bye 2"


def test_half_closed_is_not_gone(running: Any, until: Any) -> None:
    client = running.connect()
    client.sendall(PLAIN.replace(b"/echo", b"/watch"))
    until(client, b"\r\n\r\n")
    client.shutdown(socket.SHUT_WR)
    running.wait_for("input ended")
    time.sleep(0.2)
    assert "gone" not in running.seen
    client.close()
    running.wait_for("gone")


def test_output_survives_unread_input(running: Any, read: Any) -> None:
    """A client that sends on while the stream ends must still get all of the output."""
    for kind in ("unix", "tcp"):
        with running.connect(kind) as client:
            client.sendall(PLAIN.replace(b"/echo", b"/flood?pieces=20") + b"unread" * 1000)
            time.sleep(0.3)
            client.sendall(b"more")
            assert len(read(client)) > 20 * 65536


def test_h2c_is_answered_in_plain_http(running: Any, until: Any) -> None:
    with running.connect() as client:
        client.sendall(
            b"POST /grpc HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nContent-Length: 0\r\n\r\n"
        )
        assert until(client, b"\r\n\r\n").startswith(b"HTTP/1.1 404 ")


def test_websocket_without_a_library_or_route(running: Any, until: Any) -> None:
    with running.connect() as client:
        client.sendall(
            b"GET /attach/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        status = int(until(client, b"\r\n\r\n").split()[1])
    assert status in (404, 501)


def test_tls_half_close_with_openssl(running: Any) -> None:
    """s_client sends close_notify at the end of its input when told to, and goes on reading."""
    import ssl as ssl_module

    incoming, outgoing = ssl_module.MemoryBIO(), ssl_module.MemoryBIO()
    tls = running.client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", running.tls), timeout=10) as client:

        def step(action: Any) -> Any:
            while True:
                try:
                    return action()
                except ssl_module.SSLWantReadError:
                    if outgoing.pending:
                        client.sendall(outgoing.read())
                    data = client.recv(65536)
                    if not data:
                        return b""
                    incoming.write(data)

        step(tls.do_handshake)
        tls.write(UPGRADE + b"hi")
        client.sendall(outgoing.read())
        got = b""
        while not got.endswith(b"hi"):
            got += step(lambda: tls.read(4096))
        try:
            tls.unwrap()
        except ssl_module.SSLWantReadError:
            client.sendall(outgoing.read())
        rest = b""
        while True:
            try:
                data = tls.read(4096)
            except ssl_module.SSLWantReadError:
                received = client.recv(65536)
                if not received:
                    break
                incoming.write(received)
                continue
            except ssl_module.SSLZeroReturnError:
                break
            if not data:
                break
            rest += data
    assert rest == b"bye 2"


def test_tls_wants_a_certificate(running: Any) -> None:
    import ssl as ssl_module

    with socket.create_connection(("127.0.0.1", running.tls), timeout=10) as raw:
        context = running.client_context(certificate=False)
        with pytest.raises(OSError), context.wrap_socket(raw, server_hostname="localhost") as client:
            client.sendall(b"GET /small HTTP/1.1\r\nHost: x\r\n\r\n")
            if not client.recv(100):
                raise ssl_module.SSLError("refused")


def test_tls_peer_is_known(running: Any, read: Any) -> None:
    with running.connect("tls") as client:
        client.sendall(b"GET /small HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"200 OK" in read(client)
    assert running.views[-1].peer == "test client"


def test_plain_http_to_the_tls_port(running: Any, read: Any) -> None:
    with socket.create_connection(("127.0.0.1", running.tls), timeout=10) as client:
        client.sendall(b"GET /small HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"Client sent an HTTP request to an HTTPS server." in read(client)

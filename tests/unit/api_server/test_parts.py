"""The server's parts by themselves: chunks, listeners, routes, the watchdog."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import stat
import time
from pathlib import Path

import pytest
from fastapi import APIRouter, Request
from fastapi.responses import Response

from plugin_sdk import Conflict, InvalidParameter
from plugin_sdk.api import RouterSpec
from plugins.api_server.app import split_version
from plugins.api_server.chunked import ChunkedDecoder, ChunkedError
from plugins.api_server.listeners import open_all
from plugins.api_server.routes import RouteTable
from plugins.api_server.tls import common_name, server_context
from plugins.api_server.watchdog import Watchdog


def test_chunks_in_pieces_of_any_size() -> None:
    chooser = random.Random(1)
    payload = chooser.randbytes(5000)
    coded, position = b"", 0
    while position < len(payload):
        piece = payload[position : position + chooser.randint(1, 700)]
        coded += b"%x\r\n%b\r\n" % (len(piece), piece)
        position += len(piece)
    coded += b"0\r\n\r\nnext request"
    for _ in range(50):
        decoder, buffer, got, rest = ChunkedDecoder(), bytearray(), b"", coded
        complete = False
        while not complete:
            step = chooser.randint(1, 900)
            buffer += rest[:step]
            rest = rest[step:]
            data, complete = decoder.feed(buffer)
            got += data
        assert got == payload
        assert bytes(buffer) + rest == b"next request"


@pytest.mark.parametrize("bad", [b"\r\n", b"-1\r\n", b"0x5\r\n", b"5 5\r\n", b"3\r\nabcX\r\n", b"5" * 20_000])
def test_bad_chunks(bad: bytes) -> None:
    with pytest.raises(ChunkedError):
        ChunkedDecoder().feed(bytearray(bad))


@pytest.mark.parametrize(
    ("path", "version", "bare"),
    [
        ("/info", (1, 51), "/info"),
        ("/v1.41/info", (1, 41), "/info"),
        ("/version", (1, 51), "/version"),
        ("/volumes/v1.41/x", (1, 51), "/volumes/v1.41/x"),
        ("/v1.44", (1, 51), "/v1.44"),
    ],
)
def test_versions(path: str, version: tuple[int, int], bare: str) -> None:
    assert split_version(path) == (version, bare)


@pytest.mark.parametrize(
    "path", ["/v1.52/info", "/v2/info", "/v1.23/info", "/v1/info", "/v1..5/info", "/v999999999999999/info"]
)
def test_versions_that_are_not_served(path: str) -> None:
    with pytest.raises(InvalidParameter, match="client version"):
        split_version(path)


async def endpoint(request: Request) -> Response:
    return Response()


def test_route_table() -> None:
    first, second, late = APIRouter(), APIRouter(), APIRouter()
    for path in ("/containers/json", "/containers/{name}/json", "/images/{name:path}/json"):
        first.add_api_route(path, endpoint, methods=["GET"])
    second.add_api_route("/containers/json", endpoint, methods=["GET"])
    second.add_api_route("/{anything}/top", endpoint, methods=["GET"])

    late.add_api_route("/new", endpoint, methods=["POST"])
    second.include_router(late, prefix="/late")
    old = RouterSpec(first)
    new = RouterSpec(second, since=(1, 40), until=(1, 45))
    table = RouteTable([("first", old), ("second", new)])

    def owner(method: str, path: str, version: tuple[int, int] = (1, 44)) -> str | None:
        found = table.find(method, path, version)
        return found[0].plugin if found else None

    assert owner("GET", "/containers/json") == "first"
    assert owner("POST", "/containers/json") is None
    assert owner("GET", "/containers/a/b/json") is None
    assert owner("GET", "/x/top") == "second"
    assert owner("GET", "/x/top", (1, 46)) is None
    assert owner("GET", "/x/top", (1, 39)) is None
    assert owner("GET", "") is None
    assert owner("POST", "/late/new") == "second"
    found = table.find("GET", "/images/a/b:c/json", (1, 44))
    assert found is not None
    assert found[1] == {"name": "a/b:c"}


def test_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "folder/api.sock"
    listener = open_all([f"unix://{path}"], tls=False, group="")[0]
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    with pytest.raises(Conflict, match="another daemon answers there"):
        open_all([f"unix://{path}"], tls=False, group="")
    listener.close()
    assert not path.exists()


def test_a_dead_daemons_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    assert path.exists()
    for listener in open_all([f"unix://{path}"], tls=False, group=""):
        listener.close()


def test_a_new_daemons_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    old = open_all([f"unix://{path}"], tls=False, group="")[0]
    path.unlink()
    new = open_all([f"unix://{path}"], tls=False, group="")[0]
    old.close()
    assert path.exists()
    new.close()


def test_a_file_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(Conflict, match="is no socket"):
        open_all([f"unix://{path}"], tls=False, group="")
    assert path.read_text() == "data"


def test_all_or_none(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with pytest.raises(InvalidParameter):
        open_all([f"unix://{path}", "carrier-pigeon://x"], tls=False, group="")
    assert not path.exists()


@pytest.mark.parametrize(
    "host", ["tcp://127.0.0.1:99999", "tcp://host:port", "unix://" + "/x" * 80, "fd://", "fd://9", "tcp://a/b", "x://"]
)
def test_bad_hosts(host: str) -> None:
    with pytest.raises(InvalidParameter):
        open_all([host], tls=False, group="")


def test_port_in_use() -> None:
    listener = open_all(["tcp://127.0.0.1:0"], tls=False, group="")[0]
    with pytest.raises(Conflict, match="the address is in use"):
        open_all([listener.address], tls=False, group="")
    listener.close()


def test_unknown_group(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="no such group"):
        open_all([f"unix://{tmp_path}/s"], tls=False, group="no-such-group-here")


def test_socket_activation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import plugins.api_server.listeners as module

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as passed:
        passed.bind(str(tmp_path / "s"))
        passed.listen()
        monkeypatch.setattr(module, "FIRST_PASSED", passed.fileno())
        monkeypatch.setenv("LISTEN_FDS", "1")
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        listener = open_all(["fd://"], tls=True, group="")[0]
        assert not listener.tls
        assert listener.sock.getsockname() == str(tmp_path / "s")
        listener.close()
        monkeypatch.setenv("LISTEN_PID", "1")
        with pytest.raises(InvalidParameter, match="socket activation"):
            open_all(["fd://"], tls=False, group="")


def test_missing_certificates_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="--tlscert"):
        server_context(cert=str(tmp_path / "cert.pem"), key="k", ca=None)
    (tmp_path / "cert.pem").write_text("rubbish")
    with pytest.raises(InvalidParameter, match=r"cert\.pem"):
        server_context(cert=str(tmp_path / "cert.pem"), key=str(tmp_path / "cert.pem"), ca=None)


def test_common_name() -> None:
    assert common_name({"subject": ((("organizationName", "x"),), (("commonName", "me"),))}) == "me"
    assert common_name({}) == ""


async def test_watchdog(caplog: pytest.LogCaptureFixture) -> None:
    watchdog = Watchdog()
    watchdog.start()
    await asyncio.sleep(0.15)
    time.sleep(0.6)  # noqa: ASYNC251 - this is what it is to find
    await asyncio.sleep(0.15)
    watchdog.stop()
    assert watchdog.stalls.count == 1
    assert 0.3 < watchdog.stalls.longest < 0.8
    assert "time.sleep(0.6)" in watchdog.stalls.where
    assert "the event loop stood still" in caplog.text

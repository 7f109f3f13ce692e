"""What clients do to a live engine's connections."""

from __future__ import annotations

import json
import os
import socket
import stat
import time
from collections.abc import Callable
from typing import Any

import pytest
from harness import Client, Engine, eventually

pytestmark = pytest.mark.real


def info(engine: Client) -> Any:
    return engine.http("GET", "/info").json()


def test_attach_with_input_right_behind_the_request(engine: Client) -> None:
    """No Upgrade header, the input and its end sent at once with the request: nothing is lost."""
    body = {"Image": engine.image, "Cmd": ["wc", "-c"], "OpenStdin": True, "StdinOnce": True, "AttachStdin": True}
    created = engine.http("POST", "/containers/create", body | {"HostConfig": {"NetworkMode": "none"}})
    container = created.json()["Id"]
    try:
        with engine.connect() as client:
            path = f"/containers/{container}/attach?stream=1&stdin=1&stdout=1&stderr=1"
            client.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\nhello".encode())
            client.shutdown(socket.SHUT_WR)
            assert engine.http("POST", f"/containers/{container}/start").status == 204
            got = b""
            while data := client.recv(4096):
                got += data
        head, _, frames = got.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert frames == b"\x01\0\0\0\0\0\0\x025\n"
    finally:
        engine.http("DELETE", f"/containers/{container}?force=1")


def test_events_end_with_their_clients(engine: Client) -> None:
    before = info(engine)["NEventsListener"]
    clients = [engine.connect() for _ in range(5)]
    for client in clients:
        client.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
    assert info(engine)["NEventsListener"] == before + 5
    for client in clients:
        client.close()
    eventually(lambda: info(engine)["NEventsListener"] == before, timeout=5)


def test_requests_are_quick(engine: Client) -> None:
    """Far below what a client could feel, routing and JSON included (about 0.1 ms on a quiet machine)."""
    with engine.connect() as client:
        took = []
        for _ in range(300):
            began = time.perf_counter()
            client.sendall(b"GET /v1.45/containers/no-such/json HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 404 ")
            took.append(time.perf_counter() - began)
    assert sorted(took)[len(took) // 2] < 0.002


def test_hundreds_of_clients_at_once(engine: Client) -> None:
    clients = [engine.connect() for _ in range(300)]
    for client in clients:
        client.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    for client in clients:
        assert client.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
        client.close()


def test_the_socket_is_for_its_group_alone(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine("--group", "daemon", image=False)
    status = os.stat(engine.host.removeprefix("unix://"))
    assert stat.S_IMODE(status.st_mode) == 0o660
    assert status.st_gid == 1


def test_an_engine_takes_over_the_socket_of_a_killed_one(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine(image=False)
    engine.kill9()
    engine.start()
    assert engine.answers()


def test_a_streaming_client_does_not_hold_up_the_stop(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine(image=False)
    with engine.connect() as client:
        client.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(4096)
        began = time.monotonic()
        assert engine.stop() == 0
        assert time.monotonic() - began < 6


def test_a_request_at_the_very_start_waits_for_its_plugin(own_engine: Callable[..., Engine]) -> None:
    """Scripts send their first command as soon as the socket is there."""
    engine = own_engine(image=False)
    for _ in range(3):
        engine.stop()
        engine.spawn()
        eventually(lambda: engine.root.joinpath("s.sock").exists(), timeout=20)
        answer = None
        for _ in range(100):
            try:
                answer = engine.http("GET", "/containers/json")
                break
            except OSError:
                time.sleep(0.005)
        assert answer is not None
        assert (answer.status, json.loads(answer.body)) == (200, [])

"""A websocket as a raw stream."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import WebSocket

from plugins.containers.api.websocket import WebSocketStream


class FakeServer:
    """The server's side of one ASGI websocket."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self._messages = [{"type": "websocket.connect"}, *messages]
        self.sent: list[dict[str, Any]] = []
        self.leave = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        if self._messages:
            return self._messages.pop(0)
        await self.leave.wait()
        return {"type": "websocket.disconnect", "code": 1000}

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)


async def stream_on(server: FakeServer) -> WebSocketStream:
    websocket = WebSocket({"type": "websocket"}, server.receive, server.send)  # type: ignore[arg-type]
    await websocket.accept()
    return WebSocketStream(websocket)


async def test_binary_out_both_kinds_in_and_the_end() -> None:
    server = FakeServer(
        {"type": "websocket.receive", "bytes": b"\x00one"}, {"type": "websocket.receive", "text": "two"}
    )
    stream = await stream_on(server)
    assert [await stream.read(), await stream.read()] == [b"\x00one", b"two"]
    await stream.write(b"\xff out")
    assert server.sent[-1] == {"type": "websocket.send", "bytes": b"\xff out"}
    server.leave.set()
    async with asyncio.timeout(1):
        await stream.gone()
        assert await stream.read() == b""
    with pytest.raises(ConnectionError):
        await stream.write(b"x")
    await stream.end()


async def test_the_engine_closes() -> None:
    server = FakeServer()
    stream = await stream_on(server)
    await stream.end()
    assert server.sent[-1]["type"] == "websocket.close"
    assert await stream.read() == b""

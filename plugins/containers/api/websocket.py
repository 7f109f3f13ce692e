"""A websocket as the raw stream that a conversation needs."""

from __future__ import annotations

import asyncio
import codecs

from fastapi import WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

QUEUED = 16


class WebSocketStream:
    """Fulfils `plugin_sdk.api.RawStream`: input may be binary or text.

    Args:
        text: output goes out in text messages; what is no UTF-8 in it is replaced. Otherwise in binary ones.
    """

    def __init__(self, websocket: WebSocket, *, text: bool = False) -> None:
        self._websocket = websocket
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace") if text else None
        self._incoming: asyncio.Queue[bytes] = asyncio.Queue(QUEUED)
        self._gone = asyncio.Event()
        self._receiver = asyncio.ensure_future(self._receive())

    async def _receive(self) -> None:
        try:
            while True:
                message = await self._websocket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                data = message.get("bytes") or (message.get("text") or "").encode()
                if data:
                    await self._incoming.put(data)
        except (WebSocketDisconnect, RuntimeError, OSError):
            return  # closed by either side: `gone` says so
        finally:
            self._gone.set()

    async def read(self) -> bytes:
        """The next message; b"" when the client is gone: a websocket has no half-close."""
        if self._incoming.empty() and self._gone.is_set():
            return b""
        getting = asyncio.ensure_future(self._incoming.get())
        gone = asyncio.ensure_future(self._gone.wait())
        try:
            await asyncio.wait((getting, gone), return_when=asyncio.FIRST_COMPLETED)
            return getting.result() if getting.done() else b""
        finally:
            getting.cancel()
            gone.cancel()

    async def write(self, data: bytes) -> None:
        """Send a message. Raises ConnectionError when the client is gone."""
        if self._gone.is_set():
            raise ConnectionResetError("the client is gone")
        try:
            if self._decoder is None:
                await self._websocket.send_bytes(data)
            elif decoded := self._decoder.decode(data):
                await self._websocket.send_text(decoded)
        except (WebSocketDisconnect, RuntimeError) as error:
            raise ConnectionResetError(str(error)) from None

    async def end(self) -> None:
        """Close."""
        self._receiver.cancel()
        if not self._gone.is_set() and self._websocket.application_state is WebSocketState.CONNECTED:
            self._gone.set()
            try:
                await self._websocket.close()
            except RuntimeError as error:
                raise ConnectionResetError(str(error)) from None

    async def gone(self) -> None:
        """Returns when the connection is closed."""
        await self._gone.wait()

"""Blobs, streamed: verified as they pass, and taken up again where a connection broke."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING

from plugin_sdk import DeadlineExceeded, InvalidParameter, Unavailable

from . import digests
from .answers import Asked
from .client import Client
from .transport import BACK_OFF, READ_TIMEOUT, Broken, failure

if TYPE_CHECKING:
    from aiohttp import ClientResponse

PIECE = 512 << 10
"""Bytes, about, of the pieces that a blob is handed out in."""
_PROGRESS = 1 << 20
"""Bytes after which a broken connection counts as the first again."""
_SLOWEST = 64 << 10
"""Bytes that must come within READ_TIMEOUT seconds of waiting."""
_RANGE = re.compile(r"bytes ([0-9]+)-[0-9]+/(?:[0-9]+|\*)")


class Download:
    """One blob on its way. Use `open` first, then iterate once.

    Args:
        size: bytes that it must have, when that is known: more is not read.
        attempts: connections that may break one after the other without much coming through.
    """

    def __init__(self, client: Client, path: str, asked: Asked, *, size: int | None = None, attempts: int = 5) -> None:
        self._client, self._path, self._asked = client, path, asked
        self._size, self._attempts = size, attempts
        self._digester = digests.Digester(digests.check(asked.blob))
        self._stack = AsyncExitStack()
        self._response: ClientResponse | None = None
        self._skip = 0

    @property
    def _offset(self) -> int:
        return self._digester.size

    async def open(self) -> None:
        """Ask for it, from where it broke. Raises NotFound and what `Client.request` raises."""
        offset = self._offset
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        self._stack = AsyncExitStack()
        request = self._client.request("GET", self._path, self._asked, expect=(200, 206), headers=headers)
        self._response = response = await self._stack.enter_async_context(request)
        self._skip = offset
        if response.status == 206:
            began = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if not offset or began is None or int(began.group(1)) != offset:
                await self.close()
                raise InvalidParameter(
                    f"{self._name}: asked for what follows byte {offset}, the registry answers with"
                    f" {response.headers.get('Content-Range', 'nothing')[:100]!r}"
                )
            self._skip = 0
        length = response.content_length
        if length is not None and self._size is not None and length + offset - self._skip != self._size:
            await self.close()
            raise InvalidParameter(f"{self._name} has {length + offset - self._skip} bytes, {self._size} are expected")

    async def close(self) -> None:
        """Let go of the connection; what has not come is not waited for."""
        if self._response is not None:
            self._response.close()
            self._response = None
        await self._stack.aclose()

    async def pieces(self) -> AsyncIterator[bytes]:
        """The blob's bytes; see `Repository.blob` for what the last step raises."""
        failures, mark = 0, 0
        while True:
            try:
                async with aclosing(self._pieces_of_connection()) as pieces:
                    async for piece in pieces:
                        # Hashing goes on while the taker works.
                        hashing = asyncio.ensure_future(self._digester.update(piece))
                        try:
                            yield piece
                        finally:
                            await hashing
                break
            except (Broken, DeadlineExceeded) as error:
                await self.close()
                failures = failures + 1 if self._offset - mark < _PROGRESS else 1
                mark = self._offset
                if failures >= self._attempts:
                    raise Unavailable(
                        f"{self._name} broke off at byte {self._offset}, {failures} times: {error}"
                    ) from None
                await asyncio.sleep(BACK_OFF[min(failures, len(BACK_OFF)) - 1])
        if self._size is not None and self._offset != self._size:
            raise InvalidParameter(f"{self._name} has {self._offset} bytes, {self._size} are expected")
        if self._digester.digest != self._asked.blob:
            raise InvalidParameter(
                f"{self._name}: filesystem layer verification failed: the content is {self._digester.digest}"
            )

    async def _pieces_of_connection(self) -> AsyncGenerator[bytes, None]:
        if self._response is None:
            await self.open()
        response = self._response
        assert response is not None
        waiting: list[bytes] = []
        waited, came, size, left = 0.0, 0, 0, self._skip
        broken: Broken | DeadlineExceeded | None = None
        while True:
            began = time.monotonic()
            try:
                part = await self._read(response)
            except (Broken, DeadlineExceeded) as error:
                part, broken = b"", error
            waited, came = waited + time.monotonic() - began, came + len(part)
            if waited > READ_TIMEOUT:
                if came < _SLOWEST:
                    raise Broken(f"{self._name}: only {came} bytes came in {waited:.0f} s")
                waited, came = 0.0, 0
            ended = not part
            if left:
                skipped = min(left, len(part))
                left, part = left - skipped, part[skipped:]
            waiting.append(part)
            size += len(part)
            if self._size is not None and self._offset + size > self._size:
                raise InvalidParameter(f"{self._name} has more than the {self._size} bytes that are expected")
            if size and (size >= PIECE or ended):
                yield b"".join(waiting)
                waiting, size = [], 0
            if broken is not None:
                raise broken
            if ended:
                return

    async def _read(self, response: ClientResponse) -> bytes:
        import aiohttp

        try:
            return await response.content.readany()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise failure("GET", str(response.url), error) from None

    @property
    def _name(self) -> str:
        return f"blob {self._asked.blob} of {self._asked.name}"

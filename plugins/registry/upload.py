"""Uploads: a session, the bytes as they come, and at the end the digest that was found out on the way.

Source: OCI distribution specification, "Pushing blobs"; like Docker's client it sends one PATCH of unknown length.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import quote

from plugin_sdk import DeadlineExceeded, EngineError, InvalidParameter

from .answers import Asked
from .client import Client
from .digests import Digester
from .transport import READ_TIMEOUT, request_name

if TYPE_CHECKING:
    from aiohttp import ClientResponse

_BINARY = {"Content-Type": "application/octet-stream"}
_FINISH_PATIENCE = 600.0
"""Seconds that a registry may take to make a blob of what it has got: some copy it between stores."""
_CANCEL_TIMEOUT = 5.0
_LARGEST_PART = 1 << 20


class Upload:
    """Uploads into one repository of one endpoint.

    Args:
        path: "REPOSITORY/blobs/uploads/".
    """

    def __init__(self, client: Client, path: str, asked: Asked) -> None:
        self._client, self._path, self._asked = client, path, asked

    async def mount(self, digest: str, source: str) -> bool:
        """Take a blob over from another repository of the registry, without its bytes; False: it must be sent."""
        target = f"{self._path}?mount={quote(digest, safe='')}&from={quote(source, safe='')}"
        async with self._client.request("POST", target, self._asked, expect=(201, 202), data=b"") as response:
            if response.status == 201:
                return True
            location = self._next(response, await self._client.base() + target)
        await self._cancel(location)
        return False

    async def send(self, chunks: AsyncIterator[bytes]) -> tuple[str, int]:
        """Send a blob; gives digest and size. A failure leaves nothing, as far as the registry can still be reached."""
        async with self._client.request("POST", self._path, self._asked, expect=(202,), data=b"") as response:
            location = self._next(response, await self._client.base() + self._path)
        digester = Digester()
        try:
            location = await self._patch(location, chunks, digester)
            sign = "&" if "?" in location else "?"
            final = f"{location}{sign}digest={quote(digester.digest, safe='')}"
            put = self._client.request(
                "PUT", final, self._asked, expect=(201,), headers=_BINARY, data=b"", patience=_FINISH_PATIENCE
            )
            async with put as response:
                told = response.headers.get("Docker-Content-Digest", digester.digest)
        except BaseException:
            await self._cancel(location)
            raise
        if told != digester.digest:
            raise InvalidParameter(
                f"registry {self._client.host} stored a blob of {self._asked.name} as {told[:200]!r}, sent was"
                f" {digester.digest}"
            )
        return digester.digest, digester.size

    async def _patch(self, location: str, chunks: AsyncIterator[bytes], digester: Digester) -> str:
        loop = asyncio.get_running_loop()
        source_failed: list[Exception] = []
        try:
            async with asyncio.timeout(None) as limit:

                async def parts() -> AsyncIterator[bytes]:
                    try:
                        async for chunk in chunks:
                            for start in range(0, len(chunk), _LARGEST_PART):
                                yield chunk[start : start + _LARGEST_PART]
                    except Exception as error:
                        source_failed.append(error)
                        raise

                async def watched() -> AsyncIterator[bytes]:
                    # Only the network's time counts, not that of whoever makes the bytes.
                    async for part in parts():
                        await digester.update(part)
                        limit.reschedule(loop.time() + READ_TIMEOUT)
                        yield part
                        limit.reschedule(None)
                    limit.reschedule(loop.time() + _FINISH_PATIENCE)

                patch = self._client.request(
                    "PATCH",
                    location,
                    self._asked,
                    expect=(202,),
                    headers=_BINARY,
                    data=watched(),
                    patience=_FINISH_PATIENCE,
                )
                async with patch as response:
                    return self._next(response, location)
        except TimeoutError:
            name = request_name("PATCH", location)
            raise DeadlineExceeded(f"failed to do request: {name}: i/o timeout while sending") from None
        except EngineError:
            if source_failed:  # to the network that looks like a broken connection
                raise source_failed[0] from None
            raise

    def _next(self, response: ClientResponse, url: str) -> str:
        location = response.headers.get("Location", "")
        if not location:
            raise InvalidParameter(f"{request_name(response.method, url)}: the registry names no place for the upload")
        # http for https: a registry behind a proxy that does not know of it; loopback and insecure ones only.
        return self._client.resolve(url, location, insecure=url.startswith("http:"))

    async def _cancel(self, location: str) -> None:
        with suppress(EngineError, TimeoutError):  # the registry clears up what nobody finishes
            async with asyncio.timeout(_CANCEL_TIMEOUT):
                async with self._client.request("DELETE", location, self._asked, expect=(204, 202, 200, 404)):
                    pass

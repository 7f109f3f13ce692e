"""The way to Splunk's HTTP Event Collector."""

from __future__ import annotations

import gzip
import logging
import secrets
import ssl
import uuid
from collections.abc import Mapping, Sequence

import aiohttp
import orjson

from plugin_sdk import InvalidParameter, Unavailable
from plugin_sdk.aio import blocking

from .links import CONNECT_DEADLINE, Progress

GROUP = 1000
"""Events of one request."""
GROUP_SIZE = 1 << 20
POST_DEADLINE = 30.0
ANSWER_LIMIT = 64 << 10

_BAD_EVENT = (6, 12, 13)
"""HEC's codes for events that it will never take: invalid data format, event field required, event field blank."""

log = logging.getLogger("engine.log_shipping")


class CollectorLink:
    """Fulfils `links.Link` for one container.

    Args:
        name: that the certificate must have; None: the URL's.
        level: of gzip, -1 for its default; None: not compressed.
        channel: name a channel of our own, as index acknowledgment wants it.
    """

    def __init__(
        self, url: str, token: str, context: ssl.SSLContext, *, name: str | None, level: int | None, channel: bool
    ) -> None:
        self._url = url
        self._context = context
        self._name = name
        self._level = level
        self._headers = {"Authorization": f"Splunk {token}"}
        if channel:
            self._headers["X-Splunk-Request-Channel"] = str(uuid.UUID(bytes=secrets.token_bytes(16), version=4))
        self._session: aiohttp.ClientSession | None = None

    async def connect(self) -> None:
        """See `Link.connect`: HTTP connects with the first request."""

    async def verify(self) -> None:
        """Ask whether a collector is there.

        Raises:
            InvalidParameter: something else is, or its certificate is not to be trusted.
            Unavailable: nobody answers.
        """
        status, reason, answer = await self._request("OPTIONS", b"", {})
        if status != 200:
            raise InvalidParameter(f"splunk: failed to verify connection - {status} {reason} - {answer}")

    async def send(self, records: Sequence[bytes], progress: Progress) -> None:
        """See `Link.send`."""
        while progress.sent < len(records):
            await self._post(_group(records, progress.sent), progress)

    async def _post(self, group: Sequence[bytes], progress: Progress) -> None:
        """Events that the collector will never take are found by halving, and dropped: they would be in the way for ever."""
        body, headers = b"".join(group), dict(self._headers)
        if not body:
            progress.sent += len(group)
            return
        if self._level is not None:
            headers["Content-Encoding"] = "gzip"
            body = await blocking(gzip.compress, body, self._level if self._level >= 0 else 6)
        status, reason, answer = await self._request("POST", body, headers)
        if status == 200:
            progress.sent += len(group)
            return
        if status != 400 or _code(answer) not in _BAD_EVENT:
            raise Unavailable(f"splunk: failed to send event - {status} {reason} - {answer}")
        if len(group) > 1:
            await self._post(group[: len(group) // 2], progress)
            await self._post(group[len(group) // 2 :], progress)
            return
        progress.sent += 1
        log.warning("splunk: a log entry was dropped, the collector does not take it: %s: %.200s", answer, group[0])

    async def _request(self, method: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str, str]:
        """Status, its words, and the answer. Raises Unavailable, and InvalidParameter for a bad certificate."""
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=POST_DEADLINE, connect=CONNECT_DEADLINE)
            self._session = aiohttp.ClientSession(
                timeout=timeout, connector=aiohttp.TCPConnector(ssl=self._context, limit=1)
            )
        try:
            async with self._session.request(
                method, self._url, data=body or None, headers=headers, server_hostname=self._name, allow_redirects=False
            ) as response:
                answer = await response.content.read(ANSWER_LIMIT)
                return response.status, response.reason or "", answer.decode(errors="replace").strip()
        except aiohttp.ClientConnectorCertificateError as error:
            raise InvalidParameter(f"splunk: {self._url}: {error.certificate_error}") from None
        except TimeoutError:
            raise Unavailable(f"splunk: {method} {self._url}: no answer within {POST_DEADLINE:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"splunk: {method} {self._url}: {error}") from None

    async def close(self) -> None:
        """See `Link.close`."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def _group(records: Sequence[bytes], first: int) -> Sequence[bytes]:
    size, last = 0, first
    while last < len(records) and last - first < GROUP and (last == first or size + len(records[last]) <= GROUP_SIZE):
        size += len(records[last])
        last += 1
    return records[first:last]


def _code(answer: str) -> int:
    """The code in HEC's answer; -1 when it is something else."""
    try:
        code = orjson.loads(answer)["code"]
    except (ValueError, KeyError, TypeError):
        return -1
    return code if isinstance(code, int) else -1

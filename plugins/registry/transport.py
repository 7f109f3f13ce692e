"""One HTTP exchange with deadlines, and what can go wrong with it in plain words."""

from __future__ import annotations

import asyncio
import email.utils
import ssl
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from plugin_sdk import DeadlineExceeded, EngineError, InvalidParameter, TooLarge, Unavailable

from .hosts import Trust
from .proxies import Proxies

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

CONNECT_TIMEOUT = 15.0
READ_TIMEOUT = 60.0
"""Seconds without a byte. A document or an answer's head must have come as a whole within them."""

BACK_OFF = (0.25, 1.0, 3.0)
"""Seconds before the second, third and last try of a request that the registry could not take."""
LONGEST_WAIT = 30.0
"""Seconds of `Retry-After` that are waited for; with more, the refusal is told instead."""
BUSY = (429, 500, 502, 503, 504)

_FIELD_LIMIT = 32 << 10  # signed locations of blobs are long
_BUFFER = 256 << 10


class Broken(Unavailable):
    """The connection broke, or never came: another try may help."""


class NoTls(Unavailable):
    """Nobody speaks TLS there."""


class Transport:
    """Connections of one repository; opened when first used."""

    def __init__(self, proxies: Proxies, agent: str) -> None:
        self._proxies = proxies
        self._agent = agent
        self._session: ClientSession | None = None

    def _open(self) -> ClientSession:
        if self._session is None or self._session.closed:
            from aiohttp import ClientSession, DummyCookieJar

            self._session = ClientSession(
                headers={"User-Agent": self._agent, "Accept-Encoding": "identity"},
                auto_decompress=False,  # a digest is of the bytes as they come
                cookie_jar=DummyCookieJar(),
                trust_env=False,  # it would read .netrc and send what is there
                read_bufsize=_BUFFER,
                max_field_size=_FIELD_LIMIT,
            )
        return self._session

    async def send(
        self,
        method: str,
        url: str,
        trust: Trust,
        *,
        headers: Mapping[str, str] | None = None,
        data: Any = None,
        patience: float | None = None,
    ) -> ClientResponse:
        """One request; gives its answer, whatever the status, with the body unread. Redirects are not followed.

        Args:
            data: bytes, or an asynchronous iterator, which is sent as it comes: bound it in time.
            patience: seconds to wait for the answer; None: READ_TIMEOUT.

        Raises:
            NoTls, Broken, DeadlineExceeded, Unavailable: it cannot be reached; names method and URL.
            InvalidParameter: it answers something that is not HTTP.
        """
        import aiohttp
        from yarl import URL

        session = self._open()
        patience = patience or READ_TIMEOUT
        streaming = data is not None and not isinstance(data, bytes)
        try:
            # An upload's answer comes when all is sent, which takes as long as it takes.
            async with asyncio.timeout(None if streaming else CONNECT_TIMEOUT + patience):
                return await session.request(
                    method,
                    URL(url, encoded=True),
                    headers=dict(headers or {}),
                    data=data,
                    ssl=trust.context,
                    proxy=self._proxies.lead_to(url),
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=patience),
                )
        except (aiohttp.ClientError, TimeoutError, ssl.SSLError, OSError, ValueError) as error:
            raise failure(method, url, error) from None

    async def fetch(
        self,
        method: str,
        url: str,
        trust: Trust,
        *,
        limit: int,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
    ) -> tuple[int, bytes]:
        """Status and body of a small document; tried again while the server is busy."""
        attempt = 0
        while True:
            attempt += 1
            response = await self.send(method, url, trust, headers=headers, data=data)
            raw = await document(response, limit)
            wait = wait_for(attempt, response.headers.get("Retry-After")) if response.status in BUSY else None
            if wait is None:
                return response.status, raw
            await asyncio.sleep(wait)

    async def close(self) -> None:
        """Let go of all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


async def document(response: ClientResponse, limit: int) -> bytes:
    """A small body as a whole. Raises TooLarge, DeadlineExceeded, Broken."""
    method, url = response.method, str(response.url)
    refusal = TooLarge(f"{request_name(method, url)}: the answer is larger than the {limit} bytes that are accepted")
    if (response.content_length or 0) > limit and method != "HEAD":
        response.close()
        raise refusal
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(READ_TIMEOUT):
            async for part in response.content.iter_any():
                size += len(part)
                if size > limit:
                    raise refusal
                parts.append(part)
    except EngineError:
        response.close()
        raise
    except (TimeoutError, OSError, _client_error()) as error:
        response.close()
        raise failure(method, url, error) from None
    response.release()
    return b"".join(parts)


def _client_error() -> type[Exception]:
    from aiohttp import ClientError

    return ClientError


def failure(method: str, url: str, error: BaseException) -> EngineError:
    """dockerd's words for an exchange that failed."""
    import aiohttp

    said = f"failed to do request: {request_name(method, url)}"
    parts = urlsplit(url)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        reason = getattr(error.certificate_error, "verify_message", "") or str(error.certificate_error)
        return Unavailable(f"{said}: tls: failed to verify certificate: {reason}")
    if (reason := _tls_reason(error)) is not None:
        if reason in ("wrong version number", "record layer failure"):
            return NoTls(f"{said}: http: server gave HTTP response to HTTPS client")
        sender = "remote error: " if "alert" in reason else ""
        return Unavailable(f"{said}: {sender}tls: {reason.rpartition('alert ')[2]}")
    if isinstance(error, TimeoutError):
        return DeadlineExceeded(f"{said}: i/o timeout")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Unavailable(f"{said}: dial tcp: lookup {parts.hostname}: no such host")
    if isinstance(error, aiohttp.ClientConnectorError):
        reason = (error.os_error.strerror or str(error.os_error)).lower()
        if isinstance(error.os_error, ConnectionRefusedError):
            reason = "connection refused"
        return Broken(f"{said}: dial tcp {error.host}:{error.port}: connect: {reason}")
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return Unavailable(f"{said}: the proxy answered with status {error.status}")
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError):
        return Broken(f"{said}: unexpected EOF")
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.InvalidURL | ValueError):
        return InvalidParameter(f"{said}: malformed HTTP response or URL: {str(error)[:200]}")
    return Broken(f"{said}: {str(error)[:200] or type(error).__name__}")


def _tls_reason(error: BaseException) -> str | None:
    """OpenSSL's words; None for other errors. aiohttp wraps alerts that come after the handshake (TLS 1.3)."""
    for candidate in (error.__cause__, error):
        if isinstance(candidate, ssl.SSLError):
            # aiohttp's own, which it derives from this one, lacks the attribute.
            return (getattr(candidate, "reason", None) or str(candidate)).lower().replace("_", " ")
    return None


def request_name(method: str, url: str) -> str:
    """`Get "https://host/v2/"`; without the query, which may hold a signature."""
    parts = urlsplit(url)
    shown = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
    return f'{method.capitalize()} "{shown}"'


def wait_for(attempt: int, retry_after: str | None) -> float | None:
    """Seconds to wait before the next try; None: do not try again.

    Args:
        attempt: how many tries there were.
        retry_after: the header: seconds or a date.
    """
    if attempt > len(BACK_OFF):
        return None
    wished = BACK_OFF[attempt - 1]
    if retry_after:
        if retry_after.strip().isdecimal():
            asked = float(retry_after.strip()[:9])
        else:
            try:
                asked = email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
            except (ValueError, TypeError, OverflowError):
                asked = 0.0
        if asked > LONGEST_WAIT:
            return None
        wished = max(wished, asked)
    return wished

"""Requests to one endpoint about one repository: proofs, redirects, tries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from plugin_sdk import DeadlineExceeded, EngineError, InvalidParameter

from . import answers, challenge
from .answers import Asked
from .hosts import Endpoint, Hosts
from .tokens import Authorizer
from .transport import BUSY, Broken, NoTls, Transport, document, request_name, wait_for

if TYPE_CHECKING:
    from aiohttp import ClientResponse

_ERROR_LIMIT = 64 << 10
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 5
_PROBE_TIMEOUT = 10.0


class Client:
    """Talks to one endpoint.

    Attributes:
        host: HOST[:PORT].
        mirror: it is a mirror: others can be asked when it fails.
    """

    def __init__(self, endpoint: Endpoint, transport: Transport, hosts: Hosts, authorizer: Authorizer) -> None:
        self.host, self.mirror = endpoint.host, endpoint.mirror
        self._endpoint = endpoint
        self._transport, self._hosts = transport, hosts
        self._authorizer = authorizer

    async def base(self) -> str:
        """`SCHEME://HOST[/PATH]/v2/`. An insecure registry is asked once whether it speaks TLS."""
        scheme = self._endpoint.scheme or self._hosts.schemes.get(self.host) or await self._probe()
        return f"{scheme}://{self.host}{self._endpoint.path}/v2/"

    async def _probe(self) -> str:
        trust = await self._hosts.trust(self.host)
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT):
                response = await self._transport.send("GET", f"https://{self.host}/v2/", trust)
        except (NoTls, Broken, DeadlineExceeded, TimeoutError):
            return "http"  # not remembered yet: what answers with neither may be away for a moment
        response.close()
        self._hosts.schemes[self.host] = "https"
        return "https"

    @asynccontextmanager
    async def request(
        self,
        method: str,
        target: str,
        asked: Asked,
        *,
        expect: Collection[int] = (200,),
        headers: Mapping[str, str] | None = None,
        data: Any = None,
        patience: float | None = None,
    ) -> AsyncIterator[ClientResponse]:
        """An answer of one of the expected statuses, its body unread.

        Args:
            target: below "/v2/", or a whole URL (an upload's location).
            data: bytes, or an iterator, whose request is tried once only.
            patience: seconds to wait for the answer; None: as usual.

        Raises:
            EngineError: refused, or not reached; see `answers.error` and `Transport.send`.
        """
        url = target if "://" in target else await self.base() + target
        once = data is not None and not isinstance(data, bytes)
        attempt, proved, asked_tls = 1, False, False
        while True:
            response, sent = await self._follow(method, url, headers or {}, data, patience)
            challenges = challenge.parse(response.headers.getall("WWW-Authenticate", ()))
            if response.status == 401 and sent is not None and not proved and not once:
                proved = True
                try:
                    again = self._authorizer.take(challenges, sent)
                except EngineError:
                    response.close()
                    raise
                if again:
                    await _drain(response)
                    continue
            elif response.status == 400 and not (asked_tls or once) and self._may_want_tls(url):
                asked_tls = True
                if await self._probe() == "https":
                    await _drain(response)
                    url = f"https{url.removeprefix('http')}"
                    continue
            elif response.status in BUSY and response.status not in expect and not once:
                wait = wait_for(attempt, response.headers.get("Retry-After"))
                if wait is not None:
                    await _drain(response)
                    attempt += 1
                    await asyncio.sleep(wait)
                    continue
            break
        if response.status not in expect:
            raise await self._refusal(response, challenges, asked)
        if not self._endpoint.scheme:
            self._hosts.schemes[self.host] = urlsplit(url).scheme
        try:
            yield response
        except BaseException:
            response.close()
            raise
        response.release()

    def _may_want_tls(self, url: str) -> bool:
        """Servers of TLS answer 400 to a plain request: another one may have come to this port, or the probe came too early."""
        parts = urlsplit(url)
        return not self._endpoint.scheme and parts.scheme == "http" and parts.netloc == self.host

    async def _follow(
        self, method: str, url: str, headers: Mapping[str, str], data: Any, patience: float | None
    ) -> tuple[ClientResponse, str | None]:
        """Send, and go where redirects lead (GET and HEAD); gives the answer, and the proof that was sent.

        The proof is None where another host answered: nothing secret goes there, and its wishes do not count.
        """
        home = urlsplit(url).netloc == self.host
        for _ in range(_MOST_REDIRECTS + 1):
            proof = await self._authorizer.header() if home else None
            sent = {**headers, "Authorization": proof} if proof else headers
            host = urlsplit(url).netloc
            response = await self._send(method, url, host, sent, data, patience)
            location = response.headers.get("Location", "")
            if response.status not in _REDIRECTS or method not in ("GET", "HEAD") or not location:
                return response, proof
            await _drain(response)
            url = self.resolve(url, location, insecure=(await self._hosts.trust(host)).insecure)
            # Once away, always away: the way back may be laid by the other host.
            home = home and urlsplit(url).netloc == self.host
        raise InvalidParameter(f"{request_name(method, url)}: stopped after {_MOST_REDIRECTS} redirects")

    async def _send(
        self, method: str, url: str, host: str, headers: Mapping[str, str], data: Any, patience: float | None
    ) -> ClientResponse:
        trust = await self._hosts.trust(host)
        try:
            return await self._transport.send(method, url, trust, headers=headers, data=data, patience=patience)
        except Broken:
            # Another scheme, or another server, may answer next time.
            self._hosts.schemes.pop(host, None)
            raise

    def resolve(self, url: str, location: str, *, insecure: bool) -> str:
        """Where a `Location` leads. Raises InvalidParameter for schemes other than http and https, and for a way from
        TLS to plain http."""
        there = urljoin(url, location)
        parts = urlsplit(there)
        plain = parts.scheme == "http" and urlsplit(url).scheme == "https" and not insecure
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or plain:
            raise InvalidParameter(
                f"registry {self.host} redirects to {request_name('', there).strip()}: only https is followed"
                f"{'' if urlsplit(url).scheme == 'https' else ' and http'}"
            )
        return there

    async def _refusal(
        self, response: ClientResponse, challenges: list[challenge.Challenge], asked: Asked
    ) -> EngineError:
        try:
            raw = await document(response, _ERROR_LIMIT)
        except EngineError:
            raw = b""  # the status says enough
        return answers.error(asked, self.host, answers.read(response.status, raw, challenges))


async def _drain(response: ClientResponse) -> None:
    """Read what nobody wants to know, so that the connection can serve again."""
    with suppress(EngineError):  # then it is closed
        await document(response, _ERROR_LIMIT)

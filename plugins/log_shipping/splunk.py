"""The driver "splunk": Splunk's HTTP Event Collector.

Events go in groups, JSON objects one behind the other, to /services/collector/event/1.0. A group counts as sent when the
collector has answered 200. Sources: Splunk, "HTTP Event Collector"; moby, daemon/logger/splunk, for options and shapes.
"""

from __future__ import annotations

import gzip
import logging
import secrets
import socket
import ssl
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import orjson

from plugin_sdk import InvalidParameter, Unavailable
from plugin_sdk.aio import blocking
from plugin_sdk.logoptions import ATTRIBUTES, boolean_option, extra_attributes, log_tag
from plugin_sdk.logs import LogEntry, LogInfo, LogSink
from plugin_sdk.logwire import Piece

from .links import CONNECT_DEADLINE, Progress, split
from .shipping import Encode, ShippingDriver, text
from .tls import check_files, client_context

PATH = "/services/collector/event/1.0"
GROUP = 1000
"""Events of one request."""
GROUP_SIZE = 1 << 20
POST_DEADLINE = 30.0
ANSWER_LIMIT = 64 << 10

_BOOLEANS = ("splunk-insecureskipverify", "splunk-verify-connection", "splunk-gzip", "splunk-index-acknowledgment")
_TEXTS = ("splunk-url", "splunk-token", "splunk-source", "splunk-sourcetype", "splunk-index", "splunk-caname")
_BAD_EVENT = (6, 12, 13)
"""HEC's codes for events that it will never take: invalid data format, event field required, event field blank."""

log = logging.getLogger("engine.log_shipping")


class SplunkDriver(ShippingDriver):
    """See the module."""

    name = "splunk"
    options = (*_TEXTS, *_BOOLEANS, "splunk-capath", "splunk-format", "splunk-gzip-level", "tag", *ATTRIBUTES)

    def check(self, options: Mapping[str, str]) -> None:
        """See `ShippingDriver.check`. Docker finds these out at the start."""
        parse_url(options)
        if not options.get("splunk-token"):
            raise InvalidParameter("splunk: splunk-token is expected")
        if not options["splunk-token"].isascii() or not options["splunk-token"].isprintable():
            raise InvalidParameter("splunk: splunk-token is no token: it has characters that no header can have")
        for name in _BOOLEANS:
            boolean_option(options, name)
        level = options.get("splunk-gzip-level", "-1")
        if level not in [str(number) for number in range(-1, 10)]:
            raise InvalidParameter(
                f"not supported level '{level}' for splunk-gzip-level (supported values between -1 and 9)"
            )
        form = options.get("splunk-format", "inline")
        if form not in ("inline", "json", "raw"):
            raise InvalidParameter(f"Unknown format specified {form}, supported formats are inline, json and raw")
        check_files(options, ("splunk-capath",))

    async def open(self, info: LogInfo) -> LogSink:
        """See `LogDriver.open`. With `splunk-verify-connection` (the default) a collector that answers with an error
        refuses the start."""
        options = info.options
        context = await blocking(
            client_context,
            ca=options.get("splunk-capath", ""),
            skip_verify=boolean_option(options, "splunk-insecureskipverify"),
        )
        link = CollectorLink(options, context)
        if boolean_option(options, "splunk-verify-connection", True):
            try:
                await link.verify()
            finally:
                await link.close()
        return await self.linked(info, link, formatter(info), connect=False)


def parse_url(options: Mapping[str, str]) -> str:
    """Where to post. Raises InvalidParameter."""
    address = options.get("splunk-url", "")
    if not address:
        raise InvalidParameter("splunk: splunk-url is expected")
    try:
        parts = split(address)
    except InvalidParameter:
        raise InvalidParameter(f"splunk: failed to parse {address} as url value in splunk-url") from None
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.path not in ("", "/")
        or parts.query
        or parts.fragment
    ):
        raise InvalidParameter("splunk: expected format scheme://dns_name_or_ip:port for splunk-url")
    return f"{parts.scheme}://{parts.netloc}{PATH}"


def formatter(info: LogInfo) -> Encode:
    """What makes events of a container's entries; nothing for a blank line in the raw format, which HEC refuses."""
    options = info.options
    form = options.get("splunk-format", "inline")
    # A tag that is given and empty means none.
    tag = "" if options.get("tag") == "" else log_tag(info)
    attributes = extra_attributes(info)
    about = {"host": socket.gethostname()} | {
        name: options[f"splunk-{name}"] for name in ("source", "sourcetype", "index") if options.get(f"splunk-{name}")
    }
    about_bytes = orjson.dumps(about)[1:]
    prefix = "".join([f"{tag} " if tag else "", *(f"{name}={value} " for name, value in attributes.items())])
    more: dict[str, Any] = {"tag": tag} if tag else {}
    if attributes:
        more["attrs"] = attributes

    def encode(entry: LogEntry, piece: Piece | None) -> bytes:
        event: Any
        if form == "raw":
            if not entry.line.strip():
                return b""
            event = prefix + text(entry.line)
        else:
            line = _json(entry.line) if form == "json" else text(entry.line)
            event = {"line": line, "source": "stderr" if entry.stream == 2 else "stdout", **more}
        seconds, nanos = divmod(entry.time_ns, 10**9)
        return b'{"event":%s,"time":"%d.%06d",%s' % (orjson.dumps(event), seconds, nanos // 1000, about_bytes)

    return encode


def _json(line: bytes) -> Any:
    try:
        orjson.loads(line)
    except ValueError:
        return text(line)
    return orjson.Fragment(line)


class CollectorLink:
    """Fulfils `links.Link` for one container."""

    def __init__(self, options: Mapping[str, str], context: ssl.SSLContext) -> None:
        self._url = parse_url(options)
        self._context = context
        self._name = options.get("splunk-caname") or None
        self._level = int(options.get("splunk-gzip-level", "-1")) if boolean_option(options, "splunk-gzip") else None
        self._headers = {"Authorization": f"Splunk {options['splunk-token']}"}
        if boolean_option(options, "splunk-index-acknowledgment"):
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

"""The driver "fluentd": the forward protocol, version 1, over TCP, TLS and local sockets.

Without `fluentd-request-ack` each entry is a message of its own ("Message Mode"). With it, entries go in groups ("Forward
Mode") that the receiver acknowledges before the next one is sent. Sources: the Fluentd Forward Protocol Specification v1;
moby, daemon/logger/fluentd, for options and fields.
"""

from __future__ import annotations

import asyncio
import base64
import math
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import msgpack

from plugin_sdk import EngineError, InvalidParameter, Unavailable
from plugin_sdk.files import parse_size
from plugin_sdk.logoptions import ATTRIBUTES, boolean_option, extra_attributes, log_tag
from plugin_sdk.logs import LogEntry, LogInfo, LogSink
from plugin_sdk.logwire import Piece
from plugin_sdk.times import parse_duration_ns

from .links import Address, Link, Progress, split
from .shipping import Encode, ShippingDriver, partial_fields
from .streams import REPLY_LIMIT, StreamLink
from .tls import client_context

DEFAULT_PORT = 24224
DEFAULT_WAIT = 1.0
LONGEST_WAIT = 60.0
PATIENCE = 2.0
"""Seconds of such a wait that a write itself sleeps."""
ACK_DEADLINE = 15.0
GROUP = 500
"""Entries, and GROUP_SIZE bytes, that are acknowledged together."""
GROUP_SIZE = 256 << 10

_BOOLEANS = ("fluentd-async", "fluentd-async-connect", "fluentd-request-ack", "fluentd-sub-second-precision")
_INTERVAL = "fluentd-async-reconnect-interval"


class FluentdDriver(ShippingDriver):
    """See the module."""

    name = "fluentd"
    options = (
        "fluentd-address", *_BOOLEANS, _INTERVAL, "fluentd-buffer-limit", "fluentd-max-retries", "fluentd-retry-wait", "tag",
        *ATTRIBUTES,
    )  # fmt: skip

    def check(self, options: Mapping[str, str]) -> None:
        """See `ShippingDriver.check`."""
        parse_address(options.get("fluentd-address", ""))
        for name in _BOOLEANS:
            boolean_option(options, name)
        if "fluentd-async" in options and "fluentd-async-connect" in options:
            raise InvalidParameter(
                "conflicting options: cannot specify both 'fluentd-async' and 'fluentd-async-connect'"
            )
        if limit := options.get("fluentd-buffer-limit"):
            parse_size(limit)
        retries = options.get("fluentd-max-retries", "")
        if retries and not (retries.isascii() and retries.isdigit()):
            raise InvalidParameter(f'fluentd-max-retries: "{retries}" is no number from 0 on')
        _retry_wait(options)
        _renewal(options)

    async def open(self, info: LogInfo) -> LogSink:
        """See `LogDriver.open`. With `fluentd-async` the receiver is connected with the first entry only."""
        options = info.options
        address = parse_address(options.get("fluentd-address", ""))
        tag = log_tag(info)
        encode = formatter(info, precise=boolean_option(options, "fluentd-sub-second-precision"))
        later = any(boolean_option(options, name) for name in ("fluentd-async", "fluentd-async-connect"))
        stream = StreamLink(address, client_context if address.scheme == "tls" else None)
        head = b"\x93" + msgpack.packb(tag)
        link: Link = stream
        if boolean_option(options, "fluentd-request-ack"):
            link, head = AckLink(stream, tag), b"\x92"
        return await self.linked(
            info,
            Patient(link, _retry_wait(options), _renewal(options) if later else 0.0),
            lambda entry, piece: head + encode(entry, piece),
            connect=not later,
        )


def _retry_wait(options: Mapping[str, str]) -> float:
    text = options.get("fluentd-retry-wait", "")
    if not text:
        return DEFAULT_WAIT
    try:
        wait = parse_duration_ns(text) / 10**9
    except InvalidParameter as error:
        raise InvalidParameter(f"fluentd-retry-wait: {error}") from None
    if wait < 0:
        raise InvalidParameter(f"fluentd-retry-wait: {text} is below 0")
    return wait


def _renewal(options: Mapping[str, str]) -> float:
    text = options.get(_INTERVAL, "")
    if not text:
        return 0.0
    try:
        nanos = parse_duration_ns(text)
    except InvalidParameter as error:
        raise InvalidParameter(f"invalid value for {_INTERVAL}: {error}") from None
    if nanos and not 10**8 <= nanos <= 10**10:
        raise InvalidParameter(f'invalid value for {_INTERVAL}: value ("{text}") must be between 100ms and 10s')
    return nanos / 10**9


def parse_address(address: str) -> Address:
    """`fluentd-address`. Raises InvalidParameter."""
    if not address:
        return Address("tcp", "127.0.0.1", DEFAULT_PORT)
    whole = address if "://" in address else f"tcp://{address}"
    try:
        parts = split(whole)
    except InvalidParameter as error:
        raise InvalidParameter(f"invalid fluentd-address ({address}): {error}") from None
    if parts.scheme == "unix":
        if not parts.path.strip("/"):
            raise InvalidParameter(f"invalid fluentd-address ({address}): path is empty")
        return Address("unix", path=parts.path)
    if parts.scheme not in ("tcp", "tls"):
        raise InvalidParameter(f"invalid fluentd-address ({address}): unsupported scheme: '{parts.scheme}'")
    if parts.path:
        raise InvalidParameter(f"invalid fluentd-address ({address}): should not contain a path element")
    port = parts.port if parts.port is not None else DEFAULT_PORT
    return Address(parts.scheme, parts.hostname or "127.0.0.1", port)


def formatter(info: LogInfo, *, precise: bool) -> Encode:
    """What makes the time and the record of an entry, one behind the other."""
    packer = msgpack.Packer(unicode_errors="surrogateescape", autoreset=True)
    common = {
        "container_id": info.container.Id,
        "container_name": f"/{info.container.Name}",
        **extra_attributes(info),
    }

    def encode(entry: LogEntry, piece: Piece | None) -> bytes:
        seconds, nanos = divmod(entry.time_ns, 10**9)
        moment: Any = seconds
        if precise:
            # The protocol's EventTime.
            moment = msgpack.ExtType(0, seconds.to_bytes(4, "big") + nanos.to_bytes(4, "big"))
        record: dict[str, str] = {
            "source": "stderr" if entry.stream == 2 else "stdout",
            # Bytes stay as they are: the receiver's strings are bytes too.
            "log": entry.line.decode(errors="surrogateescape"),
        }
        if piece is not None:
            record |= partial_fields(piece)
        packed: bytes = packer.pack(moment) + packer.pack({**common, **record})
        return packed

    return encode


class AckLink:
    """Sends groups of entries and waits for the acknowledgement of each. Fulfils `links.Link`."""

    def __init__(self, stream: StreamLink, tag: str) -> None:
        self._stream = stream
        self._tag: bytes = msgpack.packb(tag)

    async def connect(self) -> None:
        """See `Link.connect`."""
        await self._stream.connect()

    async def send(self, records: Sequence[bytes], progress: Progress) -> None:
        """See `Link.send`."""
        while progress.sent < len(records):
            group = _group(records, progress.sent)
            chunk = base64.b64encode(secrets.token_bytes(16)).decode()
            head = b"\x93" + self._tag + msgpack.Packer().pack_array_header(len(group))
            await self._stream.send([head + b"".join(group) + msgpack.packb({"chunk": chunk})], Progress())
            try:
                await self._acknowledged(chunk)
            except BaseException:
                # An answer that comes late must not be taken for the next one's.
                await self._stream.close()
                raise
            progress.sent += len(group)

    async def _acknowledged(self, chunk: str) -> None:
        unpacker = msgpack.Unpacker(max_buffer_size=REPLY_LIMIT)
        async with asyncio.timeout(ACK_DEADLINE):
            while True:
                try:
                    unpacker.feed(await self._stream.reply(ACK_DEADLINE))
                    answer = next(iter(unpacker), None)
                except (ValueError, msgpack.UnpackException) as error:
                    raise Unavailable(f"{self._stream.address}: answered rubbish: {error}") from None
                if answer is None:
                    continue
                if not isinstance(answer, dict) or answer.get("ack") != chunk:
                    raise Unavailable(f"{self._stream.address}: {answer!r:.80} does not acknowledge what was sent")
                return

    async def close(self) -> None:
        """See `Link.close`."""
        await self._stream.close()


def _group(records: Sequence[bytes], first: int) -> Sequence[bytes]:
    size, last = 0, first
    while last < len(records) and last - first < GROUP and (last == first or size < GROUP_SIZE):
        size += len(records[last])
        last += 1
    return records[first:last]


class Patient:
    """Connects no sooner than `wait` seconds, 1.5 times as long each time, after a failure. Fulfils `links.Link`.

    Args:
        renew: seconds after which a connection is made anew, so that another address of the name is found; 0: never.
    """

    def __init__(self, link: Link, wait: float, renew: float = 0.0) -> None:
        self._link = link
        self._wait = wait
        self._renew = renew
        self._failures = 0
        self._failure = ""
        self._not_before = -math.inf
        self._since: float | None = None

    async def connect(self) -> None:
        """See `Link.connect`."""
        loop = asyncio.get_running_loop()
        pause = self._not_before - loop.time()
        if pause > PATIENCE:
            raise Unavailable(f"{self._failure}; tried again in {pause:.0f} s")
        if pause > 0:
            await asyncio.sleep(pause)
        if self._renew and self._since is not None and loop.time() - self._since > self._renew:
            await self.close()
        try:
            await self._link.connect()
        except EngineError as error:
            longer = min(self._wait * 1.5 ** min(self._failures, 30), max(LONGEST_WAIT, self._wait))
            self._not_before, self._failure = loop.time() + longer, str(error)
            self._failures += 1
            raise
        self._failures = 0
        if self._since is None:
            self._since = loop.time()

    async def send(self, records: Sequence[bytes], progress: Progress) -> None:
        """See `Link.send`."""
        await self.connect()
        await self._link.send(records, progress)

    async def close(self) -> None:
        """See `Link.close`."""
        self._since = None
        await self._link.close()

"""The driver "gelf": Graylog Extended Log Format 1.1 over UDP (compressed, in chunks) and TCP (ended by a zero byte).

Sources: https://go2docs.graylog.org, "GELF"; moby, daemon/logger/gelf, for the fields.
"""

from __future__ import annotations

import gzip
import logging
import secrets
import socket
import zlib
from collections.abc import Callable, Mapping, Sequence

import orjson

from plugin_sdk import InvalidParameter
from plugin_sdk.logoptions import ATTRIBUTES, extra_attributes, log_tag
from plugin_sdk.logs import LogEntry, LogInfo, LogSink
from plugin_sdk.logwire import Piece

from .datagrams import DatagramLink
from .links import Address, split
from .shipping import Encode, ShippingDriver, partial_fields, text
from .streams import StreamLink

CHUNK = 1420 - 12
"""Bytes of a message in one datagram, beside the 12 of the chunk's head: what passes an Ethernet in one piece."""
CHUNKS = 128

_INFO, _ERROR = 6, 3
_COMPRESSION = ("gelf-compression-type", "gelf-compression-level")
_RECONNECTION = ("gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay")

log = logging.getLogger("engine.log_shipping")


class GelfDriver(ShippingDriver):
    """See the module."""

    name = "gelf"
    options = ("gelf-address", *_COMPRESSION, *_RECONNECTION, "tag", *ATTRIBUTES)
    unknown = 'unknown log opt "{{}}" for {name} log driver'

    def check(self, options: Mapping[str, str]) -> None:
        """See `ShippingDriver.check`."""
        address = parse_address(options.get("gelf-address", ""))
        for name in _COMPRESSION:
            if name in options and address.scheme != "udp":
                raise InvalidParameter("compression is only supported on UDP")
        level, kind = options.get("gelf-compression-level", "1"), options.get("gelf-compression-type", "gzip")
        if level not in [str(number) for number in range(-1, 10)]:
            raise InvalidParameter(f'unknown value "{level}" for log opt "gelf-compression-level" for gelf log driver')
        if kind not in ("gzip", "zlib", "none"):
            raise InvalidParameter(f'unknown value "{kind}" for log opt "gelf-compression-type" for gelf log driver')
        for name in _RECONNECTION:
            value = options.get(name)
            if value is None:
                continue
            if address.scheme != "tcp":
                raise InvalidParameter(f'"{name}" is only valid for TCP')
            if not (value.isascii() and value.isdigit()):
                raise InvalidParameter(f'"{name}" must be a positive integer')

    async def open(self, info: LogInfo) -> LogSink:
        """See `LogDriver.open`."""
        options = info.options
        address = parse_address(options.get("gelf-address", ""))
        encode = formatter(info)
        if address.scheme == "tcp":
            return await self.linked(info, StreamLink(address), lambda entry, piece: encode(entry, piece) + b"\0")
        pack = packer(options.get("gelf-compression-type", "gzip"), int(options.get("gelf-compression-level", "1")))
        link = DatagramLink(address, divide=lambda record: divide(record, info.container.Id))
        return await self.linked(info, link, lambda entry, piece: pack(encode(entry, piece)))


def parse_address(address: str) -> Address:
    """`gelf-address`. Raises InvalidParameter."""
    if not address:
        raise InvalidParameter("gelf-address is a required parameter")
    parts = split(address)
    if parts.scheme not in ("tcp", "udp"):
        raise InvalidParameter("gelf: endpoint needs to be TCP or UDP")
    if parts.port is None:
        raise InvalidParameter("gelf: please provide gelf-address as proto://host:port")
    return Address(parts.scheme, parts.hostname or "localhost", parts.port)


def formatter(info: LogInfo) -> Encode:
    """What makes messages of a container's entries, as JSON."""
    container = info.container
    common = {
        "version": "1.1",
        "host": socket.gethostname(),
        "_container_id": container.Id,
        "_container_name": container.Name,
        "_image_id": container.ImageID,
        "_image_name": container.ImageRef,
        "_command": " ".join([container.Path, *container.Args]),
        "_tag": log_tag(info),
        "_created": container.Created,
        **extra_attributes(info, lambda name: name if name.startswith("_") else f"_{name}"),
    }
    head = orjson.dumps(common)[:-1] + b',"short_message":'

    def encode(entry: LogEntry, piece: Piece | None) -> bytes:
        # Written by hand: the milliseconds stay exact.
        rest = b',"timestamp":%d.%03d,"level":%d' % (
            entry.time_ns // 10**9,
            entry.time_ns % 10**9 // 10**6,
            _ERROR if entry.stream == 2 else _INFO,
        )
        if piece is not None:
            fields = {f"_{name}": value for name, value in partial_fields(piece).items()}
            rest += b"," + orjson.dumps(fields)[1:-1]
        return head + orjson.dumps(text(entry.line)) + rest + b"}"

    return encode


def packer(kind: str, level: int) -> Callable[[bytes], bytes]:
    """What compresses a message: gzip, zlib or none."""
    if kind == "none":
        return bytes
    if kind == "zlib":
        return lambda data: zlib.compress(data, level)
    return lambda data: gzip.compress(data, level if level >= 0 else 6, mtime=0)


def divide(message: bytes, container: str = "") -> Sequence[bytes]:
    """The datagrams of a message; none for one that 128 chunks do not hold, which is logged."""
    if len(message) <= CHUNK + 12:
        return (message,)
    count = -(-len(message) // CHUNK)
    if count > CHUNKS:
        log.warning(
            "container %s: gelf: a line was dropped: %d bytes do not fit into %d chunks; fewer labels or env?",
            container[:12], len(message), CHUNKS,
        )  # fmt: skip
        return ()
    head = b"\x1e\x0f" + secrets.token_bytes(8)
    return [head + bytes([number, count]) + message[number * CHUNK : (number + 1) * CHUNK] for number in range(count)]

"""The driver "journald": systemd's journal by its native protocol.

A datagram has a field a line, `NAME=value`; a value with line ends stands behind its name and its length. What is too large for a
datagram goes as a sealed memfd. Sources: systemd, "Native Journal Protocol"; moby, daemon/logger/journald, for the fields.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping

from plugin_sdk import InvalidParameter, Unavailable
from plugin_sdk.logoptions import ATTRIBUTES, extra_attributes, log_tag
from plugin_sdk.logs import LogEntry, LogInfo, LogSink
from plugin_sdk.logwire import Piece
from plugin_sdk.times import format_ns

from .datagrams import DatagramLink
from .links import Address
from .shipping import Encode, ShippingDriver, partial_fields

SOCKET = "/run/systemd/journal/socket"
NAMESPACE = "/run/systemd/journal.{}/socket"

_INFO, _ERROR = 6, 3
_OTHER = re.compile(r"[^A-Z0-9_]")
_NAMESPACE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9:_.-]{0,63}\Z")
_LENGTH = struct.Struct("<Q")


class JournaldDriver(ShippingDriver):
    """See the module. Beyond Docker's options, `journald-namespace` names one of the host's journal namespaces."""

    name = "journald"
    options = ("journald-namespace", "tag", *ATTRIBUTES)

    def check(self, options: Mapping[str, str]) -> None:
        """See `ShippingDriver.check`."""
        namespace = options.get("journald-namespace", "")
        if namespace and not _NAMESPACE.match(namespace):
            raise InvalidParameter(f'journald-namespace: "{namespace}" is no name of a journal namespace')

    async def open(self, info: LogInfo) -> LogSink:
        """See `LogDriver.open`."""
        namespace = info.options.get("journald-namespace", "")
        link = DatagramLink(
            Address("unixgram", path=NAMESPACE.format(namespace) if namespace else SOCKET), by_memory=True
        )
        try:
            return await self.linked(info, link, formatter(info))
        except Unavailable as error:
            raise Unavailable(f"journald is not enabled on this host, or does not run: {error}") from None


def field_name(name: str) -> str:
    """A label's or variable's name as the journal takes it: upper case, without leading underscores, 64 characters.

    "" when nothing is left.
    """
    return _OTHER.sub("_", name.upper()).lstrip("_")[:64]


def formatter(info: LogInfo) -> Encode:
    """What makes datagrams of a container's entries."""
    container = info.container
    tag = log_tag(info)
    fields = {
        **extra_attributes(info, field_name),
        "CONTAINER_ID": container.Id[:12],
        "CONTAINER_ID_FULL": container.Id,
        "CONTAINER_NAME": container.Name,
        "CONTAINER_TAG": tag,
        "IMAGE_NAME": container.ImageRef,
        "SYSLOG_IDENTIFIER": tag,
    }
    fields.pop("", None)
    common = b"".join(_field(name, value.encode(errors="surrogateescape")) for name, value in fields.items())

    def encode(entry: LogEntry, piece: Piece | None) -> bytes:
        parts = [
            _field("MESSAGE", entry.line),
            b"PRIORITY=%d\n" % (_ERROR if entry.stream == 2 else _INFO),
            _field("SYSLOG_TIMESTAMP", format_ns(entry.time_ns).encode()),
            common,
        ]
        if piece is not None:
            partial = {f"CONTAINER_{name.upper()}": value for name, value in partial_fields(piece).items()}
            if piece.last:
                # Docker's own reader takes the field for "the line goes on".
                del partial["CONTAINER_PARTIAL_MESSAGE"]
            parts += [_field(name, value.encode()) for name, value in partial.items()]
        return b"".join(parts)

    return encode


def _field(name: str, value: bytes) -> bytes:
    if b"\n" in value:
        return name.encode() + b"\n" + _LENGTH.pack(len(value)) + value + b"\n"
    return name.encode() + b"=" + value + b"\n"

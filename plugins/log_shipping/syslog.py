"""The driver "syslog": RFC 3164 and RFC 5424 over UDP, TCP, TLS and local sockets.

Formats and framing are Docker's (moby, daemon/logger/syslog, and RackSec/srslog): a line end closes each message, except
that RFC 5424 over TLS counts octets (RFC 5425). Times are the entries' own, in the daemon's time zone.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Mapping
from datetime import datetime

from plugin_sdk import InvalidParameter, Unavailable
from plugin_sdk.logoptions import ATTRIBUTES, boolean_option, log_tag
from plugin_sdk.logs import LogEntry, LogInfo, LogSink
from plugin_sdk.logwire import Piece

from .datagrams import DatagramLink
from .links import Address, Link, host_and_port, split
from .shipping import Encode, ShippingDriver
from .streams import StreamLink
from .tls import check_files, client_context

DEFAULT_PORT = 514
LOCAL_SOCKETS = ("/dev/log", "/var/run/syslog", "/var/run/log")

_FACILITIES = [
    "kern",
    "user",
    "mail",
    "daemon",
    "auth",
    "syslog",
    "lpr",
    "news",
    "uucp",
    "cron",
    "authpriv",
    "ftp",
    "-",
    "-",
    "-",
    "-",
    "local0",
    "local1",
    "local2",
    "local3",
    "local4",
    "local5",
    "local6",
    "local7",
]
_FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")
_INFO, _ERROR = 6, 3
_SCHEMES = {"udp": "udp", "tcp": "tcp", "tcp+tls": "tls", "unix": "unix", "unixgram": "unixgram"}


class SyslogDriver(ShippingDriver):
    """See the module."""

    name = "syslog"
    options = (
        "syslog-address", "syslog-facility", "syslog-format", "syslog-tls-ca-cert", "syslog-tls-cert", "syslog-tls-key",
        "syslog-tls-skip-verify", "tag", *ATTRIBUTES,
    )  # fmt: skip

    def __init__(self, local_sockets: tuple[str, ...] = LOCAL_SOCKETS) -> None:
        super().__init__()
        self._local_sockets = local_sockets

    def check(self, options: Mapping[str, str]) -> None:
        """See `ShippingDriver.check`."""
        address = parse_address(options.get("syslog-address", ""))
        if address is not None and address.path:
            try:
                os.stat(address.path)
            except OSError as error:
                raise InvalidParameter(f"stat {address.path}: {(error.strerror or '').lower()}") from None
        facility(options.get("syslog-facility", ""))
        if options.get("syslog-format", "") not in _FORMATS:
            raise InvalidParameter("Invalid syslog format")
        _skips(options)
        if ("syslog-tls-cert" in options) != ("syslog-tls-key" in options):
            raise InvalidParameter("syslog-tls-cert and syslog-tls-key are only of use together")
        if address is not None and address.scheme == "tls":
            check_files(options, ("syslog-tls-ca-cert", "syslog-tls-cert", "syslog-tls-key"))

    async def open(self, info: LogInfo) -> LogSink:
        """See `LogDriver.open`."""
        options = info.options
        address = parse_address(options.get("syslog-address", ""))
        form = options.get("syslog-format", "")
        encode = formatter(
            form, facility(options.get("syslog-facility", "")), log_tag(info),
            counted=address is not None and address.scheme == "tls" and form.startswith("rfc5424"),
        )  # fmt: skip
        if address is None:
            return await self._local(info, encode)
        if address.scheme in ("udp", "unixgram"):
            return await self.linked(info, DatagramLink(address), encode)
        return await self.linked(info, StreamLink(address, _security(address, options)), encode)

    async def _local(self, info: LogInfo, encode: Encode) -> LogSink:
        for path in self._local_sockets:
            links: tuple[Link, ...] = (
                DatagramLink(Address("unixgram", path=path)),
                StreamLink(Address("unix", path=path)),
            )
            for link in links:
                try:
                    return await self.linked(info, link, encode)
                except Unavailable:
                    continue
        raise Unavailable(
            f"Unix syslog delivery error: no syslog server listens at {', '.join(self._local_sockets)}; "
            "start one, or name another with syslog-address"
        )


def parse_address(address: str) -> Address | None:
    """`syslog-address`; None without one: the local server. Raises InvalidParameter."""
    if not address:
        return None
    parts = split(address)
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None:
        raise InvalidParameter(f"unsupported scheme: '{parts.scheme}'")
    if scheme in ("unix", "unixgram"):
        return Address(scheme, path=parts.path)
    host, port = host_and_port(parts, DEFAULT_PORT)
    return Address(scheme, host, port)


def facility(name: str) -> int:
    """The number of `syslog-facility`, by name or number; daemon without one. Raises InvalidParameter."""
    if not name:
        return _FACILITIES.index("daemon")
    if name in _FACILITIES and name != "-":
        return _FACILITIES.index(name)
    if name.isascii() and name.isdigit() and int(name) <= 23:
        return int(name)
    raise InvalidParameter("invalid syslog facility")


def _skips(options: Mapping[str, str]) -> bool:
    # Docker looks at nothing but whether the option is there; "false" must not mean that nobody checks.
    return options.get("syslog-tls-skip-verify") == "" or boolean_option(options, "syslog-tls-skip-verify")


def _security(address: Address, options: Mapping[str, str]) -> Callable[[], ssl.SSLContext] | None:
    if address.scheme != "tls":
        return None
    return lambda: client_context(
        ca=options.get("syslog-tls-ca-cert", ""),
        certificate=options.get("syslog-tls-cert", ""),
        key=options.get("syslog-tls-key", ""),
        skip_verify=_skips(options),
    )


def formatter(form: str, facility: int, tag: str, *, counted: bool = False) -> Encode:
    """What makes messages of entries.

    Args:
        form: "" (as for the local server), rfc3164, rfc5424 or rfc5424micro.
        counted: octets are counted in front (RFC 5425).
    """
    host, process = socket.gethostname(), os.getpid()
    heads = {
        "": f"{tag}[{process}]: ",
        "rfc3164": f"{host} {tag}[{process}]: ",
        "rfc5424": f"{host} {tag} {process} {tag} - ",
    }
    head = heads[form.removesuffix("micro")].encode()
    modern = form.startswith("rfc5424")
    clocks = _Clocks(_stamp_3164 if not modern else _stamp_micro if form.endswith("micro") else _stamp_5424)

    def encode(entry: LogEntry, piece: Piece | None) -> bytes:
        priority = facility << 3 | (_ERROR if entry.stream == 2 else _INFO)
        version = "1 " if modern else ""
        message = f"<{priority}>{version}{clocks(entry.time_ns)} ".encode() + head + entry.line + b"\n"
        return b"%d %s" % (len(message), message) if counted else message

    return encode


class _Clocks:
    """The last stamp again while the time is the same: a busy container has many lines a microsecond."""

    def __init__(self, stamp: Callable[[int], str]) -> None:
        self._stamp = stamp
        self._last = (-1, "")

    def __call__(self, time_ns: int) -> str:
        if self._last[0] != time_ns:
            self._last = (time_ns, self._stamp(time_ns))
        return self._last[1]


def _moment(time_ns: int) -> datetime:
    return datetime.fromtimestamp(time_ns // 10**9).astimezone()


def _stamp_3164(time_ns: int) -> str:
    moment = _moment(time_ns)
    return f"{moment:%b} {moment.day:2d} {moment:%H:%M:%S}"


def _zone(moment: datetime) -> str:
    zone = moment.strftime("%z")
    return "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:5]}"


def _stamp_5424(time_ns: int) -> str:
    moment = _moment(time_ns)
    return f"{moment:%Y-%m-%dT%H:%M:%S}{_zone(moment)}"


def _stamp_micro(time_ns: int) -> str:
    moment = _moment(time_ns)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_ns % 10**9 // 1000:06d}{_zone(moment)}"

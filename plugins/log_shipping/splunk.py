"""The driver "splunk": Splunk's HTTP Event Collector.

Events go in groups, JSON objects one behind the other, to /services/collector/event/1.0. A group counts as sent when the
collector has answered 200 (`collector`, loaded at first use). Sources: Splunk,
"HTTP Event Collector"; moby, daemon/logger/splunk, for options and shapes.
"""

from __future__ import annotations

import importlib
import socket
from collections.abc import Mapping
from typing import Any

import orjson

from plugin_sdk import InvalidParameter
from plugin_sdk.aio import blocking
from plugin_sdk.logoptions import ATTRIBUTES, boolean_option, extra_attributes, log_tag
from plugin_sdk.logs import LogEntry, LogInfo, LogSink
from plugin_sdk.logwire import Piece

from .links import split
from .shipping import Encode, ShippingDriver, text
from .tls import check_files, client_context

PATH = "/services/collector/event/1.0"

_BOOLEANS = ("splunk-insecureskipverify", "splunk-verify-connection", "splunk-gzip", "splunk-index-acknowledgment")
_TEXTS = ("splunk-url", "splunk-token", "splunk-source", "splunk-sourcetype", "splunk-index", "splunk-caname")


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
        module = await blocking(importlib.import_module, ".collector", __package__)
        link = module.CollectorLink(
            parse_url(options),
            options["splunk-token"],
            context,
            name=options.get("splunk-caname") or None,
            level=int(options.get("splunk-gzip-level", "-1")) if boolean_option(options, "splunk-gzip") else None,
            channel=boolean_option(options, "splunk-index-acknowledgment"),
        )
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

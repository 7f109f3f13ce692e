"""A request's line and headers, and the one header of answers that changes."""

from __future__ import annotations

import contextlib
import time
from email.utils import formatdate
from urllib.parse import unquote

import httptools


class BadHead(ValueError):
    """It is no HTTP/1.0 or HTTP/1.1 request."""


class Head:
    """What the parser says of a request's head.

    Attributes:
        path: decoded.
        query: as sent.
        headers: lower-case names.
        length: of the body, from Content-Length.
        chunked: the body is.
        expects: the client waits for `100 Continue`.
        close: this is the last request on its connection.
        upgrade: value of the Upgrade header, in lower case.
    """

    def __init__(self) -> None:
        self.version = ""
        self.method = ""
        self.path = "/"
        self.raw_path = b"/"
        self.query = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.length = 0
        self.chunked = False
        self.expects = False
        self.close = False
        self.upgrade: bytes | None = None
        self.url = b""

    def on_url(self, url: bytes) -> None:
        """Called by the parser."""
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        name = name.lower()
        self.headers.append((name, value))
        if name == b"content-length":
            self.length = int(value)
        elif name == b"transfer-encoding":
            self.chunked = value.lower().endswith(b"chunked")
        elif name == b"upgrade":
            self.upgrade = value.lower()
        elif name == b"connection":
            self.close = self.close or b"close" in value.lower()
        elif name == b"expect":
            self.expects = value.lower() == b"100-continue"


def parse(raw: bytes) -> Head:
    """The head that ends with the empty line at the end of `raw`. Raises BadHead."""
    head = Head()
    parser = httptools.HttpRequestParser(head)
    try:
        with contextlib.suppress(httptools.HttpParserUpgrade):
            parser.feed_data(raw)
        target = httptools.parse_url(head.url)
    except (httptools.HttpParserError, httptools.HttpParserInvalidURLError) as error:
        raise BadHead(str(error)) from None
    head.version = parser.get_http_version()
    if head.version not in ("1.0", "1.1"):
        raise BadHead("want HTTP/1.1")
    if sum(name == b"content-type" for name, _ in head.headers) > 1:
        raise BadHead("more than one Content-Type header")
    head.close = head.close or head.version == "1.0"
    head.method = parser.get_method().decode("latin-1")
    head.raw_path = target.path or b"/"
    head.query = target.query or b""
    path = head.raw_path.decode("latin-1")
    head.path = unquote(path) if "%" in path else path
    if "\0" in head.path:
        raise BadHead("a NUL character in the address")
    return head


_date_second = 0
_date_line = b""


def date_line() -> bytes:
    """The Date header of this second, with its line end."""
    global _date_second, _date_line
    now = int(time.time())
    if now != _date_second:
        _date_second, _date_line = now, b"Date: " + formatdate(now, usegmt=True).encode() + b"\r\n"
    return _date_line

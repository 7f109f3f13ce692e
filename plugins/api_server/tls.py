"""TLS over a plain transport, with half-close: asyncio's and uvloop's own TLS transports end both ways at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from plugin_sdk import InvalidParameter

HANDSHAKE_DEADLINE = 10.0
"""Seconds that a client has for the handshake."""

_CHUNK = 256 * 1024

log = logging.getLogger("engine.api_server")


def server_context(*, cert: str, key: str, ca: str | None) -> ssl.SSLContext:
    """A context for TLS 1.2 and newer; with `ca`, clients must show a certificate that it signed.

    Raises:
        InvalidParameter: a file is missing or no such thing; names it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for what, path in (("certificate (--tlscert)", cert), ("key (--tlskey)", key), ("CA (--tlscacert)", ca)):
        if path is not None and not Path(path).is_file():
            raise InvalidParameter(f"the TLS {what} {path} does not exist: make one, or name another file")
    try:
        context.load_cert_chain(cert, key)
    except (ssl.SSLError, OSError) as error:
        raise InvalidParameter(f"cannot use the TLS certificate {cert} with the key {key}: {error}") from None
    if ca is not None:
        try:
            context.load_verify_locations(ca)
        except (ssl.SSLError, OSError) as error:
            raise InvalidParameter(f"cannot use the TLS CA {ca}: {error}") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class TlsLayer(asyncio.Protocol):
    """The socket's protocol; the protocol above sees a TlsTransport.

    `close_notify` from the client is the end of its side alone: `eof_received` above, and writing goes on. The end of
    the TCP stream behind it is the end of the client. Without a `close_notify` it is the end of its side, as on plain
    TCP: Python's `ssl` cannot send one and still read, so that is how docker-py's users end a command's input.
    """

    def __init__(self, context: ssl.SSLContext, make: Callable[[], Any]) -> None:
        """`make` gives the protocol above, once the handshake is done."""
        self._make = make
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.raw: Any = None
        self._transport = TlsTransport(self)
        self._above: Any = None
        self._ended = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        self.raw = transport
        self._timer = asyncio.get_running_loop().call_later(HANDSHAKE_DEADLINE, transport.abort)

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        if (self._above is None and not self._handshake()) or self.raw.is_closing():
            return
        try:
            while not self._ended and not self.raw.is_closing():
                plain = self.tls.read(_CHUNK)
                if not plain:
                    self._end()
                    break
                self._above.data_received(plain)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._end()
        except ssl.SSLError as error:
            log.debug("TLS failed: %s", error)
            self.raw.abort()
            return
        self.flush()

    def _handshake(self) -> bool:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self.flush()
            return False
        except ssl.SSLError as error:
            log.debug("TLS handshake failed: %s", error)
            self.flush()
            if error.reason == "HTTP_REQUEST":
                self.raw.write(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
            self.raw.close()
            return False
        self.flush()
        if self._timer is not None:
            self._timer.cancel()
        self._above = self._make()
        self._above.connection_made(self._transport)
        return True

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            if not self._above.eof_received():
                self._transport.close()

    def eof_received(self) -> bool:
        if self._above is None:
            return False
        if self._ended:
            if not self.raw.is_closing():
                self._above.client_gone()
            return False
        self._end()
        return not self.raw.is_closing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._above is not None:
            self._above.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._above is not None:
            self._above.pause_writing()

    def resume_writing(self) -> None:
        if self._above is not None:
            self._above.resume_writing()

    def flush(self) -> None:
        """Send what TLS wants to send."""
        if self._outgoing.pending and not self.raw.is_closing():
            self.raw.write(self._outgoing.read())

    def use(self, protocol: Any) -> None:
        """Put another protocol above."""
        self._above = protocol


class TlsTransport(asyncio.Transport):
    """What the protocol above writes to."""

    def __init__(self, layer: TlsLayer) -> None:
        super().__init__()
        self._layer = layer
        self._finished = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As the plain transport's, with "ssl_object", and of a verified client "engine.peer" (common name) and
        "engine.certificates" (PEM)."""
        if name == "ssl_object":
            return self._layer.tls
        if name == "engine.peer":
            return common_name(self._layer.tls.getpeercert())
        if name == "engine.certificates":
            return certificates(self._layer.tls)
        return self._layer.raw.get_extra_info(name, default)

    def write(self, data: Any) -> None:
        """Encrypt and send."""
        if self._finished or self._layer.raw.is_closing():
            return
        try:
            self._layer.tls.write(data)
        except ssl.SSLError as error:
            log.debug("TLS failed: %s", error)
            self.abort()
            return
        self._layer.flush()

    def writelines(self, parts: Any) -> None:
        """Encrypt and send."""
        self.write(b"".join(parts))

    def can_write_eof(self) -> bool:
        """Yes."""
        return True

    def write_eof(self) -> None:
        """Send `close_notify`: the end of this side."""
        if not self._finished:
            self._finished = True
            # It has been sent by then; what is wanted is the client's own, which `data_received` looks after.
            with contextlib.suppress(ssl.SSLError):
                self._layer.tls.unwrap()
            self._layer.flush()

    def close(self) -> None:
        """Send what is queued, then close."""
        if not self._layer.raw.is_closing():
            self.write_eof()
            self._layer.raw.close()

    def abort(self) -> None:
        """Close at once."""
        self._layer.raw.abort()

    def is_closing(self) -> bool:
        """Close or abort was called."""
        return bool(self._layer.raw.is_closing())

    def pause_reading(self) -> None:
        """Stop reading from the socket."""
        self._layer.raw.pause_reading()

    def resume_reading(self) -> None:
        """Go on reading from the socket."""
        self._layer.raw.resume_reading()

    def get_write_buffer_size(self) -> int:
        """Bytes queued, encrypted."""
        return int(self._layer.raw.get_write_buffer_size())

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """As the plain transport's."""
        self._layer.raw.set_write_buffer_limits(high, low)

    def set_protocol(self, protocol: Any) -> None:
        """Put another protocol above."""
        self._layer.use(protocol)

    def get_protocol(self) -> Any:
        """The layer below has its own."""
        return self._layer


def common_name(certificate: Any) -> str:
    """The CN of a certificate's subject as `ssl` gives it; "" without one."""
    for relative in (certificate or {}).get("subject", ()):
        for key, value in relative:
            if key == "commonName":
                return str(value)
    return ""


def certificates(tls: Any) -> tuple[str, ...]:
    """The client's certificate, PEM, and behind it those it sent along; Python before 3.13 gives the first alone."""
    own = tls.getpeercert(binary_form=True)
    if own is None:
        return ()
    sent = getattr(tls, "get_unverified_chain", list)() or [own]
    return tuple(ssl.DER_cert_to_PEM_cert(der) for der in sent)

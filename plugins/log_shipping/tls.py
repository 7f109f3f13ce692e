"""TLS of those who send."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping, Sequence

from plugin_sdk import InvalidParameter


def client_context(*, ca: str = "", certificate: str = "", key: str = "", skip_verify: bool = False) -> ssl.SSLContext:
    """Settings of TLS from files in PEM. Blocking.

    Args:
        ca: authorities to trust; "" those of the system.
        skip_verify: take any certificate.

    Raises:
        InvalidParameter: a file cannot be read or holds something else.
    """
    try:
        context = ssl.create_default_context(cafile=ca or None)
    except (OSError, ssl.SSLError) as error:
        raise InvalidParameter(f"Could not read CA certificate {ca!r}: {_words(error)}") from None
    if skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate:
        try:
            context.load_cert_chain(certificate, key or None, password=_no_password)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise InvalidParameter(
                f"Could not load X509 key pair from {certificate!r} and {key!r}: {_words(error)}"
            ) from None
    return context


def check_files(options: Mapping[str, str], names: Sequence[str]) -> None:
    """Raises InvalidParameter when a file that an option names is not there, or must not be read."""
    for name in names:
        path = options.get(name)
        if path and not os.access(path, os.R_OK):
            raise InvalidParameter(f"{name}: cannot read {path}: it is not there, or not readable")


def _no_password() -> str:
    # Without this, OpenSSL asks on the daemon's terminal.
    raise ValueError("the key is encrypted")


def _words(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) and error.strerror else str(error)

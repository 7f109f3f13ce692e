"""TLS of registries: the system's authorities, and `certs.d/HOST[:PORT]` for those with certificates of their own."""

from __future__ import annotations

import ssl
from pathlib import Path

from plugin_sdk import InvalidParameter


def default_context() -> ssl.SSLContext:
    """Verifies with the system's authorities. Blocking: reads files."""
    context = ssl.create_default_context()
    # Python 3.13 demands what many an authority of a company's own lacks; Docker's clients do not.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def lenient_context() -> ssl.SSLContext:
    """Verifies nothing: for insecure registries."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def folder_context(folder: Path) -> ssl.SSLContext | None:
    """As a registry's folder says; None when there is no folder, or nothing in it. Blocking.

    `*.crt` are authorities, besides the system's; `NAME.cert` with `NAME.key` is a client's certificate. (Source: dockerd's
    documentation, "Verify repository client with certificates".)

    Raises:
        InvalidParameter: a certificate lacks its key, a key its certificate, or a file cannot be used; names the file.
    """
    try:
        files = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InvalidParameter(f"cannot read certificates in {folder}: {error.strerror}") from None
    known = [file for file in files if file.suffix in (".crt", ".cert", ".key")]
    if not known:
        return None
    names = {file.name for file in known}
    context = default_context()
    for file in known:
        try:
            if file.suffix == ".crt":
                context.load_verify_locations(file)
            elif file.suffix == ".cert":
                if file.with_suffix(".key").name not in names:
                    raise InvalidParameter(
                        f"missing key {file.with_suffix('.key')} for client certificate {file}; authorities have the"
                        " extension .crt"
                    )
                context.load_cert_chain(file, file.with_suffix(".key"))
            elif file.with_suffix(".cert").name not in names:
                raise InvalidParameter(f"missing client certificate {file.with_suffix('.cert')} for key {file}")
        except OSError as error:  # ssl.SSLError is one
            raise InvalidParameter(f"cannot use {file}: {error.strerror or error}") from None
    return context

"""A registry's refusals, in dockerd's words.

Source of the error document: OCI distribution specification, "Error codes"; token servers add `{"details": ...}` (Docker Hub) and
OAuth's `{"error": ..., "error_description": ...}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from plugin_sdk import (
    EngineError,
    Forbidden,
    InvalidParameter,
    NotFound,
    NotSupported,
    TooLarge,
    Unauthorized,
    Unavailable,
)

from .challenge import Challenge

_LONGEST = 1000
"""Characters of a registry's own text that are shown."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")

_BY_STATUS = {
    401: ("UNAUTHORIZED", "authentication required"),
    403: ("DENIED", "requested access to the resource is denied"),
    405: ("UNSUPPORTED", "the operation is unsupported"),
    413: ("SIZE_INVALID", "the registry does not take content of this size"),
    429: ("TOOMANYREQUESTS", "too many requests"),
}
_OAUTH = {
    "invalid_token": ("UNAUTHORIZED", "authentication required"),
    "insufficient_scope": ("DENIED", "requested access to the resource is denied"),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request is about.

    Attributes:
        name: of the repository, as people write it: "127.0.0.1:5000/me/app".
        push: the work that it belongs to is a push.
        login: only credentials are tried; `name` is the registry's.
        manifest: ":TAG" or "@DIGEST" of the manifest that it asks for, or "".
        blob: digest of the blob that it asks for, or "".
    """

    name: str
    push: bool = False
    login: bool = False
    manifest: str = ""
    blob: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer other than expected; `code` is the specification's, for example "MANIFEST_UNKNOWN", or ""."""

    status: int
    code: str
    message: str

    def __str__(self) -> str:
        code = self.code.lower().replace("_", " ")
        return f"{code}: {self.message}" if code else self.message


def read(status: int, raw: bytes, challenges: Iterable[Challenge] = ()) -> Refusal:
    """What an answer's status, body and `WWW-Authenticate` say."""
    if status == 401:
        for challenge in challenges:
            if known := _OAUTH.get(challenge.parameters.get("error", "")):
                told = challenge.parameters.get("error_description") or known[1]
                return Refusal(status, known[0], _shown(told))
    code, message = _document(raw)
    usual = _BY_STATUS.get(status, ("", f"the registry answered with status {status}"))
    return Refusal(status, code or usual[0], message or usual[1])


def _document(raw: bytes) -> tuple[str, str]:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return "", ""
    if not isinstance(document, dict):
        return "", ""
    errors = document.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else None
    if isinstance(first, dict):
        code = first.get("code")
        code = code.upper() if isinstance(code, str) and re.fullmatch(r"[A-Za-z_]{1,40}", code) else ""
        detail = first.get("detail")
        message = first.get("message") or (detail if isinstance(detail, str) else "") or code.lower().replace("_", " ")
        return code, _shown(message)
    for key in ("details", "error_description", "message", "error"):
        if isinstance(told := document.get(key), str) and told:
            return "", _shown(told)
    return "", ""


def _shown(text: Any) -> str:
    # A hostile text must not steer the terminal on which it will be printed.
    return _CONTROL.sub(" ", str(text)).strip()[:_LONGEST]


def error(asked: Asked, host: str, refusal: Refusal) -> EngineError:
    """The error to raise.

    As in dockerd, a pull that is denied is NotFound: registries say no more than that, lest they tell what exists.
    """
    code, status = refusal.code, refusal.status
    if code == "DENIED" or status == 403:
        return (Forbidden if asked.push else NotFound)(f"{_denied(asked)}: {refusal}")
    if code == "UNAUTHORIZED" or status == 401:
        return Unauthorized(f"{_denied(asked)}: {refusal}")
    if status == 404 or code in ("MANIFEST_UNKNOWN", "NAME_UNKNOWN", "BLOB_UNKNOWN"):
        return NotFound(_missing(asked, refusal))
    text = f"registry {host} refuses {_what(asked)}: {refusal}"
    if status == 429 or (status >= 500 and status != 501):
        return Unavailable(text)
    if status == 413:
        return TooLarge(text)
    if code == "UNSUPPORTED" or status in (405, 501):
        return NotSupported(text)
    return InvalidParameter(text)


def no_credentials(asked: Asked) -> EngineError:
    """The registry wants a password, and there is none."""
    return Unauthorized(f"{_denied(asked)}: no basic auth credentials")


def _denied(asked: Asked) -> str:
    if asked.login:
        return f"login to {asked.name} failed"
    if asked.push:
        return f"push access denied for {asked.name}, it may require 'docker login'"
    return f"pull access denied for {asked.name}, repository does not exist or may require 'docker login'"


def _missing(asked: Asked, refusal: Refusal) -> str:
    if refusal.code == "NAME_UNKNOWN":
        return f"repository {asked.name} not found: {refusal}"
    if asked.manifest:
        said = refusal if refusal.code else "manifest unknown"
        return f"manifest for {asked.name}{asked.manifest} not found: {said}"
    if asked.blob:
        return f"blob {asked.blob} of {asked.name} not found: {refusal if refusal.code else 'blob unknown'}"
    return f"repository {asked.name} not found: {refusal}"


def _what(asked: Asked) -> str:
    if asked.manifest:
        return f"{asked.name}{asked.manifest}"
    return f"blob {asked.blob} of {asked.name}" if asked.blob else asked.name

"""The form in which a request is put to authorization plugins: what the route gets, written so that there is one reading.

A plugin reads with other libraries than the engine's. Where two of them could read one request in two ways, it is put in
one form, or refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, quote_plus, unquote, unquote_plus

from plugin_sdk import InvalidParameter
from plugin_sdk.api import RequestView

SECRET = frozenset({"authorization", "x-registry-auth", "x-registry-config"})
"""Headers that no plugin is shown. Source: Docker's authorization documentation and moby's behaviour."""

_FRAMING = frozenset({"host", "transfer-encoding", "trailer"})
"""Headers that Go's server keeps to itself, so that plugins made for Docker never saw them."""

# Go leaves these alone in a path (RFC 3986, pchar), so an ordinary address looks as the client wrote it.
_PATH_SAFE = "/:@!$&'()*+,;=~"

_UPLOADS = (
    ("POST", re.compile(r"/build|/images/load|/images/create|/plugins/create")),
    ("PUT", re.compile(r"/containers/[^/]+/archive")),
)
"""Where a body is an archive and may be of any size."""

_LISTS = frozenset(
    {
        ("/build", "extrahosts"),
        ("/build", "securityopt"),
        ("/build", "t"),
        ("/commit", "changes"),
        ("/images/create", "changes"),
        ("/images/get", "names"),
        ("/images/get", "platform"),
    }
)
"""(path, query parameter) that may come more than once."""


def address(view: RequestView) -> str:
    """`RequestUri`: path with version and query as the route gets them, escaped in the usual way.

    Raises:
        InvalidParameter: a parameter comes twice, and readers differ in which one counts.
    """
    path = unquote(view.target.partition("?")[0])
    if not path.endswith(view.path):
        raise InvalidParameter(f"the address {view.target!r} cannot be put to the authorization plugins")
    seen: set[str] = set()
    parts: list[str] = []
    # As starlette takes a query apart, and so the routes do.
    for part in filter(None, view.query.split("&")):
        name, equals, value = part.partition("=")
        name = unquote_plus(name)
        if name in seen and (view.path, name) not in _LISTS:
            raise InvalidParameter(
                f"the query parameter {name!r} comes more than once, "
                "and the authorization plugins cannot know which one counts: send it once"
            )
        seen.add(name)
        parts.append(quote_plus(name) + equals + quote_plus(unquote_plus(value)))
    return quote(path, safe=_PATH_SAFE) + (f"?{'&'.join(parts)}" if parts else "")


def flat(headers: Mapping[str, str], secret: Iterable[str] = SECRET) -> dict[str, str]:
    """Headers in Go's spelling ("Content-Type"), without secrets and framing. Of one that comes twice, the one that routes read."""
    hidden = {*secret, *_FRAMING}
    return {name.title(): headers[name] for name in headers if name not in hidden}


def declares_json(headers: Mapping[str, str]) -> bool:
    """The content type says JSON, whatever its case and parameters."""
    return headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


def shows_body(view: RequestView) -> bool:
    """The body goes to the plugins: JSON, and all else but uploads.

    A body with a false content type, or none, is shown too: which routes look at the type is not for us to know. The body
    of `/auth` is a password and never shown.
    """
    if view.path == "/auth":
        return False
    upload = any(view.method == method and path.fullmatch(view.path) for method, path in _UPLOADS)
    return not upload or declares_json(view.headers)


def check_json(body: bytes) -> None:
    """Raises InvalidParameter for an object with two keys that differ in nothing but case: of these, decoders keep
    different ones. What is no JSON at all passes: routes that want JSON refuse it."""
    try:
        json.loads(body.decode(), object_pairs_hook=_unequal)
    except _Twice as twice:
        raise InvalidParameter(
            f"the JSON body has the key {str(twice)!r} twice in one object (case does not count), "
            "and the authorization plugins cannot know which one counts: send it once"
        ) from None
    except RecursionError:
        raise InvalidParameter("the JSON body is nested too deeply") from None
    except ValueError:
        return


class _Twice(Exception):
    pass


def _unequal(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        folded = key.lower()
        if folded in seen:
            raise _Twice(key)
        seen.add(folded)

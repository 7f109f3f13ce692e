"""What a registry asks for: the header `WWW-Authenticate` (RFC 9110, section 11)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_ITEM = re.compile(rf'[\s,]*({_TOKEN})(\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?')
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to prove oneself.

    Attributes:
        scheme: lower case, for example "bearer".
        parameters: lower-case names, for example "realm".
    """

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse(headers: Iterable[str]) -> list[Challenge]:
    """All challenges of all `WWW-Authenticate` headers, in order; what cannot be read ends its header."""
    found: list[Challenge] = []
    for header in headers:
        parameters: dict[str, str] | None = None
        position = 0
        while item := _ITEM.match(header, position):
            position = item.end()
            name, assigned, quoted, plain = item.groups()
            if assigned is None:
                parameters = {}
                found.append(Challenge(name.lower(), parameters))
            elif parameters is not None:
                value = plain if quoted is None else _ESCAPED.sub(r"\1", quoted)
                parameters.setdefault(name.lower(), value)
    return found

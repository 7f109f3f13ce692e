"""Identifiers, filters and other small text that the whole API shares."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from kernel.errors import InvalidParameter

T = TypeVar("T")

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")
"""Names of containers, volumes and networks."""

Filters = dict[str, list[str]]


def new_id() -> str:
    """64 hex digits that, cut to 12, are not all decimal (such a host name would look like a number)."""
    while (candidate := secrets.token_hex(32))[:12].isdecimal():
        pass
    return candidate


def parse_filters(text: str | None, *, known: Iterable[str] | None = None) -> Filters:
    """The `filters` of a query: `{"name": ["a"]}` or, from old clients, `{"name": {"a": true}}`.

    Args:
        known: the filters that the caller understands; another one raises.

    Raises:
        InvalidParameter: no JSON of that shape, or an unknown filter (`invalid filter 'x'`).
    """
    if not text:
        return {}
    try:
        parsed = json.loads(text)
    except ValueError as error:
        raise InvalidParameter(f"invalid filters: {error}") from None
    if not isinstance(parsed, dict):
        raise InvalidParameter("invalid filters: want an object of lists")
    filters: Filters = {}
    for name, values in parsed.items():
        if isinstance(values, dict):
            values = [value for value, wanted in values.items() if wanted]
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise InvalidParameter(f"invalid filters: {name!r} wants a list of strings")
        filters[name] = values
    if known is not None:
        for name in filters.keys() - set(known):
            raise InvalidParameter(f"invalid filter {name!r}".replace('"', "'"))
    return filters


def match_labels(wanted: Sequence[str], labels: Mapping[str, str]) -> bool:
    """Each `key` or `key=value` of a label filter holds."""
    for item in wanted:
        key, equals, value = item.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def by_prefix(ref: str, items: Iterable[T], key: Callable[[T], str]) -> T | None:
    """The one item whose ID starts with `ref`; None without one.

    Raises:
        InvalidParameter: several do.
    """
    found = [item for item in items if key(item).startswith(ref)]
    if len(found) > 1:
        raise InvalidParameter(f"multiple IDs found with provided prefix: {ref}")
    return found[0] if found else None

"""The functions that templates call (`plugin_sdk.gotemplate`). Source: Go's text/template and fmt; moby's templates."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote_plus

from kernel.errors import InvalidParameter

WIDEST = 1024
"""Characters to which `printf` and `pad` fill up."""

_VERB = re.compile(r"%([-+# 0]*)(\d*)(?:\.(\d*))?(.)", re.DOTALL)


def truth(value: Any) -> bool:
    """What `if` takes for true: as in Go all but false, 0, nil and what is empty."""
    return bool(value)


def shown(value: Any) -> str:
    """A value as an action prints it."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{shown(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + " ".join(map(shown, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def quoted(value: Any) -> str:
    """As a string literal of Go."""
    return json.dumps(shown(value), ensure_ascii=False)


def printf(form: str, *values: Any) -> str:
    """Go's Sprintf."""
    left = list(values)

    def one(found: re.Match[str]) -> str:
        flags, width, precision, verb = found.groups()
        if verb == "%":
            return "%"
        if int(width or 0) > WIDEST or int(precision or 0) > WIDEST:
            raise InvalidParameter(f"printf: {found[0]}: wider than {WIDEST}")
        if not left:
            return f"%!{verb}(MISSING)"
        value = left.pop(0)
        place = f"%{flags}{width}" + (f".{precision or 0}" if precision is not None else "")
        if verb in "sv":
            return f"{place}s" % shown(value)
        if verb == "q":
            return f"{place}s" % quoted(value)
        if verb == "t":
            return f"{place}s" % shown(bool(value))
        if verb in "xX" and isinstance(value, str):
            digits = value.encode().hex()
            return f"{place}s" % (digits.upper() if verb == "X" else digits)
        if verb in "dxXoceEfgG" and isinstance(value, int | float):
            return f"{place}{verb}" % value
        return f"%!{verb}({type(value).__name__}={shown(value)})"

    text = _VERB.sub(one, form)
    return text + "".join(f"%!(EXTRA {shown(value)})" for value in left)


def index(value: Any, *keys: Any) -> Any:
    """`index x 1 "k"` is x[1]["k"]; what a map lacks is empty."""
    for key in keys:
        if isinstance(value, Mapping):
            value = value.get(key, "")
        elif isinstance(key, int) and not isinstance(key, bool) and 0 <= key < len(value):
            value = value[key] if not isinstance(value, str) else value.encode()[key]
        else:
            raise InvalidParameter(f"error calling index: index out of range: {shown(key)}")
    return value


def cut(value: Any, *bounds: int) -> Any:
    """`slice x 1 2` is x[1:2]."""
    begin, end = [*bounds, *(0, len(value))[len(bounds) :]]
    if not 0 <= begin <= end <= len(value):
        raise InvalidParameter("error calling slice: index out of range")
    return value[begin:end]


def spaced(*values: Any) -> str:
    """Go's Sprint: a space between two values of which neither is a string."""
    out = ""
    for at, value in enumerate(values):
        if at and not isinstance(value, str) and not isinstance(values[at - 1], str):
            out += " "
        out += shown(value)
    return out


def _every(*values: Any) -> Any:
    return next((value for value in values if not truth(value)), values[-1])


def _some(*values: Any) -> Any:
    return next((value for value in values if truth(value)), values[-1])


def _escape_script(*values: Any) -> str:
    return json.dumps(spaced(*values))[1:-1].translate({60: "\\u003C", 62: "\\u003E", 38: "\\u0026", 39: "\\'"})


def pad(text: str, before: int, after: int) -> str:
    """Spaces before and after what is not empty."""
    if max(before, after) > WIDEST:
        raise InvalidParameter(f"pad: wider than {WIDEST}")
    return " " * before + text + " " * after if text else text


def encoded(value: Any) -> str:
    """As JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True, default=shown)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "and": _every,
    "or": _some,
    "not": lambda value: not truth(value),
    "len": len,
    "index": index,
    "slice": cut,
    "print": spaced,
    "println": lambda *values: " ".join(map(shown, values)) + "\n",
    "printf": printf,
    "html": lambda *values: html.escape(spaced(*values)),
    "js": _escape_script,
    "urlquery": lambda *values: quote_plus(spaced(*values)),
    "eq": lambda value, *others: any(value == other for other in others),
    "ne": lambda value, other: value != other,
    "lt": lambda value, other: value < other,
    "le": lambda value, other: value <= other,
    "gt": lambda value, other: value > other,
    "ge": lambda value, other: value >= other,
    "json": encoded,
    "split": lambda text, separator: text.split(separator) if separator else list(text),
    "join": lambda texts, separator: separator.join(texts),
    "title": lambda text: re.sub(r"(?:(?<=\s)|^)\w", lambda found: found[0].upper(), text),
    "lower": str.lower,
    "upper": str.upper,
    "pad": pad,
    "truncate": lambda text, length: text[:length],
}

"""Times on the wire: RFC 3339 in UTC with nanoseconds, and the forms that clients send."""

from __future__ import annotations

import re
import time
from datetime import datetime

from kernel.errors import InvalidParameter

NEVER = "0001-01-01T00:00:00Z"
"""Go's zero time, which the API shows for "never"."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_UNIT = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,9})\d*)?)?(Z|z|[+-]\d\d:?\d\d)?$")


def format_ns(time_ns: int) -> str:
    """Nanoseconds since the epoch as `2026-01-02T03:04:05.000000006Z`."""
    seconds, nanos = divmod(time_ns, 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanos:09d}Z"


def now() -> str:
    """The present, formatted."""
    return format_ns(time.time_ns())


def parse_ns(text: str) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time (a bare date or minute is fine; without a zone UTC is meant).

    Raises:
        InvalidParameter: it is none.
    """
    found = _RFC3339.match(text)
    if not found:
        raise InvalidParameter(f"invalid time {text!r}: want RFC 3339, for example 2026-01-02T15:04:05Z")
    date, clock, fraction, zone = found.groups()
    clock = clock or "00:00:00"
    if clock.count(":") == 1:
        clock += ":00"
    zone = "+00:00" if zone in (None, "Z", "z") else zone
    try:
        moment = datetime.fromisoformat(f"{date}T{clock}{zone}")
    except ValueError as error:
        raise InvalidParameter(f"invalid time {text!r}: {error}") from None
    return int(moment.timestamp()) * 10**9 + int((fraction or "").ljust(9, "0") or 0)


def parse_duration_ns(text: str) -> int:
    """Nanoseconds of a Go duration such as `1h30m`, `1.5s` or `300ms`. Raises InvalidParameter."""
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text)
    if rest == "0":
        return 0
    parts = _DURATION.findall(rest)
    if not parts or "".join(number + unit for number, unit in parts) != rest:
        raise InvalidParameter(f"invalid duration {text!r}: want for example 1h30m or 10s")
    return sign * sum(int(float(number) * _UNIT[unit]) for number, unit in parts)


def format_duration(ns: int) -> str:
    """Nanoseconds as a Go duration: `1m30s`, `1.5s`, `300ms`."""
    if abs(ns) < _UNIT["s"]:
        name = next(name for name in ("ms", "us", "ns") if abs(ns) >= _UNIT[name] or name == "ns")
        return f"{ns / _UNIT[name]:g}{'µs' if name == 'us' else name}" if ns else "0s"
    seconds, rest = divmod(abs(ns), _UNIT["s"])
    hours, minutes = seconds // 3600, seconds // 60 % 60
    fraction = f"{rest:09d}".rstrip("0")
    parts = [f"{hours}h"] if hours else []
    parts += [f"{minutes}m"] if hours or minutes else []
    return ("-" if ns < 0 else "") + "".join(parts) + f"{seconds % 60}{'.' + fraction if fraction else ''}s"


def parse_moment_ns(text: str) -> int:
    """The forms of `since` and `until`: seconds since the epoch with an optional fraction, RFC 3339, or a duration ago.

    Empty and "0" give 0. Raises InvalidParameter.
    """
    if not text:
        return 0
    if re.fullmatch(r"-?\d+(\.\d+)?", text):
        seconds, _, fraction = text.partition(".")
        return int(seconds) * 10**9 + int(fraction[:9].ljust(9, "0") if fraction else 0)
    if re.fullmatch(r"-?[\d.]+[a-zµ].*", text):
        return time.time_ns() - parse_duration_ns(text)
    return parse_ns(text)


def parse_until_ns(text: str) -> int:
    """A moment in a filter such as `until=24h`. Raises InvalidParameter, in dockerd's words."""
    try:
        return parse_moment_ns(text)
    except InvalidParameter:
        raise InvalidParameter(f'failed to parse value as time or duration: "{text}"') from None


def ago(time_ns: int) -> str:
    """How long ago, in the docker CLI's words: `About a minute`, `3 hours`, ... (for `Status` of ps)."""
    seconds = max(0, (time.time_ns() - time_ns) // 10**9)
    minutes, hours = seconds // 60, round(seconds / 3600)
    for limit, words in (
        (1, "Less than a second"),
        (2, "1 second"),
        (60, f"{seconds} seconds"),
        (120, "About a minute"),
        (3600, f"{minutes} minutes"),
    ):
        if seconds < limit:
            return words
    for count, words in ((2, "About an hour"), (48, f"{hours} hours"), (24 * 7 * 2, f"{hours // 24} days")):
        if hours < count:
            return words
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    return f"{hours // 24 // 30} months" if hours < 24 * 365 * 2 else f"{hours // 24 // 365} years"

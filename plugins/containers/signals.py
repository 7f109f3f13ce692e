"""Signals by name and number, as clients write them."""

from __future__ import annotations

import signal

from plugin_sdk import InvalidParameter

RTMIN, RTMAX = 34, 64

ENDING = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGABRT})
"""Signals that are sent to end a container, whatever its stop signal."""


def parse_signal(text: str) -> int:
    """Number of `TERM`, `SIGTERM`, `sigterm`, `15`, `RTMIN+3`, `SIGRTMAX-1`.

    Raises:
        InvalidParameter: `invalid signal: FOO`, `the linux daemon does not support signal 99`.
    """
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdecimal():
        number = int(text)
        if 0 < number <= RTMAX:
            return number
        raise InvalidParameter(
            f"the linux daemon does not support signal {number}" if number else f"invalid signal: {text}"
        )
    name = text.upper().removeprefix("SIG")
    for base, start in (("RTMIN", RTMIN), ("RTMAX", RTMAX)):
        offset = name.removeprefix(base)
        if offset != name and (not offset or (offset[0] in "+-" and offset[1:].isdecimal())):
            number = start + int(offset or 0)
            if RTMIN <= number <= RTMAX:
                return number
    try:
        return int(signal.Signals[f"SIG{name}"])
    except KeyError:
        raise InvalidParameter(f"invalid signal: {text}") from None

"""How much of a container's output is kept: for a driver that does not take it, and for `docker logs`. All of it blocks."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from plugin_sdk.files import parse_size
from plugin_sdk.logs import LogSink

from .options import DEFAULT_FILES, DEFAULT_SIZE, limits
from .sinks import RawSink
from .spool import SEGMENT_SIZE, Position, Spool

BUFFER_BOUND = DEFAULT_SIZE * DEFAULT_FILES
"""Bytes kept for a sink that does not take them, unless `max-buffer-size` says otherwise."""
LEAST_JSON_BOUND = 256 << 20


def segment_size(options: Mapping[str, str], *, raw: bool, buffered: bool) -> int:
    """Bytes after which the monitor begins a new file; 0, never, for a log that has no bound."""
    if buffered:
        total = limits(options, default_files=DEFAULT_FILES).total
    elif raw:
        total = limits(options).total
    else:
        total = BUFFER_BOUND
    return SEGMENT_SIZE if total else 0


def retention(options: Mapping[str, str], *, buffered: bool) -> int:
    """Bytes of the buffer that `docker logs` can show, where the buffer is what it reads."""
    prefix = "" if buffered else "cache-"
    return limits(options, prefix=prefix, default_files=DEFAULT_FILES).total or 1 << 62


def waiting_bound(options: Mapping[str, str], sink: LogSink | None) -> int:
    """Bytes that may wait for a sink; 0: no bound."""
    if isinstance(sink, RawSink):
        # Older lines than these would be rotated away as soon as they were written.
        return max(LEAST_JSON_BOUND, 2 * sink.capacity) if sink.capacity else 0
    text = options.get("max-buffer-size", "")
    return parse_size(text) if text else BUFFER_BOUND


def drop_surplus(spool: Spool, bound: int, lock: threading.Lock) -> int:
    """Drop the oldest of what no sink has taken, until `bound` bytes are left; how many bytes went."""
    with lock:
        surplus = spool.unread() - bound
        if surplus <= 0:
            return 0
        here = spool.position
        for segment in spool.segments():
            if segment < here.segment:
                continue
            start = here.offset if segment == here.segment else 0
            size = spool.size(segment)
            if surplus < size - start:
                here = Position(segment, start + surplus, here.mark)
                break
            surplus -= size - start
        dropped = spool.unread()
        spool.free(here.segment, here.offset)
        spool.save(here)
        return dropped - spool.unread()

"""Notices that others have changed our tables: the kernel's own notifications of nftables, no polling.

Each transaction ends with a generation message that carries the name of the thread which made it; ours are passed over.
Source: linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

from plugin_sdk.netlink import attributes
from plugin_sdk.nft import AUTHOR

_NETLINK_NETFILTER = 12
_GROUP_NFTABLES = 7
_SUBSYSTEM = 10
_NEWGEN = 15
_DELETIONS = {2, 5, 8, 11, 14}
"""DELTABLE, DELCHAIN, DELRULE, DELSET, DELSETELEM."""
_SETTLE = 0.2
"""Seconds to wait for the end of somebody's series of changes."""
_PATIENCE = 30.0
"""Seconds between two calls at most, however often the table is changed: two keepers of one table must not fight."""
_ENOBUFS = 105


class Watch:
    """Calls `changed` (on the event loop) a moment after somebody else has removed something from the table."""

    def __init__(self, table: str, changed: Callable[[], None]) -> None:
        self._table, self._changed = table.encode() + b"\0", changed
        self._socket: socket.socket | None = None
        self._touched = False
        self._timer: asyncio.TimerHandle | None = None
        self._pause, self._last = _SETTLE, 0.0

    def start(self) -> None:
        """Raises OSError when the kernel gives no notifications."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        self._socket.setsockopt(270, 1, _GROUP_NFTABLES)  # SOL_NETLINK, NETLINK_ADD_MEMBERSHIP
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._readable)

    def stop(self) -> None:
        """Listen no more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _readable(self) -> None:
        assert self._socket is not None
        for _ in range(64):
            try:
                data = self._socket.recv(1 << 17)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == _ENOBUFS:
                    # Too many notifications to keep up with: something may have been ours.
                    self._schedule()
                return
            self._read(data)

    def _read(self, data: bytes) -> None:
        offset = 0
        while offset + 20 <= len(data):
            length, kind = struct.unpack_from("IH", data, offset)
            if length < 20:
                return
            if kind >> 8 == _SUBSYSTEM:
                self._message(kind & 0xFF, data[offset + 20 : offset + length])
            offset += (length + 3) & ~3

    def _message(self, kind: int, body: bytes) -> None:
        parts = attributes(body)
        if kind == _NEWGEN:
            if self._touched and parts.get(3, b"").rstrip(b"\0") != AUTHOR.encode():
                self._schedule()
            self._touched = False
        elif kind in _DELETIONS and parts.get(1) == self._table:
            self._touched = True

    def _schedule(self) -> None:
        if self._timer is not None:
            return
        loop = asyncio.get_running_loop()
        recent = loop.time() - self._last < 2 * self._pause + 1
        self._pause = min(2 * self._pause, _PATIENCE) if recent else _SETTLE
        self._timer = loop.call_later(self._pause, self._fire)

    def _fire(self) -> None:
        self._timer, self._last = None, asyncio.get_running_loop().time()
        self._changed()

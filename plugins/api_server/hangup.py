"""Tells when a client that had only ended its side closes the whole connection."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable


class HangupWatch:
    """One epoll of its own for all half-closed Unix sockets.

    The event loop stops watching a socket once it has read its end. The kernel, however, raises EPOLLHUP (which needs
    no asking for) when the peer of a Unix socket closes after having shut down its side. TCP cannot tell the two apart
    before something is sent, so TCP sockets are not watched.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._epoll: select.epoll | None = None
        self._callbacks: dict[int, Callable[[], None]] = {}

    def watch(self, number: int, callback: Callable[[], None]) -> None:
        """Call back, when the peer of the socket with this descriptor has closed."""
        if self._epoll is None:
            self._epoll = select.epoll()
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._epoll.fileno(), self._ready)
        if number >= 0 and number not in self._callbacks:
            self._callbacks[number] = callback
            self._epoll.register(number, select.EPOLLET)

    def forget(self, number: int) -> None:
        """Before the socket is closed; one that is not watched is fine."""
        if self._callbacks.pop(number, None) is not None and self._epoll is not None:
            self._epoll.unregister(number)

    def _ready(self) -> None:
        assert self._epoll is not None
        for number, events in self._epoll.poll(0):
            if events & (select.EPOLLHUP | select.EPOLLERR) and (callback := self._callbacks.get(number)):
                callback()

    def close(self) -> None:
        """Stop watching."""
        if self._epoll is not None and self._loop is not None:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None
            self._callbacks.clear()

"""Terminals that a runtime makes and gives away."""

from __future__ import annotations

import array
import asyncio
import os
import socket


class TerminalSocket:
    """Receives the terminal that a runtime sends over its `--console-socket` (SCM_RIGHTS on a stream socket).

    A process may be over before the event loop has come to look: what its runtime has sent is still there then, and
    `take` gets it.

    Attributes:
        arrived: its descriptor.
    """

    def __init__(self, listener: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._connection: socket.socket | None = None
        self.arrived: asyncio.Future[int] = self._loop.create_future()
        self._loop.add_reader(listener.fileno(), self.take)

    def take(self) -> bool:
        """Take what is there; whether the terminal has come by now."""
        try:
            while not self.arrived.done():
                if self._connection is None:
                    self._connection, _ = self._listener.accept()
                    self._connection.setblocking(False)
                    self._loop.add_reader(self._connection.fileno(), self.take)
                descriptors = array.array("i")
                data, ancillary, _, _ = self._connection.recvmsg(4096, socket.CMSG_SPACE(descriptors.itemsize))
                for level, kind, rights in ancillary:
                    if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                        descriptors.frombytes(rights[: descriptors.itemsize])
                        os.set_inheritable(descriptors[0], False)
                        self.arrived.set_result(descriptors[0])
                if not data and not self.arrived.done():
                    self._loop.remove_reader(self._connection.fileno())
                    return False
        except BlockingIOError:
            return False
        return True

    def refuse(self) -> None:
        """Nobody wants it any more."""
        if self.arrived.done() and not self.arrived.cancelled():
            os.close(self.arrived.result())

    def close(self) -> None:
        """Look no more."""
        self._loop.remove_reader(self._listener.fileno())
        if self._connection is not None:
            self._loop.remove_reader(self._connection.fileno())
            self._connection.close()

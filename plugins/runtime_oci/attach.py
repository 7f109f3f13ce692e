"""A client's streams of a container: a connection to the attach socket of its monitor.

conmon's attach socket is a SOCK_SEQPACKET: each message from it is one byte that names the stream (2 standard output,
3 standard error) and data; each message to it is data for standard input. conmon waits for slow clients while the container
does, so a client that reads nothing for STALL seconds is cut off. Source: conmon, conn_sock.c and ctr_stdio.c.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from pathlib import Path

from plugin_sdk import Conflict, Unavailable
from plugin_sdk.runtime import STDERR, STDOUT
from plugins.runtime_oci.output import Chunk, Input, Output

log = logging.getLogger("engine.runtime_oci")

STALL = 60.0
"""Seconds that a client with a full buffer may hold up the container."""
PIECE = 8192
"""Bytes of one message to conmon, which reads no more than 32 KiB at once and drops the rest."""
CONNECT_DEADLINE = 10.0

_STREAMS = {2: STDOUT, 3: STDERR}


async def connect(bundle: Path, container_id: str) -> socket.socket:
    """A connection to the monitor. Raises Conflict when there is none any more, Unavailable when it does not answer."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        folder = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # The path of the socket itself may be longer than the 108 bytes that an address holds.
            async with asyncio.timeout(CONNECT_DEADLINE):
                while not _connected(connection, f"/proc/self/fd/{folder}/attach"):  # noqa: ASYNC110
                    await asyncio.sleep(0.005)  # conmon's backlog is full, which no event ends
        finally:
            os.close(folder)
    except TimeoutError:
        connection.close()
        raise Unavailable(f"the monitor of container {container_id} does not answer") from None
    except OSError as error:
        connection.close()
        if error.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR):
            raise Conflict(f"container {container_id} is not running") from None
        raise
    except BaseException:
        connection.close()
        raise
    return connection


def _connected(connection: socket.socket, address: str) -> bool:
    try:
        connection.connect(address)
    except BlockingIOError:
        return False
    return True


class AttachStreams:
    """Fulfils `ProcessIO`.

    Args:
        stdin: the container has a standard input for clients.
        ends_input: the container's input ends with this client's (`stdin_once`).
    """

    def __init__(self, connection: socket.socket, name: str, *, stdin: bool, ends_input: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = connection
        self._name = name
        self._stdin = stdin
        self._ends_input = ends_input
        self._output = Output(self._stalled)
        self._input = Input(connection.fileno(), connection.send, PIECE)
        self._wrote = False
        self._cut = False
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._output.watch(connection.fileno(), self._receive)

    def _receive(self) -> Chunk | None:
        message = self._socket.recv(64 << 10)
        return (_STREAMS.get(message[0], STDOUT), message[1:]) if message else None

    async def read(self) -> Chunk | None:
        """See `ProcessIO`. Raises Unavailable to a client that was cut off."""
        chunk = await self._output.read()
        if chunk is None and self._cut:
            raise Unavailable(
                f"cut off from container {self._name}: nothing was read for {STALL:g} s while it wrote on,"
                " and it would have had to wait; read the rest with `logs`"
            )
        return chunk

    def _stalled(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(STALL, self._check, self._output.taken)

    def _check(self, taken: int) -> None:
        self._timer = None
        if not self._output.full or self._closed:
            return
        if self._output.taken != taken:
            self._stalled()
            return
        log.warning("a client of container %s reads nothing and is cut off", self._name)
        self._cut = True
        self._release()

    async def write(self, data: bytes) -> None:
        """See `ProcessIO`."""
        if self._stdin and data:
            self._wrote = True
            await self._input.write(data)

    async def close_stdin(self) -> None:
        """See `ProcessIO`."""
        if self._stdin and not self._input.closed:
            await self._input.drained()
            self._input.close()
            self._wrote = True
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError:
                return  # the monitor is gone, and with it the input

    async def close(self) -> None:
        """See `ProcessIO`."""
        if self._closed:
            return
        self._closed = True
        if self._ends_input and not self._wrote and self._output.open:
            # Closing would end the container's input, which this client never used: it is for another one.
            self._output.discard()
            self._loop.create_task(self._park(), name=f"parked client of {self._name}")
            return
        self._release()

    async def _park(self) -> None:
        while await self._output.read() is not None:
            pass
        self._release()

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._input.close()
        self._output.finish()
        self._socket.close()

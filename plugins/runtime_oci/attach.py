"""Clients' streams of a container, over one connection to the attach socket of its monitor.

conmon's attach socket is a SOCK_SEQPACKET: each message from it is one byte that names the stream (2 standard output,
3 standard error) and data; each message to it is data for standard input. Source: conmon, conn_sock.c and ctr_stdio.c.
Three things in it make one connection, shared by all clients, the way to use it:

- it takes up one waiting connection between two pieces of output, so that of several clients that attach before the start
  all but the first can miss the first pieces;
- when a connection ends, the container's input ends (unless `--leave-stdin-open`), whoever else is attached;
- it waits for a slow client while the container does. A client here that reads nothing for STALL seconds is cut off.
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
from plugins.runtime_oci.output import BURST, Chunk, ChunkQueue, Input

log = logging.getLogger("engine.runtime_oci")

STALL = 60.0
"""Seconds that a client with a full buffer may hold up the container."""
PIECE = 8192
"""Bytes of one message to conmon, which reads no more than 32 KiB at once and drops the rest."""
MESSAGE = 64 << 10
CONNECT_DEADLINE = 10.0

_STREAMS = {2: STDOUT, 3: STDERR}


async def connect(bundle: Path, container_id: str) -> socket.socket:
    """A connection to the monitor. Raises Conflict when there is none any more, Unavailable when it does not answer."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        folder = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # The path of the socket itself may be longer than the 108 bytes that an address holds.
            address = f"/proc/self/fd/{folder}/attach"
            async with asyncio.timeout(CONNECT_DEADLINE):
                while not _connected(connection, address):  # noqa: ASYNC110 - no event tells of room in a backlog
                    await asyncio.sleep(0.005)
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


class Hub:
    """The connection, and the clients that share it.

    Args:
        stdin: the container has an input for clients.
        ends_input: its input ends when the connection does, or when the first client has ended its own.
    """

    def __init__(self, connection: socket.socket, name: str, *, stdin: bool, ends_input: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = connection
        self._name = name
        self._clients: set[AttachStreams] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._taken: dict[AttachStreams, int] = {}
        self._paused = False
        self._ends_input = ends_input
        self.stdin = stdin
        self.input = Input(connection.fileno(), connection.send, PIECE)
        self.closed = False
        self._loop.add_reader(connection.fileno(), self._readable)

    def client(self) -> AttachStreams:
        """Streams for one more client."""
        made = AttachStreams(self, self._name)
        self._clients.add(made)
        return made

    def _readable(self) -> None:
        for _ in range(BURST):
            try:
                message = self._socket.recv(MESSAGE)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # ECONNRESET of a monitor that was killed
                message = b""
            if not message:
                self._end()
                return
            chunk = (_STREAMS.get(message[0], STDOUT), message[1:])
            for client in self._clients:
                client.queue.put(chunk)
            if any(client.queue.full for client in self._clients):
                self._pause()
                return

    def _pause(self) -> None:
        self._paused = True
        self._loop.remove_reader(self._socket.fileno())
        self._wait_for_clients()

    def _wait_for_clients(self) -> None:
        self._taken = {client: client.queue.taken for client in self._clients if client.queue.full}
        self._timer = self._loop.call_later(STALL, self._cut_off)

    def resume(self) -> None:
        """A client has read on, or left."""
        if self._paused and not self.closed and not any(client.queue.full for client in self._clients):
            self._paused = False
            self._stop_timer()
            self._loop.add_reader(self._socket.fileno(), self._readable)

    def _cut_off(self) -> None:
        self._timer = None
        for client, taken in self._taken.items():
            if client.queue.full and client.queue.taken == taken:
                log.warning("a client of container %s reads nothing and is cut off", self._name)
                client.cut_off()
        if self._paused and not self.closed:
            self._wait_for_clients()

    def leave(self, client: AttachStreams, *, used_input: bool) -> None:
        """A client is gone; without any, the connection is of use only if the container's input depends on it."""
        self._clients.discard(client)
        if used_input:
            self.end_input()
        self.resume()
        if not self._clients and not (self._ends_input and not self.input.closed):
            self._end()

    def end_input(self) -> None:
        """The input of a client has ended, and so the container's, if it was meant for one client."""
        if self._ends_input and not self.input.closed:
            self.input.close()
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError:
                return  # the monitor is gone, and with it the input

    def _end(self) -> None:
        if not self.closed:
            self.closed = True
            self._stop_timer()
            self._loop.remove_reader(self._socket.fileno())
            self.input.close()
            self._socket.close()
            for client in self._clients:
                client.queue.finish()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class AttachStreams:
    """One client's; fulfils `ProcessIO`."""

    def __init__(self, hub: Hub, name: str) -> None:
        self.queue = ChunkQueue(hub.resume)
        self._hub = hub
        self._name = name
        self._used_input = False
        self._input_ended = False
        self._cut = False
        self._left = False

    async def read(self) -> Chunk | None:
        """See `ProcessIO`. Raises Unavailable to a client that was cut off."""
        chunk = await self.queue.read()
        if chunk is None and self._cut:
            raise Unavailable(
                f"cut off from container {self._name}: nothing was read for {STALL:g} s while it wrote on,"
                " and it would have had to wait; read the rest with `logs`"
            )
        return chunk

    def cut_off(self) -> None:
        """Give the client what it has not read yet, and no more."""
        self._cut = True
        self.queue.finish()
        self._leave()

    async def write(self, data: bytes) -> None:
        """See `ProcessIO`."""
        if self._hub.stdin and data and not self._input_ended:
            self._used_input = True
            await self._hub.input.write(data)

    async def close_stdin(self) -> None:
        """See `ProcessIO`."""
        if self._hub.stdin and not self._input_ended:
            self._input_ended = True
            await self._hub.input.drained()
            self._hub.end_input()

    async def close(self) -> None:
        """See `ProcessIO`."""
        self._leave()
        self.queue.discard()

    def _leave(self) -> None:
        if not self._left:
            self._left = True
            self._hub.leave(self, used_input=self._used_input)

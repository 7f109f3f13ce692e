"""The engine's end of a log plugin's FIFO.

Writes never block: a full pipe takes a part or nothing. A message whose beginning is in the pipe is completed before
anything else goes in, whatever becomes of the call that began it: a reader that lost the frames would never find them
again.

While it writes, the engine is no reader of its own pipe, so the kernel says when nobody reads it any more: the plugin has
died, or closed it. What is in the pipe then is known message by message.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import secrets
import select
import stat
import struct
import termios
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

CHUNK = 64 << 10
"""Bytes of one write: as much as a pipe holds."""
MODE = 0o700
LOOK_AGAIN = 1.0
"""Seconds after which a full pipe is tried again, should nobody say that there is room."""
_NAP = (0.001, 0.05)

_NAME = re.compile(r"[0-9a-f]{64}\Z")


class Fifo:
    """A FIFO in a folder that a plugin can see. `make` and `discard` touch the disk.

    Attributes:
        name: of the file in that folder.
        begun: messages whose beginning was written, since `settle`.
    """

    def __init__(self, shared: Path) -> None:
        self.name = secrets.token_hex(32)
        self.begun = 0
        self._shared = shared
        self._descriptor = -1
        self._rest = b""
        self._written = 0
        self._ends: list[int] = []
        self._changed = asyncio.Event()
        self._waits = False

    def make(self) -> None:
        """Create it, open in both directions: so the plugin's open does not block, whenever it comes.

        Raises OSError. The folder is the plugin's as well, so no link in it is followed.
        """
        self._shared.mkdir(mode=0o711, parents=True, exist_ok=True)
        with _opened(self._shared) as folder:
            os.mkfifo(self.name, MODE, dir_fd=folder)
            place = os.open(self.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            try:
                if not stat.S_ISFIFO(os.fstat(place).st_mode):
                    raise FileExistsError(f"{self.name} was replaced by something that is no FIFO")
                self._descriptor = _reopen(place, os.O_RDWR)
            finally:
                os.close(place)
            # A plugin that is not root owns its folder, and must be able to open what lies in it.
            owner = os.fstat(folder)
            os.fchown(self._descriptor, owner.st_uid, owner.st_gid)

    def hand_over(self) -> None:
        """From now on the plugin alone reads."""
        both = self._descriptor
        self._descriptor = _reopen(both, os.O_WRONLY)
        os.close(both)

    def discard(self) -> None:
        """Close and unlink it. Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            if self._waits:
                asyncio.get_running_loop().remove_writer(descriptor)
                self._changed.set()
            os.close(descriptor)
        with suppress(OSError), _opened(self._shared) as folder:
            os.unlink(self.name, dir_fd=folder)

    @property
    def is_read(self) -> bool:
        """Somebody has it open for reading."""
        if self._descriptor < 0:
            return False
        poll = select.poll()
        poll.register(self._descriptor, 0)
        return not poll.poll(0)

    @property
    def waiting(self) -> int:
        """Bytes that were written and not read."""
        if self._descriptor < 0:
            return 0
        return int(struct.unpack("i", fcntl.ioctl(self._descriptor, termios.FIONREAD, bytes(4)))[0])

    @property
    def read(self) -> int:
        """Messages that were read to their end, since `settle`."""
        consumed = self._written - self.waiting
        return sum(end <= consumed for end in self._ends)

    def settle(self) -> None:
        """What was written so far is not asked about again."""
        self.begun = 0
        self._ends.clear()

    async def write(self, messages: Sequence[bytes]) -> None:
        """Put messages in, all of them, when there is room. When it is cancelled or fails, `begun` says how far it came.

        Raises:
            BrokenPipeError: nobody reads it, or it was discarded.
        """
        queue = deque(messages)
        while queue or self._rest:
            if not self._put(queue):
                await self._room()

    async def emptied(self) -> None:
        """Wait until all was read. Raises BrokenPipeError: nobody will."""
        nap = _NAP[0]
        while self._descriptor >= 0 and self.waiting:
            if not self.is_read:
                break
            await asyncio.sleep(nap)
            nap = min(nap * 2, _NAP[1])
        if self._descriptor < 0 or self.waiting:
            raise BrokenPipeError

    def _put(self, queue: deque[bytes]) -> int:
        """Write what there is room for, off the queue; how many bytes that was."""
        if self._descriptor < 0:
            raise BrokenPipeError
        parts, size = [self._rest], len(self._rest)
        for message in queue:
            if size >= CHUNK:
                break
            parts.append(message)
            size += len(message)
        try:
            took = os.write(self._descriptor, b"".join(parts))
        except BlockingIOError:
            return 0
        left = took - len(self._rest)
        end = self._written + len(self._rest)
        self._written += took
        self._rest = self._rest[took:]
        while left > 0:
            message = queue.popleft()
            end += len(message)
            self._ends.append(end)
            self.begun += 1
            self._rest = message[left:]
            left -= len(message)
        return took

    async def _room(self) -> None:
        loop, watched = asyncio.get_running_loop(), self._descriptor
        self._changed.clear()
        loop.add_writer(watched, self._changed.set)
        self._waits = True
        try:
            async with asyncio.timeout(LOOK_AGAIN):
                await self._changed.wait()
        except TimeoutError:
            return
        finally:
            self._waits = False
            if self._descriptor == watched:
                loop.remove_writer(watched)


def sweep(shared: Path, live: Collection[str]) -> int:
    """Remove the FIFOs of a daemon that was killed: all but those in use; how many. Blocks."""
    gone = 0
    with suppress(OSError), _opened(shared) as folder:
        for name in os.listdir(folder):
            if _NAME.match(name) and name not in live:
                with suppress(OSError):
                    if stat.S_ISFIFO(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                        os.unlink(name, dir_fd=folder)
                        gone += 1
    return gone


@contextmanager
def _opened(shared: Path) -> Iterator[int]:
    folder = os.open(shared, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield folder
    finally:
        os.close(folder)


def _reopen(descriptor: int, direction: int) -> int:
    return os.open(f"/proc/self/fd/{descriptor}", direction | os.O_NONBLOCK | os.O_CLOEXEC)

"""Files that others write for us, seen by inotify: the exit files of monitors, the PID files of execs.

Both hold one decimal number and are named after what they are about.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

log = logging.getLogger("engine.runtime_oci")

IN_CLOSE_WRITE, IN_MOVED_TO, IN_CREATE, IN_Q_OVERFLOW = 0x8, 0x80, 0x100, 0x4000
_EVENT = struct.Struct("iIII")
_BUFFER = 64 << 10

_libc = ctypes.CDLL(None, use_errno=True)

Seen = Callable[[], None]


def open_inotify() -> int:
    """A descriptor that does not block. Raises OSError."""
    descriptor: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot watch files: {os.strerror(number)}")
    return descriptor


def add(descriptor: int, folder: Path, mask: int) -> int:
    """Watch a folder; gives the number that its events carry. Raises OSError."""
    place: int = _libc.inotify_add_watch(descriptor, os.fsencode(folder), mask)
    if place < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot watch this folder: {os.strerror(number)}", str(folder))
    return place


def remove(descriptor: int, place: int) -> None:
    """Do not watch that folder any more; one that is gone is fine."""
    _libc.inotify_rm_watch(descriptor, place)


def read(descriptor: int) -> Iterator[tuple[int, int, str]]:
    """(number of the folder, mask, name) of what has happened."""
    try:
        data = os.read(descriptor, _BUFFER)
    except BlockingIOError:
        return
    offset = 0
    while offset < len(data):
        place, mask, _, length = _EVENT.unpack_from(data, offset)
        offset += _EVENT.size
        yield place, mask, data[offset : offset + length].rstrip(b"\0").decode(errors="replace")
        offset += length


class FileWatch:
    """Watches one folder; tells each registered name's file once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._waiting: dict[str, Seen] = {}
        self._descriptor = -1

    def open(self) -> None:
        """Begin to watch, from the running event loop."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._descriptor = open_inotify()
        add(self._descriptor, self.folder, IN_CLOSE_WRITE | IN_MOVED_TO)
        asyncio.get_running_loop().add_reader(self._descriptor, self._readable)

    def close(self) -> None:
        """Stop watching."""
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
        self._waiting.clear()

    def expect(self, name: str, seen: Seen) -> None:
        """Call `seen` when the file is there; soon, if it already is."""
        self._waiting[name] = seen
        if (self.folder / name).exists():
            asyncio.get_running_loop().call_soon(self._tell, name)

    def forget(self, name: str) -> None:
        """Do not tell."""
        self._waiting.pop(name, None)

    def _tell(self, name: str) -> None:
        if seen := self._waiting.pop(name, None):
            seen()

    def _readable(self) -> None:
        for _, mask, name in read(self._descriptor):
            if mask & IN_Q_OVERFLOW:
                log.warning("more happened in %s than the kernel could tell: looking at all of it", self.folder)
                for waiting in [name for name in self._waiting if (self.folder / name).exists()]:
                    self._tell(waiting)
            else:
                self._tell(name)

    def read(self, name: str) -> tuple[int, int] | None:
        """(number, nanoseconds since the epoch) of a file; None when there is none, or no number in it."""
        path = self.folder / name
        try:
            return int(path.read_text()), path.stat().st_mtime_ns
        except FileNotFoundError:
            return None
        except ValueError:
            log.error("%s does not hold a number", path)
            return None

    def remove_stale(self, name: str) -> None:
        """Remove the file of an earlier run; none there is fine. Callable from any thread."""
        (self.folder / name).unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """Remove a file; none there is fine."""
        self.forget(name)
        (self.folder / name).unlink(missing_ok=True)

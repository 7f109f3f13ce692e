"""Tells when a container's buffer grows or begins anew: one inotify instance and one thread for all containers.

A busy container writes thousands of times a second. Its watch fires once and is gone until the reader, having read all
there is, arms it again: the cost follows the readers, not the writers. Renames come seldom and are watched all the time;
the thread links new segments itself, at once, however busy the event loop is.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import select
import struct
import threading
from collections.abc import Callable
from pathlib import Path

_IN_MODIFY = 0x2
_IN_MOVED_TO = 0x80
_IN_CREATE = 0x100
_IN_IGNORED = 0x8000
_IN_ONLYDIR = 0x01000000
_IN_ONESHOT = 0x80000000
_EVENT = struct.Struct("iIII")

_libc = ctypes.CDLL(None, use_errno=True)


class Watcher:
    """See the module. Made and used on the event loop.

    Args:
        linked: called in the thread, with the key and the number of renames seen at once, when a buffer began anew.
        changed: called on the event loop with the key when a buffer grew or began anew.
    """

    def __init__(self, name: str, linked: Callable[[str, int], None], changed: Callable[[str], None]) -> None:
        self._name = name.encode()
        self._linked = linked
        self._changed = changed
        self._log = logging.getLogger("engine.logging")
        self._loop = asyncio.get_running_loop()
        self._descriptor = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"inotify: {os.strerror(number)}")
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._lock = threading.Lock()
        self._keys: dict[int, str] = {}
        self._folders: dict[str, int] = {}
        self._thread = threading.Thread(target=self._run, name="log-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        os.eventfd_write(self._wake, 1)
        self._thread.join(5)
        os.close(self._descriptor)
        os.close(self._wake)

    def arm(self, key: str, path: Path) -> bool:
        """Tell once when the file grows. False when it cannot be watched: look again yourself."""
        return self._add(key, path, _IN_MODIFY | _IN_ONESHOT) is not None

    def follow(self, key: str, folder: Path) -> None:
        """Tell of every new buffer in the folder, until `forget`."""
        if key not in self._folders:
            descriptor = self._add(key, folder, _IN_MOVED_TO | _IN_CREATE | _IN_ONLYDIR)
            if descriptor is not None:
                self._folders[key] = descriptor

    def forget(self, key: str) -> None:
        """Tell nothing more of this key."""
        descriptor = self._folders.pop(key, None)
        with self._lock:
            gone = [watch for watch, owner in self._keys.items() if owner == key]
            for watch in gone:
                del self._keys[watch]
        for watch in {*gone, *([descriptor] if descriptor is not None else [])}:
            _libc.inotify_rm_watch(self._descriptor, watch)

    def _add(self, key: str, path: Path, mask: int) -> int | None:
        with self._lock:
            descriptor: int = _libc.inotify_add_watch(self._descriptor, os.fsencode(path), ctypes.c_uint32(mask))
            if descriptor < 0:
                number = ctypes.get_errno()
                self._log.debug("cannot watch %s: %s", path, os.strerror(number))
                return None
            self._keys[descriptor] = key
            return descriptor

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while True:
            if any(descriptor == self._wake for descriptor, _ in poll.poll()):
                return
            try:
                data = os.read(self._descriptor, 1 << 16)
            except BlockingIOError:
                continue
            grown, renamed = self._sort(data)
            for key, count in renamed.items():
                try:
                    self._linked(key, count)
                except OSError as error:
                    self._log.warning("container %s: its log buffer could not be kept: %s", key[:12], error)
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._tell, {*grown, *renamed})

    def _sort(self, data: bytes) -> tuple[set[str], dict[str, int]]:
        grown: set[str] = set()
        renamed: dict[str, int] = {}
        offset = 0
        with self._lock:
            while offset < len(data):
                watch, mask, _, length = _EVENT.unpack_from(data, offset)
                name = data[offset + _EVENT.size : offset + _EVENT.size + length].rstrip(b"\0")
                offset += _EVENT.size + length
                key = self._keys.get(watch)
                if mask & _IN_IGNORED:
                    self._keys.pop(watch, None)
                elif key is None:
                    continue
                elif mask & _IN_MODIFY:
                    grown.add(key)
                elif mask & _IN_MOVED_TO and name == self._name:
                    renamed[key] = renamed.get(key, 0) + 1
        return grown, renamed

    def _tell(self, keys: set[str]) -> None:
        for key in keys:
            self._changed(key)

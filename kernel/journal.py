"""The events of the past, kept on disk over restarts of the daemon: JSON lines in a few files of bounded size.

A file is named after the time of its first event, `<nanoseconds>.jsonl`, so that readers leave out what is too old
without opening it. One thread writes, whatever the disk does meanwhile; a kill of the daemon loses what that thread had
not yet in its hands, a power cut the last moments.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import threading
from collections.abc import Iterator
from pathlib import Path

from kernel.contracts.events import Event

SEGMENT = 4 << 20
"""Bytes after which a new file is begun."""
SEGMENTS = 8
"""Files that are kept: some hundred thousand events."""
_CLOSE_WITHIN = 5.0

log = logging.getLogger("engine.events")


class Journal:
    """Opened by the kernel at its start; reading and writing may go on at the same time.

    Attributes:
        last_ns: time of the newest event found at the opening; 0 when there is none.
    """

    def __init__(self, folder: Path, *, segment: int = SEGMENT, segments: int = SEGMENTS) -> None:
        """Raises OSError when the folder cannot be used."""
        self._folder = folder
        self._segment, self._segments = segment, segments
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._files = sorted(_start(path) for path in folder.glob("*.jsonl") if path.stem.isdecimal())
        self._size = 0
        self._broken = False
        self.last_ns = self._mend()
        self._waiting: queue.SimpleQueue[Event | threading.Event | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="event-journal", daemon=True)
        self._thread.start()

    def append(self, event: Event) -> None:
        """Have it written soon. Never waits."""
        self._waiting.put(event)

    def read(self, since_ns: int, before_ns: int) -> Iterator[Event]:
        """Events with since <= time < before, oldest first. Blocking: for a thread. Waits for what is being written.

        Raises OSError.
        """
        written = threading.Event()
        self._waiting.put(written)
        written.wait(_CLOSE_WITHIN)
        files = self._files
        for index, start in enumerate(files):
            if start >= before_ns:
                return
            if index + 1 < len(files) and files[index + 1] <= since_ns:
                continue
            # A file may have been dropped since: what was in it is older than what is kept.
            with contextlib.suppress(FileNotFoundError), self._path(start).open("rb") as file:
                for line in file:
                    event = _parse(line)
                    if event is not None and since_ns <= event.time_ns < before_ns:
                        yield event

    def close(self) -> None:
        """Write what waits, and end. A disk that hangs is not waited for."""
        self._waiting.put(None)
        self._thread.join(_CLOSE_WITHIN)

    def _path(self, start: int) -> Path:
        return self._folder / f"{start}.jsonl"

    def _mend(self) -> int:
        """Cut off a last line that was not finished; gives the time of the newest event."""
        while self._files:
            path = self._path(self._files[-1])
            content = path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if len(whole) < len(content):
                os.truncate(path, len(whole))
            newest = next((event for line in reversed(whole.splitlines()) if (event := _parse(line))), None)
            if newest is not None:
                self._size = len(whole)
                return newest.time_ns
            path.unlink()
            self._files = self._files[:-1]
        return 0

    def _work(self) -> None:
        over = False
        while not over:
            taken = [self._waiting.get()]
            with contextlib.suppress(queue.Empty):
                while len(taken) < 256:
                    taken.append(self._waiting.get_nowait())
            self._write([item for item in taken if isinstance(item, Event)])
            for item in taken:
                if isinstance(item, threading.Event):
                    item.set()
            over = None in taken

    def _write(self, events: list[Event]) -> None:
        if not events:
            return
        try:
            if not self._files or self._size >= self._segment:
                self._begin(events[0].time_ns)
            data = b"".join(map(_line, events))
            with self._path(self._files[-1]).open("ab") as file:
                file.write(data)
            self._size += len(data)
            self._broken = False
        except OSError as error:
            if not self._broken:  # said once, not for each event of a full disk
                log.error("events are not kept for `--since`: %s: %s", self._folder, error.strerror)
            self._broken = True

    def _begin(self, start: int) -> None:
        self._files, self._size = [*self._files, start], 0
        while len(self._files) > self._segments:
            # Readers take the list first and then open: they find the file gone, never half of it.
            oldest, self._files = self._files[0], self._files[1:]
            self._path(oldest).unlink(missing_ok=True)


def _start(path: Path) -> int:
    return int(path.stem)


def _line(event: Event) -> bytes:
    fields = [event.time_ns, event.type, event.action, event.actor, dict(event.attributes), event.scope]
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace") + b"\n"


def _parse(line: bytes) -> Event | None:
    """None for what is no event: a disk full in the middle of a line leaves such."""
    try:
        time_ns, kind, action, actor, attributes, scope = json.loads(line)
        return Event(kind, action, actor, {**attributes}, scope, int(time_ns))
    except (ValueError, TypeError):
        return None

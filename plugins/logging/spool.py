"""The durable buffer of one container's output, on disk.

The container's monitor writes `buffer.log`. When that file reaches its bound the monitor begins `buffer.log.tmp` and
renames it over `buffer.log`: the old file would be gone. So the engine keeps a hard link to each of these files,
`buffer-00000001.log` and so on (segments), made when the file first has content. While the daemon is away nobody makes
links, and the two files that the monitor itself keeps are the bound.

`position` holds how far the segments were consumed: segment, offset, and a mark of the sink's own. It is written after
the sink has the lines; the mark lets the sink take back what it wrote and what the position does not know of.

All functions block, mostly for microseconds.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .batch import split_lines, unfinished

SEGMENT_SIZE = 64 << 20
"""Bytes after which the monitor begins a new file. Too small, and they follow each other faster than they can be linked."""
CHUNK = 256 << 10
"""Bytes that are read and converted at once: a few milliseconds of work."""

LIVE = "buffer.log"
_SEGMENT = re.compile(r"buffer-(\d{8,})\.log\Z")
_POSITION = "position"
_POSITION_SIZE = 256
_PUNCH_STEP = 1 << 20
_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """How far a buffer was consumed: `offset` bytes of `segment`, and all of those before it."""

    segment: int = 0
    offset: int = 0
    mark: str = ""


class Spool:
    """One container's buffer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.live = folder / LIVE
        self.position = self._load()
        self._newest = (0, 0)
        self._punched: dict[int, int] = {}
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Make the file that the monitor will write."""
        self.folder.mkdir(mode=0o710, parents=True, exist_ok=True)
        os.close(os.open(self.live, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640))

    def _load(self) -> Position:
        try:
            segment, offset, mark, *_ = (self.folder / _POSITION).read_text().split(" ", 3)
            return Position(int(segment), int(offset), mark.strip())
        except (FileNotFoundError, NotADirectoryError):
            return Position()
        except ValueError:
            # Torn by a power cut: lines may come twice, none is lost.
            return Position()

    def save(self, position: Position) -> None:
        """Remember how far the buffer was consumed."""
        text = f"{position.segment} {position.offset} {position.mark} ".ljust(_POSITION_SIZE - 1) + "\n"
        descriptor = os.open(self.folder / _POSITION, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            # One write within one page: a killed daemon leaves the old or the new.
            os.pwrite(descriptor, text.encode(), 0)
        finally:
            os.close(descriptor)
        self.position = position

    def segments(self) -> list[int]:
        """Numbers of the segments, the oldest first; the live file's among them once it has content."""
        self.note()
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        return sorted(int(found[1]) for found in map(_SEGMENT.match, names) if found)

    def path(self, segment: int) -> Path:
        """A segment's file."""
        return self.folder / f"buffer-{segment:08d}.log"

    def note(self) -> bool:
        """Link the live file as the newest segment, unless it is already or has no content. True when it was linked."""
        with self._lock:
            return self._note()

    def _note(self) -> bool:
        try:
            live = os.stat(self.live)
        except (FileNotFoundError, NotADirectoryError):
            return False
        number, inode = self._newest
        if not live.st_size or inode == live.st_ino:
            return False
        if not number:
            names = os.listdir(self.folder)
            numbers = [int(found[1]) for found in map(_SEGMENT.match, names) if found]
            number = max(numbers, default=0)
            if number and os.stat(self.path(number)).st_ino == live.st_ino:
                self._newest = (number, live.st_ino)
                return False
            number = max(number, self.position.segment)
        try:
            os.link(self.live, self.path(number + 1))
        except FileExistsError:
            if os.stat(self.path(number + 1)).st_ino != os.stat(self.live).st_ino:
                raise
        except FileNotFoundError:
            return False
        self._newest = (number + 1, os.stat(self.path(number + 1)).st_ino)
        return True

    def written(self) -> bool:
        """There is anything in it, consumed or not."""
        try:
            if os.stat(self.live).st_size:
                return True
        except FileNotFoundError:
            pass
        return bool(self.segments())

    def size(self, segment: int) -> int:
        """Bytes of a segment, 0 when it is gone."""
        try:
            return os.stat(self.path(segment)).st_size
        except FileNotFoundError:
            return 0

    def unread(self) -> int:
        """Bytes behind the position."""
        here = self.position
        return sum(
            self.size(segment) - (here.offset if segment == here.segment else 0)
            for segment in self.segments()
            if segment >= here.segment
        )

    def free(self, segment: int, offset: int) -> None:
        """Give back the disk space of all that lies before; readers that have a file open keep it."""
        for older in self.segments():
            if older < segment:
                self.path(older).unlink(missing_ok=True)
                self._punched.pop(older, None)
        if offset - self._punched.get(segment, 0) >= _PUNCH_STEP:
            with suppress(OSError):
                self._punch(segment, offset)
            self._punched[segment] = offset

    def _punch(self, segment: int, length: int) -> None:
        descriptor = os.open(self.path(segment), os.O_WRONLY | os.O_CLOEXEC)
        try:
            # Not every file system can; the segment then goes as a whole, later.
            mode = _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE
            _libc.fallocate(descriptor, mode, ctypes.c_long(0), ctypes.c_long(length))
        finally:
            os.close(descriptor)

    def keep(self, total: int) -> None:
        """Give back the oldest until no more than `total` bytes are kept."""
        numbers = self.segments()
        sizes = {number: self.size(number) for number in numbers}
        surplus = sum(sizes.values()) - total
        for number in numbers:
            if surplus <= 0:
                return
            if surplus >= sizes[number] and number != numbers[-1]:
                self.path(number).unlink(missing_ok=True)
                self._punched.pop(number, None)
            else:
                self.free(number, min(surplus, sizes[number]))
            surplus -= sizes[number]

    def clear(self) -> None:
        """Nothing writes and all was consumed: drop the files. The position stays: it numbers what comes."""
        self.live.unlink(missing_ok=True)
        for segment in self.segments():
            self.path(segment).unlink(missing_ok=True)
        self._newest = (0, 0)
        self._punched.clear()

    def remove(self) -> None:
        """Drop the container's whole folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> Position:
        """Before the first line that is still there."""
        numbers = self.segments()
        return Position(numbers[0] if numbers else self.position.segment, 0)

    def end(self) -> Position:
        """Behind the last whole line; the monitor may be in the middle of the next."""
        numbers = self.segments()
        if not numbers:
            return self.position
        try:
            descriptor = os.open(self.path(numbers[-1]), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return self.position
        try:
            return Position(numbers[-1], _line_end(descriptor, os.fstat(descriptor).st_size))
        finally:
            os.close(descriptor)


def _line_end(descriptor: int, offset: int) -> int:
    """The last line end at or before an offset; 0 without one."""
    step = 1
    while offset > 0:
        begin = max(0, offset - step)
        at = os.pread(descriptor, offset - begin, begin).rfind(b"\n")
        if at >= 0:
            return begin + at + 1
        offset, step = begin, CHUNK
    return 0


class Cursor:
    """Reads a spool from a position on; follows it from segment to segment.

    Attributes:
        segment, offset: before the next line.
        held: bytes of pieces behind it whose line is not complete.
    """

    def __init__(self, spool: Spool, start: Position) -> None:
        self._spool = spool
        self.segment = start.segment
        self.offset = start.offset
        self.held = 0
        self._descriptor = -1

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def block(self, *, final: bool = False, limit: int = CHUNK) -> bytes:
        """The next whole lines, as they are in the file; empty when there are no more now.

        Pieces at the end whose line is not complete are left for later, unless they are many or no more is to come: at a
        segment's end and, with `final`, at the very end.
        """
        self.held = 0
        chunk, more = self._read(limit)
        if chunk and not ((more or final) and self._at_end()):
            self.held = unfinished(chunk)
            self.offset -= self.held
        return chunk[: len(chunk) - self.held]

    def lines(self, *, final: bool = False, limit: int = CHUNK) -> list[bytes]:
        """`block`, as a list without line ends, and without what is no line."""
        while block := self.block(final=final, limit=limit):
            if lines := split_lines(block):
                return lines
        return []

    def _at_end(self) -> bool:
        return os.fstat(self._descriptor).st_size <= self.offset

    def _read(self, limit: int) -> tuple[bytes, bool]:
        """Bytes up to a line's end, and whether there is a later segment."""
        later: int | None = None
        while True:
            if self._descriptor < 0 and not self._open():
                return b"", False
            # Asked before reading: the monitor writes nothing to a file any more once there is a later one.
            later = self._later()
            data = os.pread(self._descriptor, limit, self.offset)
            end = data.rfind(b"\n") + 1
            while data and not end:
                more = os.pread(self._descriptor, limit, self.offset + len(data))
                if not more:
                    break
                data += more
                end = data.rfind(b"\n") + 1
            if end:
                self.offset += end
                return data[:end], later is not None
            if later is None:
                return b"", False
            self.close()
            self.segment, self.offset = later, 0

    def _later(self) -> int | None:
        return next((number for number in self._spool.segments() if number > self.segment), None)

    def _open(self) -> bool:
        while True:
            try:
                self._descriptor = os.open(self._spool.path(self.segment), os.O_RDONLY | os.O_CLOEXEC)
                break
            except FileNotFoundError:
                later = self._later()
                if later is None:
                    return False
                self.segment, self.offset = later, 0
        self._skip_hole()
        return True

    def _skip_hole(self) -> None:
        try:
            data = os.lseek(self._descriptor, self.offset, os.SEEK_DATA)
        except OSError:
            return
        if data == self.offset:
            return
        # A line that begins in the hole has lost its beginning.
        while True:
            block = os.pread(self._descriptor, CHUNK, data)
            at = block.find(b"\n")
            if at >= 0 or not block:
                self.offset = data + at + 1
                return
            data += len(block)

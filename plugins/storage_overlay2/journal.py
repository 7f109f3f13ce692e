"""What it takes to give a layer's tar back byte for byte: headers and padding as they were, and where each payload lies.

The file is a zlib stream of records: `R length bytes` (raw bytes of the tar), and `F length path count (offset, length)...`
(parts of a file of the layer). Numbers are little-endian; paths are relative to the layer's tree.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from plugin_sdk import EngineError

_RAW = struct.Struct("<cI")
_FILE = struct.Struct("<cII")
_PART = struct.Struct("<QQ")
_GATHER = 1 << 18

Parts = Sequence[tuple[int, int]]


class JournalWriter:
    """Writes a journal; close it for the file to be whole."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb")
        self._deflate = zlib.compressobj(1)
        self._pending: list[bytes] = []
        self._raw: list[bytes] = []
        self._raw_size = 0
        self._pending_size = 0
        self.files = 0

    def raw(self, data: bytes) -> None:
        """Bytes of the tar as they are."""
        self._raw.append(data)
        self._raw_size += len(data)
        if self._raw_size > _GATHER:
            self._flush_raw()

    def file(self, path: bytes, parts: Parts) -> None:
        """The tar goes on with these parts of a file."""
        self._flush_raw()
        self.files += 1
        record = _FILE.pack(b"F", len(path), len(parts)) + path + b"".join(_PART.pack(*part) for part in parts)
        self._pending.append(record)
        self._pending_size += len(record)
        if self._pending_size > _GATHER:
            self._compress()

    def _flush_raw(self) -> None:
        if self._raw:
            self._pending.append(_RAW.pack(b"R", self._raw_size))
            self._pending += self._raw
            self._pending_size += self._raw_size
            self._raw, self._raw_size = [], 0
            if self._pending_size > _GATHER:
                self._compress()

    def _compress(self) -> None:
        self._file.write(self._deflate.compress(b"".join(self._pending)))
        self._pending, self._pending_size = [], 0

    def close(self) -> None:
        """Write out what is left."""
        if self._file.closed:
            return
        self._flush_raw()
        self._compress()
        self._file.write(self._deflate.flush())
        self._file.close()


class _Inflated(io.RawIOBase):
    def __init__(self, file: BinaryIO) -> None:
        self._file, self._inflate = file, zlib.decompressobj()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = b""
        while not data and not self._inflate.eof:
            fed = self._inflate.unconsumed_tail or self._file.read(1 << 16)
            if not fed:
                raise EngineError("the record of a layer's archive is cut short; load or pull the image again")
            data = self._inflate.decompress(fed, len(buffer))
        buffer[: len(data)] = data
        return len(data)


def records(path: Path) -> Iterator[bytes | tuple[bytes, Parts]]:
    """The journal's records: bytes as they are, or (path, parts)."""
    with path.open("rb") as file, io.BufferedReader(_Inflated(file), 1 << 17) as stream:
        while kind := stream.read(1):
            if kind == b"R":
                (length,) = struct.unpack("<I", stream.read(4))
                yield stream.read(length)
            else:
                length, count = struct.unpack("<II", stream.read(8))
                name = stream.read(length)
                flat = struct.unpack(f"<{2 * count}Q", stream.read(_PART.size * count))
                yield name, list(zip(flat[::2], flat[1::2], strict=True))


def replay(path: Path, opened: Callable[[int, bytes], int], out: Writer) -> None:
    """Write the tar that a journal describes.

    Args:
        opened: gives a readable descriptor for the n-th file record's path; it is closed here.

    Raises:
        EngineError: a file is shorter than it was.
    """
    gathered = Gathered(out)
    for number, record in enumerate_files(records(path)):
        if isinstance(record, bytes):
            gathered.write(record)
            continue
        name, parts = record
        descriptor = opened(number, name)
        try:
            for offset, length in parts:
                _copy(descriptor, offset, length, gathered, name)
        finally:
            os.close(descriptor)
    gathered.flush()


class Writer(Protocol):
    """What is needed of a file to write to."""

    def write(self, data: memoryview, /) -> int | None:
        """Takes some; tells how much (None: all)."""


class Gathered:
    """Writes to a file in large pieces, all of each. It neither closes nor owns the file."""

    def __init__(self, out: Writer) -> None:
        self._out = out
        self._pending: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        """Add data."""
        self._pending.append(data)
        self._size += len(data)
        if self._size >= _GATHER:
            self.flush()

    def flush(self) -> None:
        """Write out what is left."""
        left = memoryview(b"".join(self._pending))
        self._pending, self._size = [], 0
        while left:
            written = self._out.write(left)
            left = left[written if written is not None else len(left) :]


def enumerate_files(
    found: Iterator[bytes | tuple[bytes, Parts]],
) -> Iterator[tuple[int, bytes | tuple[bytes, Parts]]]:
    """Records with the number of file records before each."""
    number = 0
    for record in found:
        yield number, record
        number += not isinstance(record, bytes)


def _copy(descriptor: int, offset: int, length: int, out: Gathered, name: bytes) -> None:
    while length:
        data = os.pread(descriptor, min(length, 1 << 20), offset)
        if not data:
            raise EngineError(
                f"file {name.decode(errors='replace')!r} of the layer is shorter than it was; the layer is damaged"
            )
        out.write(data)
        offset += len(data)
        length -= len(data)

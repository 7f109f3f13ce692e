"""Compressed streams, known by their first bytes, read as plain ones. Blocking."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any, Protocol

from kernel.errors import InvalidParameter, NotSupported

CHUNK = 1 << 18
_OUT = 1 << 20

_MAGIC = {
    b"\x1f\x8b\x08": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
_LONGEST = max(map(len, _MAGIC))


class Reader(Protocol):
    """What is needed of a file."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, b"" at the end."""


def kind(head: bytes) -> str:
    """ "gzip", "bzip2", "xz" or "zstd" by a stream's first bytes, else ""."""
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "")


def plain(stream: Reader) -> Reader:
    """The stream decompressed, or as it is. Nothing is read before the first `read`."""
    return _Plain(stream)


class _Plain:
    def __init__(self, stream: Reader) -> None:
        self._stream = stream
        self._inner: Reader | None = None

    def read(self, size: int, /) -> bytes:
        if self._inner is None:
            self._inner = self._open()
        return self._inner.read(size)

    def _open(self) -> Reader:
        head = b""
        while len(head) < _LONGEST and (more := self._stream.read(CHUNK)):
            head += more
        whole = _Joined(head, self._stream)
        name = kind(head)
        if not name:
            return whole
        if name == "zstd":
            return _zstd(whole)
        return _Decompressed(whole, name)


class _Joined:
    def __init__(self, head: bytes, rest: Reader) -> None:
        self._head, self._rest = head, rest

    def read(self, size: int, /) -> bytes:
        if self._head:
            piece, self._head = self._head[:size], self._head[size:]
            return piece
        return self._rest.read(size)


class _Decompressed:
    """gzip, bzip2 or xz; several streams in a row are one, as with the programs of these names."""

    def __init__(self, stream: Reader, name: str) -> None:
        self._stream = stream
        self._name = name
        self._new: Callable[[], Any] = {
            "gzip": lambda: zlib.decompressobj(31),
            "bzip2": bz2.BZ2Decompressor,
            "xz": lzma.LZMADecompressor,
        }[name]
        self._engine: Any = self._new()
        self._input = b""
        self._ended = False

    def read(self, size: int, /) -> bytes:
        try:
            while not self._ended:
                if data := self._step(min(size, _OUT)):
                    return data
        except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise InvalidParameter(f"cannot decompress {self._name}: {error}") from None
        return b""

    def _step(self, size: int) -> bytes:
        if self._engine.eof:
            self._next_stream()
            return b""
        if not self._input and getattr(self._engine, "needs_input", True):
            self._input = self._stream.read(CHUNK)
            if not self._input:
                raise EOFError("unexpected end")
        data: bytes = self._engine.decompress(self._input, size)
        self._input = getattr(self._engine, "unconsumed_tail", b"")
        return data

    def _next_stream(self) -> None:
        rest = self._engine.unused_data.lstrip(b"\0")
        while not rest and (more := self._stream.read(CHUNK)):
            rest = more.lstrip(b"\0")
        if rest and kind(rest.ljust(_LONGEST, b"\0")) == self._name:
            self._engine, self._input = self._new(), rest
        else:
            self._ended = True  # like the programs, leave trailing garbage alone


def _zstd(stream: Reader) -> Reader:
    try:
        from compression.zstd import ZstdError, ZstdFile  # type: ignore[import-not-found]  # Python 3.14
    except ImportError:
        try:
            import zstandard
        except ImportError:
            raise NotSupported(
                "zstd: install the Python package zstandard to read archives compressed with it"
            ) from None
        reader: Reader = zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True)  # type: ignore[arg-type]
        return _Zstd(reader, zstandard.ZstdError)
    return _Zstd(ZstdFile(stream), ZstdError)


class _Zstd:
    def __init__(self, inner: Reader, failure: type[Exception]) -> None:
        self._inner, self._failure = inner, failure

    def read(self, size: int, /) -> bytes:
        try:
            return self._inner.read(size)
        except (self._failure, EOFError) as error:
            raise InvalidParameter(f"cannot decompress zstd: {error}") from None

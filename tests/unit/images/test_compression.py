"""Compressed streams are known by their first bytes; broken ones are refused in plain words."""

import bz2
import gzip
import io
import lzma
import os

import pytest

from plugin_sdk import InvalidParameter
from plugin_sdk.compression import kind, plain

DATA = os.urandom(300_000) + bytes(3_000_000) + os.urandom(10)


def read(raw: bytes) -> bytes:
    source = plain(io.BytesIO(raw))
    return b"".join(iter(lambda: source.read(70_000), b""))


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_what_comes_out(pack) -> None:
    assert read(pack(DATA)) == DATA


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_several_streams_in_a_row_are_one(pack) -> None:
    assert read(pack(b"one") + pack(DATA)) == b"one" + DATA


def test_trailing_garbage_is_left_alone() -> None:
    assert read(gzip.compress(b"x") + bytes(512) + b"what?") == b"x"


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_short_stream_is_refused(pack) -> None:
    with pytest.raises(InvalidParameter, match="cannot decompress"):
        read(pack(DATA)[:-30])


def test_a_broken_stream_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="cannot decompress gzip"):
        read(b"\x1f\x8b\x08" + os.urandom(100))


def test_zstd() -> None:
    zstandard = pytest.importorskip("zstandard")
    assert read(zstandard.ZstdCompressor().compress(DATA)) == DATA
    with pytest.raises(InvalidParameter, match="cannot decompress zstd"):
        read(b"\x28\xb5\x2f\xfd" + os.urandom(100))


def test_short_and_empty_inputs_are_plain() -> None:
    assert read(b"") == b""
    assert read(b"\x1f") == b"\x1f"
    assert kind(b"BZ") == ""

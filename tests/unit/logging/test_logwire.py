"""Log entries on the wire, against bytes made by hand from the protobuf description."""

from __future__ import annotations

import random
import struct

import pytest

from plugin_sdk.logs import LogEntry
from plugin_sdk.logwire import Decoder, Encoder, Piece, WireError, encode

PLAIN = b"\x0a\x06stdout" + b"\x10\xac\x02" + b"\x1a\x02hi"
"""source "stdout", time_nano 300, line "hi"."""


def framed(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


def decoded(body: bytes) -> LogEntry:
    (entry,) = Decoder().feed(framed(body))
    return entry


def test_a_plain_line() -> None:
    entry = LogEntry(300, 1, b"hi")
    assert encode(entry) == framed(PLAIN)
    assert decoded(PLAIN) == entry


def test_a_piece_and_the_last_one() -> None:
    first = b"\x0a\x06stderr" + b"\x10\x01" + b"\x1a\x01a" + b"\x20\x01" + b"\x2a\x06" + b"\x12\x02xy" + b"\x18\x01"
    last = b"\x0a\x06stderr\x10\x01\x1a\x01b\x20\x01\x2a\x08" + b"\x08\x01" + b"\x12\x02xy" + b"\x18\x02"
    assert encode(LogEntry(1, 2, b"a", True), Piece("xy", 1)) == framed(first)
    assert encode(LogEntry(1, 2, b"b"), Piece("xy", 2, True)) == framed(last)
    assert decoded(first) == LogEntry(1, 2, b"a", True)
    assert decoded(last) == LogEntry(1, 2, b"b")


def test_partial_alone_means_that_more_follows() -> None:
    assert decoded(PLAIN + b"\x20\x01") == LogEntry(300, 1, b"hi", True)


def test_attributes_both_ways() -> None:
    body = PLAIN + b"\x32\x06\x0a\x01k\x12\x01v" + b"\x32\x03\x0a\x01e"
    assert decoded(body) == LogEntry(300, 1, b"hi", False, {"k": "v", "e": ""})
    entry = LogEntry(5, 2, b"", False, {"colour": "grün", "empty": ""})
    assert Decoder().feed(encode(entry)) == [entry]


def test_line_ends() -> None:
    assert encode(LogEntry(300, 1, b"hi"), line_end=True) == framed(PLAIN.replace(b"\x02hi", b"\x03hi\n"))
    assert encode(LogEntry(300, 1, b"hi", True), line_end=True) == framed(PLAIN + b"\x20\x01")
    assert decoded(PLAIN.replace(b"\x02hi", b"\x03hi\n") + b"\x20\x01") == LogEntry(300, 1, b"hi")


def test_missing_fields_have_their_zero_value() -> None:
    assert decoded(b"") == LogEntry(0, 1, b"")


def test_times_before_the_epoch_and_far_away() -> None:
    assert decoded(b"\x10" + b"\xff" * 9 + b"\x01").time_ns == -1
    for time_ns in (-1, -(1 << 63), (1 << 63) - 1, 1_800_000_000_123_456_789):
        assert Decoder().feed(encode(LogEntry(time_ns, 1, b""))) == [LogEntry(time_ns, 1, b"")]


def test_fields_of_later_versions_are_skipped() -> None:
    later = b"\x98\x06\x07" + b"\x9a\x06\x02ab" + b"\x99\x06" + bytes(8) + b"\x9d\x06" + bytes(4)
    assert decoded(later + PLAIN) == LogEntry(300, 1, b"hi")


def test_pieces_are_numbered_for_each_stream_of_its_own() -> None:
    entries = [
        LogEntry(1, 1, b"a", True),
        LogEntry(2, 2, b"E", True),
        LogEntry(3, 1, b"b", True),
        LogEntry(4, 2, b"F"),
        LogEntry(5, 1, b"c"),
        LogEntry(6, 1, b"whole"),
    ]
    messages = Encoder().encode(entries)
    assert [message[-2:] for message in messages[:5]] == [
        b"\x18\x01",
        b"\x18\x01",
        b"\x18\x02",
        b"\x18\x02",
        b"\x18\x03",
    ]
    assert [b"\x08\x01\x12" in message for message in messages] == [False, False, False, True, True, False]
    ids = [message[-66:-2] for message in messages[:5]]
    assert (ids[0] == ids[2] == ids[4], ids[1] == ids[3], ids[0] != ids[1]) == (True, True, True)
    assert Decoder().feed(b"".join(messages)) == entries


@pytest.mark.parametrize("seed", range(30))
def test_whatever_the_splits_what_comes_out_is_what_went_in(seed: int) -> None:
    dice = random.Random(seed)
    entries = [
        LogEntry(
            dice.randrange(-(1 << 63), 1 << 63),
            dice.choice((1, 2)),
            dice.randbytes(dice.choice((0, 1, 5, 127, 128, 16384))).replace(b"\n", b" "),
            dice.random() < 0.4,
            {"k" * dice.randrange(1, 200): "v"} if dice.random() < 0.2 else {},
        )
        for _ in range(40)
    ]
    stream = b"".join(Encoder(line_end=dice.random() < 0.5).encode(entries))
    decoder, got, at = Decoder(), [], 0
    while at < len(stream):
        size = dice.choice((1, 2, 3, 4, 5, 100, 4096, 70000))
        got += decoder.feed(stream[at : at + size])
        at += size
    assert got == entries
    assert decoder.pending == 0


def test_a_message_above_the_limit_is_refused_before_it_comes() -> None:
    decoder = Decoder(limit=100)
    assert decoder.feed(struct.pack(">I", 100)) == []
    with pytest.raises(WireError, match="101 bytes; at most 100"):
        Decoder(limit=100).feed(struct.pack(">I", 101))


@pytest.mark.parametrize(
    "body",
    [
        b"\x0a\x06std",  # ends in the middle
        b"\x10",  # a number that does not come
        b"\x10" + b"\x80" * 11 + b"\x01",  # and one without an end
        b"\x0b\x0c",  # a group
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",  # a length beyond everything
        b"\x08\x01",  # source as a number
        b"\x12\x01x",  # time as text
        b"<html>",
    ],
)
def test_rubbish_is_refused(body: bytes) -> None:
    with pytest.raises(WireError):
        Decoder().feed(framed(body))


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_either_decode_or_are_refused(seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(200):
        try:
            decoded(dice.randbytes(dice.randrange(60)))
        except WireError:
            continue

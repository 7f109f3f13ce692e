"""Lines in bulk: the monitor's format, json-file's, and what `docker logs` gets of them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable

import pytest

from plugin_sdk.logs import LogEntry
from plugin_sdk.stdcopy import Unframer
from plugins.logging import encoding
from plugins.logging.batch import (
    LINE_LIMIT,
    PREFIX,
    Batch,
    from_entries,
    join_pieces,
    parse_json,
    parse_monitor,
    split_lines,
    to_entries,
    utc,
    whole_lines,
)
from plugins.logging.encoding import encode
from plugins.logging.render import SINGLE, Renderer

STAMP = b"2026-01-02T03:04:05.123456789+00:00"
SHORT = b"2026-01-02T03:04:05.123456789"


def line(text: bytes, stream: bytes = b"stdout", tag: bytes = b"F", stamp: bytes = STAMP) -> bytes:
    return stamp + b" " + stream + b" " + tag + b" " + text


def block(lines: Iterable[bytes]) -> bytes:
    return b"".join(text + b"\n" for text in lines)


def test_lines_and_their_streams() -> None:
    batch = parse_monitor([line(b"out"), line(b"err", b"stderr"), line(b"piece", tag=b"P")])
    assert (batch.lines, batch.streams) == ([b"out\n", b"err\n", b"piece"], [1, 2, 1])
    assert batch.stamps == [SHORT] * 3


def test_what_is_no_line_is_dropped() -> None:
    chunk = b"half a line\n" + line(b"good") + b"\n" + b"\0" * 50 + b"\n" + line(b"") + b"\n"
    assert parse_monitor(split_lines(chunk)).lines == [b"good\n", b"\n"]


def test_pieces_are_joined_per_stream() -> None:
    lines = [
        line(b"a", tag=b"P"),
        line(b"E", b"stderr"),
        line(b"b", tag=b"P"),
        line(b"c"),
        line(b"d"),
        line(b"open", tag=b"P"),
    ]
    batch = parse_monitor(join_pieces(lines))
    assert batch.lines == [b"abc\n", b"E\n", b"d\n", b"open"]


def test_joined_lines_have_a_bound() -> None:
    pieces = [line(b"x" * 8192, tag=b"P") for _ in range(4)] + [line(b"end")]
    assert [len(text) for text in parse_monitor(join_pieces(pieces)).lines] == [16384, 16384, 4]


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        (b"2026-01-02T03:04:05.5Z", b"2026-01-02T03:04:05.500000000"),
        (b"2026-01-02T03:04:05Z", b"2026-01-02T03:04:05.000000000"),
        (b"2026-01-02T03:04:05.123456789+02:00", b"2026-01-02T01:04:05.123456789"),
        (b"2026-01-02T03:04:05.123456789-01:30", b"2026-01-02T04:34:05.123456789"),
    ],
)
def test_times_of_any_zone(stamp: bytes, expected: bytes) -> None:
    assert utc(stamp) == expected


NASTY = [
    b"plain",
    b'quote " and \\ backslash',
    b"tab\tbell\x07 return\r",
    b"\x1b[31mred\x1b[0m",
    "umlaut ü, snowman ☃, \u2028".encode(),
    b"broken \xff\xfe utf-8",
    b"",
    b"\x00nul",
]


@pytest.mark.parametrize("mixed", [False, True])
def test_pieces_of_any_size_become_lines_of_sixteen_kilobytes(mixed: bool) -> None:
    chance = random.Random(1)
    sizes = [chance.choice([1, 4096, 8192, 8000]) for _ in range(12)]
    lines = [line(b"y" * size, tag=b"P") for size in sizes] + [line(b"end")]
    if mixed:
        lines.insert(3, line(b"other", b"stderr", b"P"))
        lines.insert(7, line(b"wise", b"stderr"))
    whole = join_pieces(lines)
    if mixed:
        assert [text[PREFIX:] for text in whole if b"stderr" in text] == [b"otherwise"]
    texts = [text[PREFIX:] for text in whole if b"stdout" in text]
    assert b"".join(texts) == b"y" * sum(sizes) + b"end"
    assert {len(text) for text in texts[:-1]} == {LINE_LIMIT}
    assert [text[43:44] for text in whole if b"stdout" in text] == [b"P"] * (len(texts) - 1) + [b"F"]


def test_json_file_round_trip() -> None:
    encoded = encode(block(line(text) for text in NASTY), b"")
    rows = [json.loads(row) for row in encoded.splitlines()]
    expected = [text.decode(errors="replace") + "\n" for text in NASTY]
    assert [row["log"] for row in rows] == expected
    assert rows[0] == {"log": "plain\n", "stream": "stdout", "time": SHORT.decode() + "Z"}
    batch = parse_json(encoded)
    assert [text.decode() for text in batch.lines] == expected
    assert batch.stamps[0] == SHORT


@pytest.mark.parametrize("seed", range(20))
def test_runs_of_lines_are_converted_as_single_ones_are(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    texts = [*NASTY, b"", b"\xc3", STAMP + b" stdout F x", b" stdout P looks like a piece", b"\0"]
    for _ in range(50):
        lines, second = [], 0
        for _ in range(chance.randint(1, 80)):
            second += chance.random() < 0.15
            stream = chance.choice([b"stdout"] * 9 + [b"stderr"])
            stamp = b"2026-01-02T03:04:%02d.000000000+00:00" % (second % 60)
            tag = b"P" if chance.random() < 0.01 else b"F"
            lines.append(line(chance.choice(texts), stream, tag, stamp) if chance.random() > 0.005 else b"rubbish")
        expected = b"".join(encode(block([one]), b"") for one in join_pieces(split_lines(block(lines))))
        monkeypatch.setattr(encoding, "_REACH", chance.choice([50, 200, 32 << 10]))
        monkeypatch.setattr(encoding, "_WORTH", chance.choice([1, 8, 1000]))
        assert encode(block(lines), b"") == expected


def test_json_file_attributes_and_pieces() -> None:
    row = encode(block([line(b"x", b"stderr", b"P")]), b',"attrs":{"a":"b"}')
    assert row == b'{"log":"x","stream":"stderr","attrs":{"a":"b"},"time":"' + SHORT + b'Z"}\n'
    batch = parse_json(row)
    assert (batch.streams, batch.lines, batch.attributes) == ([2], [b"x"], [{"a": "b"}])


def test_pieces_are_no_lines_of_their_own() -> None:
    forged = STAMP + b" stdout P "
    chunk = block(
        [line(b"a", tag=b"P"), line(b"b"), line(forged), line(b"c", b"stderr", b"P"), line(b" stderr P ", b"stderr")]
    )
    assert whole_lines(chunk) == 3


def test_broken_json_lines_are_skipped() -> None:
    good = encode(block([line(b"good")]), b"")
    assert parse_json(b'{"log": "cut\n' + good + b"[]\n{}\n").lines == [b"good\n"]


def test_entries_and_back() -> None:
    entries = [LogEntry(1_500_000_000_123_456_789, 2, b"x", True, {"k": "v"}), LogEntry(10**9, 1, b"y")]
    again = to_entries(from_entries(entries), {})
    assert again == entries


def frames(data: bytes) -> list[tuple[int, bytes]]:
    return Unframer().feed(data)


def test_a_frame_for_each_line() -> None:
    batch = parse_monitor([line(b"a"), line(b"b", b"stderr"), line(b"c")])
    assert frames(Renderer(framed=True).render(batch)) == [(1, b"a\n"), (2, b"b\n"), (1, b"c\n")]
    assert Renderer(framed=False).render(batch) == b"a\nb\nc\n"


def test_long_logs_have_frames_of_many_lines() -> None:
    texts = [b"line %d\n" % number for number in range(3 * SINGLE)]
    batch = Batch([SHORT] * len(texts), [1 + number // 100 % 2 for number in range(len(texts))], texts)
    renderer = Renderer(framed=True)
    assert len(frames(renderer.render(batch))) == len(texts)
    merged = frames(renderer.render(batch))
    assert len(merged) == 30
    assert b"".join(payload for _, payload in merged) == b"".join(texts)
    assert [stream for stream, _ in merged[:3]] == [1, 2, 1]


def test_times_and_details_stand_before_whole_lines_only() -> None:
    renderer = Renderer(framed=False, timestamps=True, attributes={"b": "x y", "a": "1"})
    batch = parse_monitor([line(b"half", tag=b"P"), line(b"err", b"stderr")])
    rest = parse_monitor([line(b" and half"), line(b"next")])
    head = SHORT + b"Z a=1,b=x+y "
    assert renderer.render(batch) == head + b"half" + head + b"err\n"
    assert renderer.render(rest) == b" and half\n" + head + b"next\n"

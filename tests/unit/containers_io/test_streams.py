"""The conversation between a client and a process: frames, detach keys, slow and vanishing clients."""

from __future__ import annotations

import asyncio

import pytest

from plugin_sdk.runtime import STDERR, STDOUT
from plugin_sdk.stdcopy import Unframer
from plugins.containers import streams
from plugins.containers.streams import Conversation, DetachScanner, Ending, Wanted, parse_detach_keys, pieces

ALL = Wanted(stdin=True, stdout=True, stderr=True)


class FakeProcess:
    """A process that writes what it is told to, and keeps what it reads."""

    def __init__(self, *output: tuple[int, bytes], ends: bool = True) -> None:
        self._output = list(output)
        self._ends = ends
        self.read_count = 0
        self.input = b""
        self.stdin_closed = asyncio.Event()

    async def read(self) -> tuple[int, bytes] | None:
        self.read_count += 1
        if self._output:
            return self._output.pop(0)
        if not self._ends:
            await self.stdin_closed.wait()
        return None

    async def write(self, data: bytes) -> None:
        self.input += data

    async def close_stdin(self) -> None:
        self.stdin_closed.set()

    async def close(self) -> None: ...


class FakeClient:
    """A client that sends some input, ends it, and takes output unless it is slow."""

    def __init__(self, *sends: bytes, half_close: bool = True, slow: bool = False) -> None:
        self._sends = list(sends)
        self._half_close = half_close
        self._slow = slow
        self.taken = b""
        self.writes = 0
        self.left = asyncio.Event()

    async def read(self) -> bytes:
        if self._sends:
            return self._sends.pop(0)
        if not self._half_close:
            await self.left.wait()
        return b""

    async def write(self, data: bytes) -> None:
        self.writes += 1
        if self._slow:
            await asyncio.sleep(3600)
        self.taken += data

    async def end(self) -> None: ...

    async def gone(self) -> None:
        await self.left.wait()


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", b"\x10\x11"),
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("ctrl-a,a", b"\x01a"),
        ("ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_", b"\x00\x1b\x1c\x1d\x1e\x1f"),
        ("x", b"x"),
        ("DEL", b"\x7f"),
    ],
)
def test_detach_keys(text: str, keys: bytes) -> None:
    assert parse_detach_keys(text) == keys


@pytest.mark.parametrize("text", ["zzz", "ctrl-a,", "ctrl-1", "ctrl-", ",", "ctrl-aa", "é"])
def test_bad_detach_keys(text: str) -> None:
    with pytest.raises(ValueError, match="unknown key"):
        parse_detach_keys(text)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("typed", "passed", "detached"),
    [
        (b"ls\r\x10\x11rest", b"ls\r", True),
        (b"a\x10b\x11", b"a\x10b\x11", False),
        (b"\x10\x10\x11", b"\x10", True),
        (b"plain", b"plain", False),
    ],
)
def test_scanner_finds_keys_wherever_reads_cut(typed: bytes, passed: bytes, detached: bool, size: int) -> None:
    scanner = DetachScanner(b"\x10\x11")
    out, found = b"", False
    for at in range(0, len(typed), size):
        data, found = scanner.feed(typed[at : at + size])
        out += data
        if found:
            break
    assert (out, found) == (passed, detached)


def test_pieces_keep_bytes_and_streams() -> None:
    chunks = [(STDOUT if number % 3 else STDERR, bytes([number % 256]) * (number * 97 % 9000)) for number in range(300)]
    unframer = Unframer()
    got: dict[int, bytes] = {STDOUT: b"", STDERR: b""}
    for piece in pieces(chunks, framed=True):
        for stream, payload in unframer.feed(piece):
            got[stream] += payload
    for stream, data in got.items():
        assert data == b"".join(part for number, part in chunks if number == stream)
    assert b"".join(pieces(chunks, framed=False)) == b"".join(data for _, data in chunks)


def test_pieces_share_a_frame_between_neighbours() -> None:
    (piece,) = pieces([(STDOUT, b"a"), (STDOUT, b"b"), (STDERR, b"c")], framed=True)
    assert Unframer().feed(piece) == [(STDOUT, b"ab"), (STDERR, b"c")]


async def test_talks_until_the_output_ends() -> None:
    process = FakeProcess((STDOUT, b"out"), (STDERR, b"err"))
    client = FakeClient(half_close=False)
    assert await Conversation(process, client, ALL, framed=True).run() is Ending.OUTPUT
    assert Unframer().feed(client.taken) == [(STDOUT, b"out"), (STDERR, b"err")]


async def test_only_the_wanted_streams() -> None:
    process = FakeProcess((STDOUT, b"out"), (STDERR, b"err"))
    client = FakeClient(half_close=False)
    await Conversation(process, client, Wanted(stderr=True), framed=False).run()
    assert client.taken == b"err"


async def test_half_close_ends_only_the_input() -> None:
    process = FakeProcess((STDOUT, b"before"), ends=False)
    client = FakeClient(b"hi", b" there")
    talk = Conversation(process, client, ALL, framed=False, close_stdin=True)
    assert await talk.run() is Ending.OUTPUT
    assert process.input == b"hi there"
    assert process.stdin_closed.is_set()
    assert client.taken == b"before"


async def test_end_of_input_leaves_a_process_that_keeps_its_own() -> None:
    process = FakeProcess(ends=False)
    assert await Conversation(process, FakeClient(b"x"), ALL, framed=False).run() is Ending.INPUT
    assert not process.stdin_closed.is_set()


async def test_detach_keys_leave() -> None:
    process = FakeProcess(ends=False)
    client = FakeClient(b"ls\r", b"\x10", b"\x11", b"never", half_close=False)
    assert await Conversation(process, client, ALL, framed=False, keys=b"\x10\x11").run() is Ending.DETACHED
    assert process.input == b"ls\r"


async def test_a_vanished_client_ends_everything() -> None:
    process, client = FakeProcess(ends=False), FakeClient(half_close=False)
    talk = asyncio.ensure_future(Conversation(process, client, ALL, framed=False).run())
    await asyncio.sleep(0)
    client.left.set()
    async with asyncio.timeout(1):
        assert await talk is Ending.GONE
    assert len(asyncio.all_tasks()) == 1


async def test_a_slow_client_is_cut_off_and_holds_a_bounded_amount(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LIMIT", 1000)
    process = FakeProcess(*[(STDOUT, bytes(100))] * 1000, ends=False)
    client = FakeClient(half_close=False, slow=True)
    async with asyncio.timeout(2):
        ending = await Conversation(process, client, ALL, framed=True, patience=0.05).run()
    assert ending is Ending.STALLED
    assert process.read_count <= 2 * 10 + 2


async def test_a_process_that_writes_fast_is_sent_in_few_pieces() -> None:
    process = FakeProcess(*[(STDOUT, bytes(8192))] * 2000)
    client = FakeClient(half_close=False)
    await Conversation(process, client, ALL, framed=True).run()
    frames = Unframer().feed(client.taken)
    assert sum(len(payload) for _, payload in frames) == 2000 * 8192
    assert client.writes < 200

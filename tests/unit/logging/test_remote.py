"""The log driver of plugins on a socket, against a peer that is played: FIFOs, faults, restarts, reading back."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from plugin_sdk import NotSupported, PluginError, PluginRefusal, Unavailable
from plugin_sdk.containers import ContainerConfig, ContainerRecord, HostConfig
from plugin_sdk.logs import LogEntry, LogInfo, LogQuery
from plugin_sdk.logwire import Decoder, Encoder
from plugins.logging import remote_sink
from plugins.logging.fifo import Fifo, sweep
from plugins.logging.remote import RemoteDriver, RemoteLogs


def info(**options: str) -> LogInfo:
    record = ContainerRecord(
        Id="ab" * 32,
        Name="web",
        Created="2026-01-02T03:04:05.000000006Z",
        ImageID="sha256:" + "cd" * 32,
        ImageRef="busybox",
        Driver="",
        Runtime="",
        Path="sh",
        Args=["-c", "true"],
        Config=ContainerConfig.model_validate({"Env": ["A=1"], "Labels": {"l": "v"}}),
        HostConfig=HostConfig(),
    )
    return LogInfo(record, options, Path("/nowhere"))


def entries(first: int, last: int, stream: int = 1) -> list[LogEntry]:
    return [LogEntry(number * 10**9, stream, b"line %d" % number) for number in range(first, last)]


class FakePeer:
    """A plugin that reads its FIFOs in threads.

    Attributes:
        got: what it has read whole.
        lives: threads end when it is cleared.
    """

    name = "me/log:1.0"
    interfaces = ("docker.logdriver/1.0",)

    def __init__(self, shared: Path) -> None:
        self.shared = shared
        self.calls: list[tuple[str, Any]] = []
        self.replies: dict[str, Any] = {"LogDriver.Capabilities": {"Cap": {"ReadLogs": True}}}
        self.answer: list[bytes] = []
        self.got: list[LogEntry] = []
        self.opens = True
        self.reads = threading.Event()
        self.reads.set()
        self.alive = threading.Event()
        self.alive.set()
        self.starts = 1
        self.chunk = 4096
        self.readers: list[threading.Thread] = []

    async def call(self, method: str, arguments: Mapping[str, Any] | None, reply: type[Any], *, deadline: float) -> Any:
        self.calls.append((method, arguments))
        told = self.replies.get(method, {})
        if isinstance(told, Exception):
            raise told
        if method == "LogDriver.StartLogging" and self.opens:
            assert arguments is not None
            path = self.shared / Path(arguments["File"]).name
            thread = threading.Thread(target=self._consume, args=(path, self.alive), daemon=True)
            self.readers.append(thread)
            thread.start()
        return reply.model_validate(told)

    def _consume(self, path: Path, alive: threading.Event) -> None:
        decoder, descriptor = Decoder(), os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            while alive.is_set():
                try:
                    data = os.read(descriptor, self.chunk) if self.reads.is_set() else None
                except BlockingIOError:
                    data = None
                if data == b"":
                    return
                if data is None:
                    time.sleep(0.002)
                else:
                    self.got += decoder.feed(data)
        finally:
            os.close(descriptor)

    def die(self) -> None:
        alive, self.alive = self.alive, threading.Event()
        alive.clear()
        for reader in self.readers:
            reader.join(5)
        self.readers.clear()
        self.alive.set()
        self.starts += 1

    @asynccontextmanager
    async def stream(self, method: str, arguments: Any, *, deadline: float) -> AsyncIterator[AsyncIterator[bytes]]:
        self.calls.append((method, arguments))

        async def pieces() -> AsyncIterator[bytes]:
            for data in self.answer:
                yield data

        yield pieces()

    def shared_folder(self) -> tuple[Path, str]:
        return self.shared, "/run/docker/logging"

    def incarnation(self) -> str:
        return str(self.starts)

    def endpoint(self) -> str:
        return ""

    async def host_path(self, path: str) -> str:
        return path

    def called(self, method: str) -> list[Any]:
        return [arguments for name, arguments in self.calls if name == f"LogDriver.{method}"]


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[FakePeer]:
    one = FakePeer(tmp_path / "shared")
    yield one
    one.reads.set()
    one.alive.clear()


@pytest.fixture
def driver(peer: FakePeer) -> RemoteDriver:
    return RemoteDriver(peer, True, {})


async def until(question: Callable[[], object], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not question():  # noqa: ASYNC110 - what is asked tells nobody when it changes
            await asyncio.sleep(0.005)


def files(peer: FakePeer) -> list[str]:
    return os.listdir(peer.shared)


async def test_a_log_from_its_beginning_to_its_end(peer: FakePeer, driver: RemoteDriver) -> None:
    sink = await driver.open(info(colour="red"))
    (name,) = files(peer)
    facts = (peer.shared / name).stat()
    assert (stat.S_ISFIFO(facts.st_mode), stat.S_IMODE(facts.st_mode)) == (True, 0o700)
    (start,) = peer.called("StartLogging")
    assert start["File"] == f"/run/docker/logging/{name}"
    assert start["Info"] == {
        "Config": {"colour": "red"},
        "ContainerID": "ab" * 32,
        "ContainerName": "/web",
        "ContainerEntrypoint": "sh",
        "ContainerArgs": ["-c", "true"],
        "ContainerImageID": "sha256:" + "cd" * 32,
        "ContainerImageName": "busybox",
        "ContainerCreated": "2026-01-02T03:04:05.000000006Z",
        "ContainerEnv": ["A=1"],
        "ContainerLabels": {"l": "v"},
        "LogPath": "",
        "DaemonName": "docker",
    }
    await sink.write(entries(0, 100))
    await until(lambda: peer.got == entries(0, 100))
    await sink.close()
    await sink.close()
    assert peer.called("StopLogging") == [{"File": start["File"]}]
    assert files(peer) == []


async def test_more_than_a_pipe_holds(peer: FakePeer, driver: RemoteDriver) -> None:
    long = [
        LogEntry(number, 1 + number % 2, bytes([65 + number % 26]) * 16384, number % 3 == 0) for number in range(60)
    ]
    sink = await driver.open(info())
    await sink.write(long)
    await until(lambda: peer.got == long)


async def test_write_waits_for_a_plugin_that_does_not_read(peer: FakePeer, driver: RemoteDriver) -> None:
    sink = await driver.open(info())
    peer.reads.clear()
    many = entries(0, 20000)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(sink.write(many), 0.2)
    # Offered again, with more behind: what is in the pipe already does not come twice, and no frame is torn.
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(sink.write(entries(0, 20010)), 0.2)
    peer.reads.set()
    await sink.write(entries(0, 20020))
    await until(lambda: peer.got == entries(0, 20020))


async def test_entries_dropped_by_the_buffer_meanwhile(peer: FakePeer, driver: RemoteDriver) -> None:
    sink = await driver.open(info())
    peer.reads.clear()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(sink.write(entries(0, 20000)), 0.2)
    peer.reads.set()
    await sink.write(entries(10000, 30000))
    # All that is offered comes, each once; what was in the pipe by then comes as well.
    await until(lambda: peer.got[-1] == entries(29999, 30000)[0])
    got = [entry.time_ns // 10**9 for entry in peer.got]
    assert got == sorted(set(got))
    assert set(range(10000, 30000)) <= set(got)


async def test_a_plugin_that_died_between_two_writes(peer: FakePeer, driver: RemoteDriver) -> None:
    sink = await driver.open(info())
    await sink.write(entries(0, 10))
    peer.die()
    await sink.write(entries(10, 20))
    await until(lambda: peer.got == entries(0, 20))
    assert len(peer.called("StartLogging")) == 2
    assert len(files(peer)) == 1


@pytest.mark.parametrize("chunk", [7, 1000, 4096])
async def test_a_plugin_that_dies_in_the_middle_of_a_write(peer: FakePeer, driver: RemoteDriver, chunk: int) -> None:
    peer.chunk = chunk
    sink = await driver.open(info())
    many = entries(0, 20000)
    writing = asyncio.create_task(sink.write(many))
    await until(lambda: len(peer.got) > 20)
    await asyncio.to_thread(peer.die)
    with pytest.raises(Unavailable, match=r"me/log:1\.0.*closed the log's FIFO"):
        await writing
    peer.chunk = 1 << 16
    await sink.write(many)
    await until(lambda: peer.got == many)


async def test_a_plugin_that_never_opens_its_fifo(
    peer: FakePeer, driver: RemoteDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_sink, "OPEN_PATIENCE", 0.1)
    peer.opens = False
    sink = await driver.open(info())
    with pytest.raises(Unavailable, match=r"me/log:1\.0.*has not opened"):
        await sink.write(entries(0, 5))
    peer.opens = True
    await sink.write(entries(0, 5))
    await until(lambda: peer.got == entries(0, 5))
    assert len(files(peer)) == 1


async def test_a_refusal_leaves_no_fifo(peer: FakePeer, driver: RemoteDriver) -> None:
    peer.replies["LogDriver.StartLogging"] = PluginRefusal(peer.name, "LogDriver.StartLogging", "no")
    with pytest.raises(PluginRefusal):
        await driver.open(info())
    assert files(peer) == []


async def test_another_sink_goes_on_after_an_upgrade(peer: FakePeer) -> None:
    adapter = RemoteLogs()
    (spec,) = await adapter.connect(peer)
    sink = await spec.driver.open(info())
    peer.chunk = 100
    writing = asyncio.create_task(sink.write(entries(0, 5000)))
    await until(lambda: len(peer.got) > 20)
    peer.reads.clear()
    await asyncio.sleep(0.05)
    await adapter.disconnect(peer)
    with pytest.raises(Unavailable):
        await writing
    with pytest.raises(Unavailable, match="closed"):
        await sink.write(entries(0, 5000))
    assert files(peer) == []
    await asyncio.to_thread(peer.die)
    peer.reads.set()
    peer.chunk = 1 << 16
    (spec,) = await adapter.connect(peer)
    await (await spec.driver.open(info())).write(entries(0, 5000))
    await until(lambda: peer.got == entries(0, 5000))


async def test_fifos_of_a_killed_daemon_are_swept_and_those_in_use_are_not(peer: FakePeer, tmp_path: Path) -> None:
    adapter = RemoteLogs()
    (spec,) = await adapter.connect(peer)
    await spec.driver.open(info())
    (used,) = files(peer)
    os.mkfifo(peer.shared / ("0" * 64))
    (peer.shared / ("1" * 64)).write_text("no fifo")
    os.mkfifo(peer.shared / "of-somebody-else")
    other = FakePeer(peer.shared)
    other.name = "other"
    await adapter.connect(other)
    assert sorted(files(peer)) == sorted([used, "1" * 64, "of-somebody-else"])
    assert sweep(tmp_path / "missing", ()) == 0


async def test_a_fifo_is_not_made_through_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared, target = tmp_path / "shared", tmp_path / "target"
    shared.mkdir()
    fifo = Fifo(shared)
    os.mkfifo(target)
    monkeypatch.setattr(os, "mkfifo", lambda name, mode, dir_fd: os.symlink(target, name, dir_fd=dir_fd))
    with pytest.raises(OSError, match="replaced"):
        fifo.make()


@pytest.mark.parametrize(
    ("told", "readable"),
    [
        ({"Cap": {"ReadLogs": True}}, True),
        ({"cap": {"readlogs": True}}, True),
        ({"ReadLogs": True}, True),
        ({"Cap": None}, False),
        ({}, False),
        (NotSupported("404"), False),
        (PluginError("x", "LogDriver.Capabilities", "rubbish"), False),
    ],
)
async def test_capabilities(peer: FakePeer, told: Any, readable: bool) -> None:
    peer.replies["LogDriver.Capabilities"] = told
    (spec,) = await RemoteLogs().connect(peer)
    assert (spec.name, spec.driver.readable) == (peer.name, readable)


async def read(driver: RemoteDriver, **query: Any) -> list[LogEntry]:
    return [entry async for several in driver.read(info(), LogQuery(**query)) for entry in several]


def split(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 9, 1000])
async def test_reading_back(peer: FakePeer, driver: RemoteDriver, size: int) -> None:
    peer.answer = split(b"".join(Encoder(line_end=True).encode(entries(1, 30))), size)
    assert await read(driver) == entries(1, 30)
    assert peer.called("ReadLogs")[0]["Config"] == {
        "Since": "0001-01-01T00:00:00Z",
        "Until": "0001-01-01T00:00:00Z",
        "Tail": -1,
        "Follow": False,
    }
    second = 10**9
    assert await read(driver, since_ns=10 * second, until_ns=20 * second) == entries(10, 21)
    assert peer.called("ReadLogs")[1]["Config"]["Since"] == "1970-01-01T00:00:10.000000000Z"
    assert await read(driver, tail=3) == entries(27, 30)
    assert await read(driver, tail=100) == entries(1, 30)


async def test_the_tail_counts_lines_and_not_pieces(peer: FakePeer, driver: RemoteDriver) -> None:
    pieces = [LogEntry(2, 1, b"a", True), LogEntry(3, 1, b"b", True), LogEntry(4, 1, b"c")]
    written = [LogEntry(1, 1, b"first"), *pieces, LogEntry(5, 1, b"open", True)]
    peer.answer = Encoder(line_end=True).encode(written)
    assert await read(driver, tail=2) == written[1:]
    assert await read(driver, tail=1) == written[4:]


@pytest.mark.parametrize("answer", [b'{"Err":"no such container"}', b"\x00\x00\x00\x05\x0a", b"\xff" * 100])
async def test_rubbish_is_named(peer: FakePeer, driver: RemoteDriver, answer: bytes) -> None:
    peer.answer = [answer]
    with pytest.raises(PluginError, match=r"'me/log:1\.0' failed in LogDriver\.ReadLogs: answered rubbish"):
        await read(driver)


async def test_a_plugin_that_was_started_anew_hears_of_the_container_before_it_is_asked(
    peer: FakePeer, driver: RemoteDriver
) -> None:
    await driver.open(info())
    await read(driver)
    peer.die()
    await read(driver)
    assert [method for method, _ in peer.calls] == [
        "LogDriver.StartLogging",
        "LogDriver.ReadLogs",
        "LogDriver.StartLogging",
        "LogDriver.ReadLogs",
    ]

"""The pump between a buffer and a driver that may raise, hang or go away; and readers beside it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from plugin_sdk import NotFound, PluginRefusal
from plugin_sdk.containers import ContainerConfig, ContainerRecord, HostConfig
from plugin_sdk.logs import LogEntry, LogInfo, LogQuery
from plugin_sdk.times import parse_ns
from plugins.logging import channel as channel_module
from plugins.logging.batch import Batch
from plugins.logging.channel import Channel
from plugins.logging.jsonfile import JsonFileDriver
from plugins.logging.local import LocalDriver
from plugins.logging.reading import Reader
from plugins.logging.service import watched
from plugins.logging.spool import LIVE
from plugins.logging.watch import Watcher

STAMP = "2026-01-02T03:04:05.000000000"
STAMP_NS = parse_ns(STAMP)


class Remote:
    """A log driver that can be told how to behave."""

    def __init__(self, *, readable: bool = False) -> None:
        self.readable = readable
        self.taken: list[str] = []
        self.fault = ""
        self.closed = 0
        self.opened = 0

    def validate(self, options: Mapping[str, str]) -> None: ...

    def log_path(self, info: LogInfo) -> str:
        return ""

    async def open(self, info: LogInfo) -> Remote:
        self.opened += 1
        if self.fault == "refuse":
            raise PluginRefusal("remote", "LogDriver.StartLogging", "want a colour")
        if self.fault == "hang in open":
            await asyncio.sleep(0.5)
        return self

    async def write(self, entries: Sequence[LogEntry]) -> None:
        if self.fault == "raise":
            raise RuntimeError("the collector is down")
        if self.fault == "hang":
            await asyncio.sleep(3600)
        self.taken += [entry.line.decode() for entry in entries]

    async def close(self) -> None:
        self.closed += 1

    async def read(self, info: LogInfo, query: LogQuery) -> AsyncIterator[Sequence[LogEntry]]:
        rows = [LogEntry(STAMP_NS, 1, text.encode()) for text in self.taken]
        yield rows[-query.tail :] if query.tail > 0 else rows

    async def remove(self, info: LogInfo) -> None: ...


class Drivers:
    """Stands in for the kernel's drivers."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}
        self.sought = 0

    def all(self, contract: type[Any]) -> Mapping[str, Any]:
        return self.known

    def get(self, contract: type[Any], name: str) -> Any:
        if name not in self.known:
            raise NotFound(name)
        return self.known[name]

    async def find(self, contract: type[Any], name: str) -> Any:
        self.sought += 1
        return self.get(contract, name)


class World:
    """One container with a log."""

    def __init__(self, folder: Path, driver: Any, options: Mapping[str, str], name: str = "remote") -> None:
        self.drivers = Drivers()
        if driver is not None:
            self.drivers.known[name] = driver
        self.tasks: list[asyncio.Task[Any]] = []
        self.channels: dict[str, Channel] = {}
        self.threads = ThreadPoolExecutor(2)
        self.watcher = Watcher(LIVE, watched(self.channels), lambda key: self.channels[key].changed())
        host = HostConfig.model_validate({"LogConfig": {"Type": name, "Config": options}})
        record = ContainerRecord(
            Id="ab" * 32,
            Name="web",
            Created="",
            ImageID="",
            ImageRef="",
            Driver="",
            Runtime="",
            Config=ContainerConfig(),
            HostConfig=host,
        )
        ctx: Any = SimpleNamespace(log=logging.getLogger("test"), drivers=self.drivers, spawn=self._spawn)
        self.info = LogInfo(record, options, folder / record.Id)
        self.channel = Channel(ctx, self.threads, self.watcher, self.info, driver)
        self.channels[record.Id] = self.channel
        self.settled = asyncio.Event()
        self.channel.on_settled = lambda channel: self.settled.set()

    def _spawn(self, work: Any, *, name: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.append(task)
        return task

    def write(self, *texts: str) -> None:
        with self.channel.spool.live.open("ab") as file:
            for text in texts:
                file.write(f"{STAMP}+00:00 stdout F {text}\n".encode())

    async def close(self) -> None:
        await self.channel.halt()
        for task in self.tasks:
            task.cancel()
        self.watcher.close()
        self.threads.shutdown()

    async def logs(self, **query: Any) -> list[str]:
        reader = Reader(self.channel, LogQuery(**query), lambda batch: [text.decode() for text in batch.lines])
        return [text.rstrip("\n") async for several in reader.read() for text in several]


MakeWorld = Callable[..., Awaitable[World]]


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MakeWorld]:
    monkeypatch.setattr(channel_module, "PUMP_DELAY", 0.01)
    monkeypatch.setattr(channel_module, "BACKOFF", (0.02, 0.05))
    monkeypatch.setattr(channel_module, "WRITE_DEADLINE", 0.1)
    monkeypatch.setattr(channel_module, "FLUSH_DEADLINE", 0.3)
    made: list[World] = []

    async def make(driver: Any, options: Mapping[str, str] | None = None, name: str = "remote") -> World:
        made.append(World(tmp_path / str(len(made)), driver, options or {}, name))
        await made[-1].channel.begin()
        return made[-1]

    yield make
    for one in made:
        await one.close()


async def until(question: Callable[[], object], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not question():  # noqa: ASYNC110 - what is asked tells nobody when it changes
            await asyncio.sleep(0.01)


def numbers(*bounds: int) -> list[str]:
    return [str(number) for number in range(*bounds)]


async def test_entries_reach_the_sink(world: MakeWorld) -> None:
    remote = Remote()
    one = await world(remote)
    one.write(*numbers(100))
    await until(lambda: remote.taken == numbers(100))
    one.write(*numbers(100, 200))
    await until(lambda: remote.taken == numbers(200))
    one.channel.end(drain=True)
    await until(one.settled.is_set)
    assert remote.closed == 1


@pytest.mark.parametrize("fault", ["raise", "hang"])
async def test_a_broken_sink_gets_all_of_it_later(world: MakeWorld, fault: str) -> None:
    remote = Remote()
    remote.fault = fault
    one = await world(remote)
    one.write(*numbers(50))
    await asyncio.sleep(0.3)
    assert remote.taken == []
    assert await one.logs() == numbers(50)
    remote.fault = ""
    await until(lambda: remote.taken == numbers(50))


async def test_a_driver_that_went_and_came_again(world: MakeWorld) -> None:
    first, second = Remote(), Remote()
    one = await world(first)
    one.write("1")
    await until(lambda: first.taken)
    del one.drivers.known["remote"]
    one.write("2")
    await until(lambda: first.closed)
    one.drivers.known["remote"] = second
    await until(lambda: second.taken == ["2"])
    assert first.taken == ["1"]


async def test_a_dead_sink_does_not_fill_the_disk(world: MakeWorld, caplog: pytest.LogCaptureFixture) -> None:
    remote = Remote()
    remote.fault = "raise"
    one = await world(remote, {"mode": "non-blocking", "max-buffer-size": "1m"})
    one.write(*("x" * 1000 for _ in range(3000)), "last")
    await until(lambda: "dropped" in caplog.text)
    assert one.channel.spool.unread() <= 1 << 20
    remote.fault = ""
    await until(lambda: remote.taken and remote.taken[-1] == "last")
    assert 900 < len(remote.taken) < 1100
    # The sink hears how many are missing, in their place, and the count is exact.
    assert told_missing(remote) + len(remote.taken) - 1 == 3001


def told_missing(remote: Remote) -> int:
    notices = [text for text in remote.taken if text.startswith("[engine] ")]
    return sum(int(notice.split()[1]) for notice in notices)


async def test_a_sink_that_hangs_does_not_fill_the_disk(world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "WRITE_DEADLINE", 60.0)
    monkeypatch.setattr(channel_module, "_BOUND_SECONDS", 0.01)
    remote = Remote()
    gate = asyncio.Event()

    class Slow(Remote):
        async def write(self, entries: Sequence[LogEntry]) -> None:
            await gate.wait()
            self.taken += [entry.line.decode() for entry in entries]

    remote = Slow()
    one = await world(remote, {"mode": "non-blocking", "max-buffer-size": "1m"})
    one.write(*numbers(100))
    await until(lambda: one.channel._cursor is not None)
    one.write(*("x" * 1000 for _ in range(3000)), "last")
    await until(lambda: one.channel.spool.unread() <= 1 << 20)
    gate.set()
    await until(lambda: remote.taken and remote.taken[-1] == "last")
    # What was on its way while it was dropped from the buffer came through, and does not count as missing.
    assert remote.taken[:100] == numbers(100)
    notices = [text for text in remote.taken if text.startswith("[engine] ")]
    assert len(notices) == 1
    assert told_missing(remote) + len(remote.taken) - 1 == 3101


async def test_what_was_dropped_is_told_after_a_kill_too(world: MakeWorld, tmp_path: Path) -> None:
    remote = Remote()
    remote.fault = "raise"
    one = await world(remote, {"mode": "non-blocking", "max-buffer-size": "1m"})
    one.write(*("x" * 1000 for _ in range(3000)), "last")
    await until(lambda: one.channel.spool.unread() <= 1 << 20)
    await one.channel.halt()
    remote.fault = ""
    again = World(tmp_path / "0", remote, {"mode": "non-blocking", "max-buffer-size": "1m"})
    try:
        again.channel.resume()
        await until(lambda: remote.taken and remote.taken[-1] == "last")
        assert told_missing(remote) + len(remote.taken) - 1 == 3001
    finally:
        await again.close()


async def test_a_cache_smaller_than_what_waits_drops_nothing_unsaid(world: MakeWorld) -> None:
    remote = Remote()
    remote.fault = "raise"
    one = await world(remote, {"cache-max-size": "64k", "cache-max-file": "1"})
    one.write(*("x" * 1000 for _ in range(3000)))
    await asyncio.sleep(0.2)
    remote.fault = ""
    await until(lambda: len(remote.taken) == 3000)


async def test_after_a_kill_nothing_is_lost_or_doubled(world: MakeWorld, tmp_path: Path) -> None:
    remote = Remote()
    one = await world(remote)
    one.write(*numbers(10))
    await until(lambda: len(remote.taken) == 10)
    await one.channel.halt()
    one.write(*numbers(10, 20))
    again = World(tmp_path / "0", remote, {})
    try:
        again.channel.resume()
        await until(lambda: len(remote.taken) == 20)
        assert remote.taken == numbers(20)
    finally:
        await again.close()


async def test_removal_waits_a_little_and_says_what_was_lost(
    world: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    remote = Remote()
    remote.fault = "hang"
    one = await world(remote)
    one.write("precious")
    one.channel.end(drain=True)
    await one.channel.remove()
    assert "were not taken" in caplog.text
    assert not one.info.folder.exists()


@pytest.mark.parametrize("readable", [True, False])
async def test_reading_back(world: MakeWorld, readable: bool) -> None:
    remote = Remote(readable=readable)
    one = await world(remote)
    one.write(*numbers(10))
    await until(lambda: len(remote.taken) == 10)
    remote.fault = "raise"
    one.write(*numbers(10, 15))
    assert await one.logs() == numbers(15)
    assert await one.logs(tail=7) == numbers(8, 15)
    assert await one.logs(tail=3) == numbers(12, 15)
    assert await one.logs(stdout=False) == []


@pytest.fixture(params=["json-file", "local"])
def driver(request: pytest.FixtureRequest) -> Iterator[tuple[str, Any]]:
    yield request.param, JsonFileDriver() if request.param == "json-file" else LocalDriver()


async def test_following_to_the_end_of_the_run(world: MakeWorld, driver: tuple[str, Any]) -> None:
    one = await world(driver[1], name=driver[0])
    one.write(*numbers(5))
    follower = asyncio.create_task(one.logs(follow=True))
    for number in range(5, 30, 5):
        await asyncio.sleep(0.05)
        one.write(*numbers(number, number + 5))
    one.channel.end(drain=True)
    assert await asyncio.wait_for(follower, 5) == numbers(30)
    await until(one.settled.is_set)
    assert await one.logs() == numbers(30)
    assert await one.logs(tail=4) == numbers(26, 30)


async def test_readers_see_all_whatever_the_pump_does(world: MakeWorld) -> None:
    one = await world(JsonFileDriver(), name="json-file")
    seen: list[int] = []
    for number in range(60):
        one.write(*numbers(number * 10, number * 10 + 10))
        assert await one.logs() == numbers(number * 10 + 10)
        seen.append(one.channel.spool.position.offset)
    assert len(set(seen)) > 1


async def test_a_slow_follower_is_not_robbed(world: MakeWorld) -> None:
    one = await world(JsonFileDriver(), name="json-file")
    gate = asyncio.Event()

    def slowly(batch: Batch) -> list[bytes]:
        return list(batch.lines)

    async def follow() -> int:
        count = 0
        reader = Reader(one.channel, LogQuery(follow=True), slowly)
        async for several in reader.read():
            count += len(several)
            if count < 10:
                await gate.wait()
        return count

    one.write("first")
    follower = asyncio.create_task(follow())
    await asyncio.sleep(0.1)
    for _ in range(20):
        one.write(*("y" * 1000 for _ in range(200)))
        await asyncio.sleep(0.02)
    one.channel.end(drain=True)
    await until(one.settled.is_set)
    gate.set()
    assert await asyncio.wait_for(follower, 10) == 4001
    await until(lambda: not one.channel.spool.written())


async def test_a_driver_that_comes_later_gets_it_all(world: MakeWorld) -> None:
    one = await world(None)
    one.write(*numbers(10))
    await until(lambda: one.drivers.sought > 1)
    assert await one.logs() == numbers(10)
    one.drivers.known["remote"] = remote = Remote(readable=True)
    await until(lambda: remote.taken == numbers(10))
    assert not one.channel.outlet.retained
    assert await one.logs() == numbers(10)


async def test_a_driver_that_never_comes_is_not_complained_of_at_each_try(
    world: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    one = await world(None)
    one.write("1")
    await until(lambda: one.drivers.sought > 4)
    assert caplog.text.count("no plugin offers it now: remote") == 1


async def test_a_refusal_is_told_to_whoever_starts_the_container(world: MakeWorld) -> None:
    remote = Remote()
    remote.fault = "refuse"
    one = await world(remote)
    with pytest.raises(PluginRefusal, match="want a colour"):
        await one.channel.greet()


async def test_a_slow_driver_is_greeted_once_and_not_waited_for(
    world: MakeWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(channel_module, "GREET_DEADLINE", 0.05)
    remote = Remote()
    remote.fault = "hang in open"
    one = await world(remote)
    async with asyncio.timeout(0.3):
        await one.channel.greet()
    assert "log driver remote: not ready within 0.05 s" in caplog.text
    one.write("1")
    await until(lambda: remote.taken == ["1"])
    assert remote.opened == 1


async def test_a_container_without_output_says_goodbye_too(world: MakeWorld) -> None:
    remote = Remote()
    one = await world(remote)
    await one.channel.greet()
    assert not one.channel.idle
    one.channel.end(drain=True)
    await until(one.settled.is_set)
    assert (remote.opened, remote.closed) == (1, 1)


async def test_a_driver_that_hangs_at_the_end_keeps_nothing_alive_that_has_no_output(world: MakeWorld) -> None:
    remote = Remote()
    remote.fault = "hang in open"
    one = await world(remote)
    greeting = asyncio.create_task(one.channel.greet())
    await until(lambda: remote.opened)
    one.channel.end(drain=True)
    await asyncio.wait_for(one.settled.wait(), 0.4)
    await greeting
    assert remote.closed == 0


async def test_what_the_driver_takes_while_it_is_read_is_not_shown_twice(world: MakeWorld) -> None:
    remote = Remote(readable=True)
    remote.fault = "raise"
    one = await world(remote)
    one.write(*numbers(10))
    reader = Reader(one.channel, LogQuery(), lambda batch: [text.decode() for text in batch.lines])
    plain = reader._past

    async def late(pieces: Any) -> Any:
        remote.fault = ""
        await until(lambda: len(remote.taken) == 10)
        async for found in plain(pieces):
            yield found

    reader._past = late  # type: ignore[method-assign]
    assert [text.strip() for several in [each async for each in reader.read()] for text in several] == numbers(10)

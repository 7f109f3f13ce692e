"""The kit of `LogDriver`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from kernel.contracts.logs import LogDriver, LogEntry, LogInfo, LogQuery, LogSink
from kernel.errors import InvalidParameter
from plugin_sdk.testing.kit import Bench, DoesNotApply, Kit
from plugin_sdk.testing.records import container_record

READ_SECONDS = 10.0
"""Within which what was written can be read: plugins in another process take it from a FIFO."""
BEGAN_NS = time.time_ns() // 10**9 * 10**9
STEP_NS = 1_000_000_001
"""Between two entries, so that nanoseconds matter."""

OUT, ERR = 1, 2


def entry(number: int, text: str, stream: int = OUT, *, partial: bool = False) -> LogEntry:
    """The entry of that number; later ones have later times."""
    return LogEntry(BEGAN_NS + number * STEP_NS, stream, text.encode(), partial)


SAMPLE = (
    entry(0, "first"),
    entry(1, "a complaint", ERR),
    entry(2, ""),
    entry(3, 'ünï "quoted" \\ \t and\x01 control'),
    entry(4, "x" * 16000),
    entry(5, "last", ERR),
)


class LogBench(Bench[LogDriver]):
    """Opens logs, and closes and removes them."""

    needs_folder = False  # `LogInfo.folder` says where a log lies

    def info(self) -> LogInfo:
        """A container's log that is new."""
        container = container_record()
        info = LogInfo(container, self.options, self.folder / "logs" / container.Id)
        self.later(f"remove log {container.Id[:12]}", lambda: self.driver.remove(info))
        return info

    async def opened(self, info: LogInfo) -> LogSink:
        """A sink on it, closed later."""
        info.folder.mkdir(parents=True, exist_ok=True)
        sink = await self.fine("open", self.driver.open(info))
        self.later("close the sink", sink.close)
        return sink

    async def written(self, info: LogInfo, entries: Sequence[LogEntry]) -> None:
        """Write entries, and close."""
        info.folder.mkdir(parents=True, exist_ok=True)
        sink = await self.fine("open", self.driver.open(info))
        try:
            await sink.write(entries)
        finally:
            await sink.close()

    async def read(self, info: LogInfo, query: LogQuery | None = None) -> list[LogEntry]:
        """All entries that the driver gives now."""
        found: list[LogEntry] = []
        async for batch in self.driver.read(info, query or LogQuery()):
            self.expect(
                all(isinstance(each, LogEntry) for each in batch), "read to give batches of LogEntry", list(batch)[:3]
            )
            found += batch
        return found

    async def reads(self, info: LogInfo, wanted: Sequence[LogEntry], query: LogQuery | None = None) -> None:
        """Raises Broken unless the driver gives these."""
        expected = [_plain(each) for each in wanted]
        end = time.monotonic() + (READ_SECONDS if self.subject.remote else 0)
        while True:
            found = await self.read(info, query)
            if [_plain(each) for each in found] == expected:
                return
            if time.monotonic() >= end:
                shown = [_shown(each) for each in wanted]
                self.equal([_shown(each) for each in found], shown, f"the entries of {query or 'all'}")
                self.equal([_plain(each) for each in found], expected, "times, streams and pieces")
            await asyncio.sleep(0.05)

    def needs_reading(self) -> None:
        """The check is about drivers that can read back."""
        if not self.driver.readable:
            raise DoesNotApply("the driver says that it cannot read back; the engine keeps its own buffer for it")


def _plain(each: LogEntry) -> tuple[int, int, bytes, bool]:
    return each.time_ns, each.stream, each.line, each.partial


def _shown(each: LogEntry) -> tuple[int, bytes]:
    return each.stream, each.line if len(each.line) <= 40 else each.line[:40] + b"..."


KIT = Kit("LogDriver", LogDriver, LogBench)


@KIT.check("readable says whether read works", says="LogDriver.readable: `read` works.")
async def readable(bench: LogBench) -> None:
    said = bench.driver.readable
    bench.expect(isinstance(said, bool), "readable to be True or False", said)


@KIT.check("no options, and the operator's own, are accepted", says=LogDriver.validate)
async def own_options(bench: LogBench) -> None:
    bench.driver.validate(bench.options)


@KIT.check("an unknown option is refused by its name", says=LogDriver.validate)
async def unknown_option(bench: LogBench) -> None:
    try:
        bench.driver.validate({**bench.options, "no-such-option": "x"})
    except InvalidParameter as error:
        named = "no-such-option" in str(error) or bench.subject.remote
        # A driver without any option need not tell one from another.
        bench.expect(named or "invalid logging opts" in str(error), "the refusal to name no-such-option", str(error))
        return
    if bench.subject.remote:
        raise DoesNotApply("the protocol of log plugins has no question for it")
    bench.expect(False, "the option no-such-option to be refused with InvalidParameter", "no objection")


@KIT.check("log_path is empty or an absolute path", says=LogDriver.log_path)
async def log_path(bench: LogBench) -> None:
    said = bench.driver.log_path(bench.info())
    bench.expect(said == "" or Path(said).is_absolute(), 'log_path to be "" or absolute', said)


@KIT.check("entries are taken, also by drivers that cannot read back", says=LogSink.write)
async def write(bench: LogBench) -> None:
    info = bench.info()
    sink = await bench.opened(info)
    await sink.write(SAMPLE)
    await sink.write([])
    await sink.write([entry(9, "more")])


@KIT.check("what was written is read back in order, with times, streams and bytes", says=LogDriver.read)
async def read_back(bench: LogBench) -> None:
    bench.needs_reading()
    info = bench.info()
    await bench.written(info, SAMPLE)
    await bench.reads(info, SAMPLE)


@KIT.check("pieces of a long line keep their mark", says="LogEntry.partial: no line end follows.")
async def pieces(bench: LogBench) -> None:
    bench.needs_reading()
    info = bench.info()
    parts = [entry(0, "a" * 16384, partial=True), entry(1, "b" * 100), entry(2, "whole")]
    await bench.written(info, parts)

    async def text() -> bool:
        found = await bench.read(info)
        return b"".join(each.line + (b"" if each.partial else b"\n") for each in found) == b"".join(
            each.line + (b"" if each.partial else b"\n") for each in parts
        )

    await bench.eventually(
        "the pieces to join to the line", text, seconds=READ_SECONDS if bench.subject.remote else 0.0
    )


@KIT.check("what was written is there while the log is open, and after a crash", says=LogSink.write)
async def written_is_kept(bench: LogBench) -> None:
    bench.needs_reading()
    info = bench.info()
    sink = await bench.opened(info)
    await sink.write(SAMPLE[:2])
    await bench.reads(info, SAMPLE[:2])
    await bench.restart()
    await bench.reads(info, SAMPLE[:2])


@KIT.check("a log that is opened again goes on", says=LogDriver.open)
async def open_again(bench: LogBench) -> None:
    bench.needs_reading()
    info = bench.info()
    await bench.written(info, SAMPLE[:2])
    await bench.written(info, SAMPLE[2:])
    await bench.reads(info, SAMPLE)


@KIT.check("tail gives the last lines", says=LogQuery)
async def tail(bench: LogBench) -> None:
    bench.needs_reading()
    info = bench.info()
    await bench.written(info, SAMPLE)
    await bench.reads(info, SAMPLE[-2:], LogQuery(tail=2))
    await bench.reads(info, SAMPLE, LogQuery(tail=1000))


@KIT.check("since and until bound the times", says=LogQuery)
async def since_and_until(bench: LogBench) -> None:
    bench.needs_reading()
    info = bench.info()
    await bench.written(info, SAMPLE)
    await bench.reads(info, SAMPLE[2:], LogQuery(since_ns=SAMPLE[2].time_ns))
    await bench.reads(info, SAMPLE[:3], LogQuery(until_ns=SAMPLE[2].time_ns + 1000))
    await bench.reads(info, SAMPLE[1:3], LogQuery(since_ns=SAMPLE[1].time_ns, until_ns=SAMPLE[2].time_ns + 1000))


@KIT.check("only the streams asked for are given", says=LogQuery)
async def streams(bench: LogBench) -> None:
    bench.needs_reading()
    if bench.subject.remote:
        raise DoesNotApply("the protocol of log plugins has no question for it: the engine chooses among what comes")
    info = bench.info()
    await bench.written(info, SAMPLE)
    await bench.reads(info, [each for each in SAMPLE if each.stream == ERR], LogQuery(stdout=False))
    await bench.reads(info, [each for each in SAMPLE if each.stream == OUT], LogQuery(stderr=False))


@KIT.check("logs of two containers are apart", says=LogDriver.open)
async def containers_are_apart(bench: LogBench) -> None:
    bench.needs_reading()
    one, two = bench.info(), bench.info()
    await bench.written(one, SAMPLE[:1])
    await bench.written(two, SAMPLE[1:2])
    await bench.reads(one, SAMPLE[:1])
    await bench.reads(two, SAMPLE[1:2])


@KIT.check("a removed log is gone; removing it again, or one that never was, is fine", says=LogDriver.remove)
async def remove(bench: LogBench) -> None:
    info, never = bench.info(), bench.info()
    await bench.written(info, SAMPLE)
    await bench.twice("remove", lambda: bench.driver.remove(info))
    await bench.fine("removing a log that never was", bench.driver.remove(never))
    if bench.driver.readable and not bench.subject.remote:  # the protocol has no word for removal
        info.folder.mkdir(parents=True, exist_ok=True)
        bench.equal(await bench.read(info), [], "what a removed log gives")

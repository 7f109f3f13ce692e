"""Sinks whose link fails: what is offered again is sent once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgpack
import pytest

from plugin_sdk import NotSupported, Unavailable
from plugin_sdk.logs import LogEntry, LogInfo, LogQuery
from plugins.log_shipping.fluentd import AckLink, FluentdDriver, Patient
from plugins.log_shipping.links import Address, Progress
from plugins.log_shipping.shipping import ShippingDriver
from plugins.log_shipping.streams import StreamLink


class Flaky:
    """A link that takes so many records, and then fails; None: all."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.patience: int | None = None
        self.connected = 0
        self.refuses = False

    async def connect(self) -> None:
        self.connected += 1
        if self.refuses:
            raise Unavailable("nobody there")

    async def send(self, records: Sequence[bytes], progress: Progress) -> None:
        await self.connect()
        for record in records:
            if self.patience is not None and progress.sent >= self.patience:
                raise Unavailable("gone")
            self.taken.append(record)
            progress.sent += 1

    async def close(self) -> None:
        pass


def entries(first: int, last: int) -> list[LogEntry]:
    return [LogEntry(10**18 + number, 1, b"%d" % number) for number in range(first, last)]


async def test_nothing_is_sent_twice_also_by_the_next_sink(info: Callable[..., LogInfo]) -> None:
    driver, link = ShippingDriver(), Flaky()
    sink = await driver.linked(info({}), link, lambda entry, piece: entry.line)
    await sink.write(entries(0, 10))
    link.patience = 7
    with pytest.raises(Unavailable, match="gone"):
        await sink.write(entries(10, 200))
    link.refuses = True
    with pytest.raises(Unavailable, match="nobody there"):
        await sink.write(entries(10, 200))
    link.refuses, link.patience = False, 5
    with pytest.raises(Unavailable, match="gone"):
        await sink.write(entries(10, 210))
    await sink.close()
    link.patience = None
    other = await driver.linked(info({}), link, lambda entry, piece: entry.line)
    await other.write(entries(10, 300))
    assert link.taken == [b"%d" % number for number in range(300)]
    await driver.remove(info({}))
    await driver.remove(info({}))


async def test_waits_grow_and_end() -> None:
    link = Flaky()
    link.refuses = True
    patient = Patient(link, 0.1)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    for _ in range(4):
        with pytest.raises(Unavailable, match="nobody there"):
            await patient.connect()
    # 0.1 + 0.15 + 0.225 s between four attempts.
    assert 0.4 < loop.time() - begun < 2
    link.refuses = False
    await patient.send([b"a"], Progress())
    assert (link.taken, link.connected) == ([b"a"], 6)


async def test_a_long_wait_is_not_slept_through_in_a_write() -> None:
    link = Flaky()
    link.refuses = True
    patient = Patient(link, 30.0)
    with pytest.raises(Unavailable, match="nobody there"):
        await patient.connect()
    with pytest.raises(Unavailable, match=r"nobody there; tried again in \d+ s"):
        await patient.send([b"a"], Progress())
    assert link.connected == 1


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (msgpack.packb({"ack": "another"}), "does not acknowledge what was sent"),
        (msgpack.packb(5), "does not acknowledge what was sent"),
        (b"\xc1", "answered rubbish"),
        (b"", "closed the connection"),
    ],
)
async def test_acknowledgements_that_are_none(answer: bytes, message: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    link = AckLink(StreamLink(Address("tcp", "127.0.0.1", server.sockets[0].getsockname()[1])), "t")
    progress = Progress()
    with pytest.raises(Unavailable, match=message):
        await link.send([b"\x92\x01\x80"], progress)
    assert progress.sent == 0
    server.close()


async def test_logs_are_not_read_from_the_receiver(info: Callable[..., LogInfo]) -> None:
    driver = FluentdDriver()
    assert (driver.readable, driver.log_path(info({}))) == (False, "")
    with pytest.raises(NotSupported):
        driver.read(info({}), LogQuery())

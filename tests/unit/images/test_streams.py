"""Streams between threads and the event loop: order, bounds, failures of either end."""

import asyncio
import threading

import pytest

from plugin_sdk.streams import Inlet, Outlet, apart


async def test_inlet_carries_all_bytes_and_holds_the_writer_back() -> None:
    inlet = Inlet(limit=1000)
    reading = asyncio.create_task(apart(inlet.read))
    for number in range(200):
        await inlet.aput(bytes([number]) * 100)
    inlet.end()
    assert await reading == b"".join(bytes([number]) * 100 for number in range(200))


async def test_inlet_reads_in_pieces() -> None:
    inlet = Inlet()
    inlet.put(b"abcdef")
    inlet.end()
    assert [inlet.read(4), inlet.read(4), inlet.read(4)] == [b"abcd", b"ef", b""]


async def test_a_failed_upload_is_not_a_short_one() -> None:
    inlet = Inlet()
    inlet.put(b"half")
    inlet.fail(ConnectionResetError("gone"))
    with pytest.raises(ConnectionResetError):
        await apart(inlet.read)


async def test_a_reader_that_leaves_stops_the_writer() -> None:
    inlet = Inlet(limit=10)
    inlet.put(b"x" * 10)
    waiting = asyncio.create_task(inlet.aput(b"y"))
    await asyncio.sleep(0)
    inlet.close()
    with pytest.raises(BrokenPipeError):
        await asyncio.wait_for(waiting, 5)


async def test_outlet_carries_all_bytes() -> None:
    async with Outlet(limit=1000) as outlet:

        def write() -> None:
            for number in range(200):
                outlet.write(bytes([number]) * 100)
            outlet.end()

        writing = asyncio.create_task(apart(write))
        assert b"".join([piece async for piece in outlet]) == b"".join(bytes([n]) * 100 for n in range(200))
        await writing


async def test_outlet_tells_of_the_writers_failure_after_what_it_wrote() -> None:
    async with Outlet() as outlet:
        outlet.write(b"part")
        outlet.end(ValueError("broken"))
        got = []
        with pytest.raises(ValueError, match="broken"):
            async for piece in outlet:
                got.append(piece)
        assert got == [b"part"]


async def test_a_client_that_leaves_stops_the_writing_thread() -> None:
    stopped = threading.Event()

    def write(outlet: Outlet) -> None:
        try:
            while True:
                outlet.write(b"x" * 100)
        except BrokenPipeError:
            stopped.set()

    async with Outlet(limit=1000) as outlet:
        writing = asyncio.create_task(apart(write, outlet))
        await asyncio.sleep(0.05)
    await asyncio.wait_for(writing, 5)
    assert stopped.is_set()


async def test_apart_raises_what_the_function_raised() -> None:
    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await apart(fail)

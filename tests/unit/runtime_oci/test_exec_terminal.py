"""Terminals that a runtime sends, whenever somebody comes to look."""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugins.runtime_oci.terminal import TerminalSocket


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    made.bind(str(tmp_path / "tty"))
    made.listen(1)
    yield made
    made.close()


def send(listener: socket.socket) -> tuple[int, int]:
    """What a runtime does, to the end of its connection; gives device and inode of what it sent."""
    reader, writer = os.pipe()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(listener.getsockname())
        connection.sendmsg([b"tty"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writer]))])
    facts = os.fstat(writer)
    os.close(reader)
    os.close(writer)
    return facts.st_dev, facts.st_ino


def identity(descriptor: int) -> tuple[int, int]:
    facts = os.fstat(descriptor)
    os.close(descriptor)
    return facts.st_dev, facts.st_ino


async def test_it_comes_by_the_event_loop(listener: socket.socket) -> None:
    waiting = TerminalSocket(listener)
    sent = send(listener)
    async with asyncio.timeout(5):
        assert identity(await waiting.arrived) == sent
    waiting.close()


async def test_it_is_taken_after_the_runtime_has_ended(listener: socket.socket) -> None:
    waiting = TerminalSocket(listener)
    sent = send(listener)
    assert waiting.take()  # the event loop has not run since
    assert identity(waiting.arrived.result()) == sent
    waiting.close()


async def test_a_runtime_that_sends_none(listener: socket.socket) -> None:
    waiting = TerminalSocket(listener)
    assert not waiting.take()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(listener.getsockname())
    assert not waiting.take()
    await asyncio.sleep(0.01)
    assert not waiting.arrived.done()
    waiting.close()


async def test_one_that_nobody_wants_is_closed(listener: socket.socket) -> None:
    waiting = TerminalSocket(listener)
    send(listener)
    assert waiting.take()
    waiting.refuse()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(waiting.arrived.result())
    waiting.close()

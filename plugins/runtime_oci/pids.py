"""Waiting for processes that are not our children."""

from __future__ import annotations

import asyncio
import os


async def ended(pid: int, timeout: float | None) -> bool:
    """Wait for the end of a process; False when it still lives after `timeout` seconds (None: for ever)."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, lambda: None if future.done() else future.set_result(None))
    try:
        async with asyncio.timeout(timeout):
            await future
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return True

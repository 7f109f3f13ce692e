"""One after the other for one container, all at once for different ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

from plugin_sdk import Conflict

DEADLINE = 90.0
"""Seconds that a change waits for the one before it."""


class Turns:
    """A turn for each key; keys that nobody holds or waits for are forgotten."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._interested: dict[str, int] = {}

    @asynccontextmanager
    async def alone(self, key: str) -> AsyncIterator[None]:
        """Wait for the turn. Raises Conflict when the one before does not end."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        self._interested[key] = self._interested.get(key, 0) + 1
        try:
            try:
                async with asyncio.timeout(DEADLINE):
                    await lock.acquire()
            except TimeoutError:
                raise Conflict(f"another change of container {key[:12]}'s networks does not end") from None
            try:
                yield
            finally:
                lock.release()
        finally:
            self._interested[key] -= 1
            if not self._interested[key]:
                del self._interested[key], self._locks[key]


async def all_of(*works: Awaitable[Any]) -> list[Any]:
    """Await all, to the end also when one fails; then raise the first failure."""
    results = await asyncio.gather(*works, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results

"""What awslogs and gcplogs have in common: libraries that are extras, and whose calls block."""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from plugin_sdk import InvalidParameter, Unavailable

T = TypeVar("T")

THREADS = 4
"""Calls under way at once. A service that hangs uses up these threads, and nobody else's."""
CALL_DEADLINE = 40.0
"""Seconds; longer than the libraries' own deadlines, which end the thread."""


def require(module: str, driver: str) -> None:
    """Raises InvalidParameter, naming the extra, when the library is not installed. Nothing is imported."""
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise InvalidParameter(
            f"log driver {driver} needs a library that is not installed here: pip install 'engine[{driver}]' for the "
            f"daemon's Python, then restart the daemon"
        )


class Calls:
    """Runs blocking calls in threads of its own, made when first needed."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """The call's result. Raises Unavailable when it takes longer than CALL_DEADLINE."""
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix=self._name)
        try:
            async with asyncio.timeout(CALL_DEADLINE):
                return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)
        except TimeoutError:
            raise Unavailable(f"{self._name}: no answer within {CALL_DEADLINE:g} s") from None

    def close(self) -> None:
        """Let go of the threads; what hangs is left behind."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

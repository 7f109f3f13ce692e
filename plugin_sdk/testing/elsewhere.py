"""Kits against the drivers of a running engine, from a thread with an event loop of its own.

A check may wait for a file system that a stranger's driver has mounted. The engine's loop must not: it only serves the calls of
drivers, which are handed over to it one by one.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from plugin_sdk.testing.kit import CLEANUP_DEADLINE, Kit, Result, Subject

PLAIN_SECONDS = 60.0
"""For a plain function of a driver, which the engine's loop runs."""
_END = object()


async def run(kit: Kit, subject: Subject[Any], only: Sequence[str] = ()) -> AsyncGenerator[Result, None]:
    """Like `Kit.run`. Closing the generator stops the run, and waits for its clean-up."""
    home = asyncio.get_running_loop()
    results: asyncio.Queue[Result | BaseException | None] = asyncio.Queue()
    worker = _Worker(kit, replace(subject, open=_handing_over(subject, home)), only)

    def tell(item: Result | BaseException | None) -> None:
        home.call_soon_threadsafe(results.put_nowait, item)

    thread = threading.Thread(target=worker.work, args=(tell,), name=f"verify-{kit.name}", daemon=True)
    thread.start()
    ended = False
    try:
        while (item := await results.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
        ended = True
    finally:
        if not ended:
            worker.stop()
            await asyncio.shield(asyncio.to_thread(thread.join, CLEANUP_DEADLINE))


class _Worker:
    """What the thread does."""

    def __init__(self, kit: Kit, subject: Subject[Any], only: Sequence[str]) -> None:
        self._kit, self._subject, self._only = kit, subject, only
        self._lock = threading.Lock()
        self._stopped = False
        self._task: asyncio.Task[None] | None = None

    def work(self, tell: Callable[[Result | BaseException | None], None]) -> None:
        """Run the kit; tells each result, what went wrong, and None at the end."""
        try:
            asyncio.run(self._run(tell))
        except asyncio.CancelledError:
            return  # nobody listens any more
        except BaseException as error:  # noqa: BLE001 - raised where the results are read
            tell(error)
        tell(None)

    async def _run(self, tell: Callable[[Result], None]) -> None:
        with self._lock:
            if self._stopped:
                return
            self._task = asyncio.current_task()
        async for result in self._kit.run(self._subject, self._only):
            tell(result)

    def stop(self) -> None:
        """Cancel it, from another thread."""
        with self._lock:
            self._stopped = True
            if self._task is not None:
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)


def _handing_over(subject: Subject[Any], home: asyncio.AbstractEventLoop) -> Callable[[Path], Any]:
    @asynccontextmanager
    async def opened(folder: Path) -> AsyncIterator[Any]:
        async with subject.open(folder) as driver:
            yield _There(driver, home)

    return opened


class _There:
    """An object of another loop: looks like it, and has its methods called there."""

    def __init__(self, target: Any, home: asyncio.AbstractEventLoop) -> None:
        self._target, self._home = target, home

    def __repr__(self) -> str:
        return repr(self._target)

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._target, name)
        if not callable(attribute):
            return attribute
        if inspect.iscoroutinefunction(attribute):

            async def awaited(*args: Any, **kwargs: Any) -> Any:
                return self._mine(await self._hop(attribute(*args, **kwargs)))

            return awaited

        def plain(*args: Any, **kwargs: Any) -> Any:
            done: Future[Any] = Future()
            self._home.call_soon_threadsafe(_settle, done, lambda: attribute(*args, **kwargs))
            return self._mine(done.result(PLAIN_SECONDS))

        return plain

    def __aiter__(self) -> _There:
        return self

    async def __anext__(self) -> Any:
        found = await self._hop(_next(self._target))
        if found is _END:
            raise StopAsyncIteration
        return found

    async def _hop(self, work: Any) -> Any:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._home))

    def _mine(self, answer: Any) -> Any:
        """Sinks, streams and iterators belong to their loop too; records do not."""
        lives = hasattr(type(answer), "__anext__") or any(
            inspect.iscoroutinefunction(getattr(type(answer), name, None)) for name in ("read", "write", "close")
        )
        return _There(answer, self._home) if lives else answer


async def _next(iterator: Any) -> Any:
    following: Awaitable[Any] = anext(iterator, _END)
    return await following


def _settle(done: Future[Any], call: Callable[[], Any]) -> None:
    try:
        done.set_result(call())
    except BaseException as error:  # noqa: BLE001 - carried over to the caller
        done.set_exception(error)

"""What stands between the engine and a plugin's code: deadlines, worker threads, attribution, counts.

An EngineError is an answer (a refusal in plain words) and passes through. Anything else that comes out of a plugin, a
missed deadline or a reply of the wrong type included, is a failure of that plugin and becomes a PluginError.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import perf_counter
from typing import Any

from kernel.contracts.plugin import HookStats
from kernel.errors import EngineError, PluginError

THREADS_PER_PLUGIN = 4
"""Plain functions of one plugin that can hang before its further calls queue up behind them, and nobody else's."""

OnFailure = Callable[[str, str, BaseException], None]
"""Told (plugin, call, what it raised) of every failure."""


class Threads:
    """A small pool of worker threads for each plugin, made when first needed."""

    def __init__(self) -> None:
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._lock = threading.Lock()

    async def run(self, plugin: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run in the plugin's pool."""
        with self._lock:
            pool = self._pools.get(plugin)
            if pool is None:
                pool = ThreadPoolExecutor(THREADS_PER_PLUGIN, thread_name_prefix=f"plugin-{plugin}")
                self._pools[plugin] = pool
        return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)

    def drop(self, plugin: str) -> None:
        """Let go of a plugin's pool; threads that hang are left behind."""
        with self._lock:
            pool = self._pools.pop(plugin, None)
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)


class _Resumed:
    """A coroutine that has run up to its first suspension, as an awaitable of the rest."""

    __slots__ = ("_coroutine", "_yielded")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], yielded: Any) -> None:
        self._coroutine, self._yielded = coroutine, yielded

    def __await__(self) -> Generator[Any, Any, Any]:
        yielded = self._yielded
        while True:
            try:
                sent = yield yielded
            except BaseException as error:  # noqa: BLE001 - handed on to the coroutine, as `await` would
                step = partial(self._coroutine.throw, error)
            else:
                step = partial(self._coroutine.send, sent)
            try:
                yielded = step()
            except StopIteration as stop:
                return stop.value


async def call(
    plugin: str,
    name: str,
    invoke: Callable[[], Awaitable[Any]],
    deadline: float,
    stats: HookStats,
    on_failure: OnFailure,
    check: Callable[[Any], str] | None = None,
) -> Any:
    """Await one call into a plugin.

    Args:
        invoke: makes the coroutine.
        deadline: seconds; the timer is only started for a call that really suspends.
        check: says what is wrong with the result, or "".

    Raises:
        EngineError: the plugin's answer.
        PluginError: its failure.
    """
    stats.calls += 1
    began = perf_counter()
    try:
        awaitable = invoke()
        if isinstance(awaitable, Coroutine):
            try:
                yielded = awaitable.send(None)
            except StopIteration as stop:
                result = stop.value
            else:
                result = await _timed(_Resumed(awaitable, yielded), deadline)
        else:
            result = await _timed(awaitable, deadline)
        if check is not None and (wrong := check(result)):
            raise TypeError(wrong)
        return result
    except EngineError:
        raise
    except Exception as error:
        stats.failures += 1
        on_failure(plugin, name, error)
        raise PluginError(plugin, name, _reason(error, deadline)) from error
    finally:
        took = perf_counter() - began
        stats.seconds += took
        stats.longest = max(stats.longest, took)


class _Late(Exception):
    """The deadline passed, as opposed to a TimeoutError of the plugin's own."""


async def _timed(awaitable: Awaitable[Any], deadline: float) -> Any:
    timer = asyncio.timeout(deadline)
    try:
        async with timer:
            return await awaitable
    except TimeoutError as error:
        if timer.expired():
            raise _Late from error
        raise


def call_sync(plugin: str, name: str, invoke: Callable[[], Any], stats: HookStats, on_failure: OnFailure) -> Any:
    """One plain call into a plugin: like `call`, without a deadline."""
    stats.calls += 1
    began = perf_counter()
    try:
        return invoke()
    except EngineError:
        raise
    except Exception as error:
        stats.failures += 1
        on_failure(plugin, name, error)
        raise PluginError(plugin, name, _reason(error, 0)) from error
    finally:
        took = perf_counter() - began
        stats.seconds += took
        stats.longest = max(stats.longest, took)


def _reason(error: BaseException, deadline: float) -> str:
    if isinstance(error, _Late):
        return f"no answer within {deadline:g} s"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__

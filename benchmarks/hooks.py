"""What the kernel adds to one hook call and to one driver call, in microseconds.

    python benchmarks/hooks.py [--calls 50000]

Hooks: three plugins whose implementations return at once, so that what is measured is the kernel's own time: the calling order, the
guard's clock and counts, deadlines, attribution. Drivers: one method behind its guard, the check of its result included.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from collections.abc import Awaitable, Callable
from time import perf_counter

from kernel import guard
from kernel.dispatch import Dispatcher
from kernel.drivers import DriverRegistry
from kernel.hookspecs import MODULES
from kernel.manager import HookManager
from plugin_sdk import DriverSpec, Plugin, hookimpl
from plugin_sdk.volumes import VolumeDriver

ROUNDS = 7


class Prompt(Plugin):
    """Implements a hook of each mode, and answers nothing."""

    @hookimpl
    async def engine_container_prepare(self, container: object, preparation: object) -> None:
        """See the specification."""

    @hookimpl
    async def engine_container_started(self, container: object) -> None:
        """See the specification."""

    @hookimpl
    def engine_info(self) -> None:
        """See the specification."""


class Nowhere:
    """A volume driver that does nothing."""

    async def path(self, name: str) -> str:
        """See the contract."""
        return "/nowhere"

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args: None


async def microseconds(calls: int, call: Callable[[], Awaitable[object]]) -> float:
    """Median over the rounds of one call's time."""
    rounds = []
    for _ in range(ROUNDS):
        began = perf_counter()
        for _ in range(calls):
            await call()
        rounds.append((perf_counter() - began) / calls * 1e6)
    return statistics.median(rounds)


async def main(calls: int) -> None:
    """Measure and print a table."""
    manager, threads = HookManager(), guard.Threads()
    for module in MODULES:
        manager.add_specifications(module)
    for name in ("one", "two", "three"):
        manager.register(type(name, (Prompt,), {})(), name)
    hooks = Dispatcher(manager, threads, lambda *failure: None)
    drivers = DriverRegistry(hooks, threads, lambda *failure: None)
    drivers.add("one", [DriverSpec(VolumeDriver, "nowhere", Nowhere())])
    driver = drivers.get(VolumeDriver, "nowhere")
    bare = Nowhere()

    async def sync() -> None:
        hooks.sync("engine_info")

    rows = {
        "all, three implementations": lambda: hooks.all("engine_container_prepare", container=None, preparation=None),
        "notify, three implementations": lambda: hooks.notify("engine_container_started", container=None),
        "sync, three implementations": sync,
        "driver, behind its guard": lambda: driver.path("x"),
        "driver, bare": lambda: bare.path("x"),
    }
    print("| call | µs |\n| --- | ---: |")
    for title, call in rows.items():
        print(f"| {title} | {await microseconds(calls, call):.2f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=50_000)
    asyncio.run(main(parser.parse_args().calls))

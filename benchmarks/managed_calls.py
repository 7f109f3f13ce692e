"""What the engine adds to one call of a managed plugin, in microseconds.

    python benchmarks/managed_calls.py [--calls 2000]

A plugin in a process of its own answers `VolumeDriver.Path` at once. The same exchange is measured three ways: bytes over a bare
socket, which is the plugin's own time and the kernel's; the engine's peer; and the volume driver behind its guard, as the volumes
plugin calls it. What the engine adds is the last less the first.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from kernel import guard
from kernel.dispatch import Dispatcher
from kernel.drivers import DriverRegistry
from kernel.hookspecs import MODULES
from kernel.managed.peer import Address, Peer, Places
from kernel.manager import HookManager
from plugin_sdk import DriverSpec, Wire
from plugin_sdk.volumes import VolumeDriver
from plugins.volumes.remote import RemoteDriver

ROUNDS = 7
PLUGIN = """
import socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen(64)
body = b'{"Mountpoint": "/nowhere", "Err": ""}'
answer = b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\nConnection: close\\r\\n\\r\\n" % len(body) + body
while True:
    client, _ = server.accept()
    data = b""
    while not data.endswith(b"}"):
        data += client.recv(4096)
    client.sendall(answer)
    client.close()
"""
REQUEST = (
    b'POST /VolumeDriver.Path HTTP/1.1\r\nHost: plugin\r\nContent-Length: 12\r\nConnection: close\r\n\r\n{"Name":"x"}'
)


class Reply(Wire):
    """Answer of `VolumeDriver.Path`."""

    Mountpoint: str = ""


def bare(path: str) -> None:
    """One exchange without the engine."""
    with socket.socket(socket.AF_UNIX) as wire:
        wire.connect(path)
        wire.sendall(REQUEST)
        while wire.recv(4096):
            pass


async def microseconds(calls: int, call: Callable[[], Awaitable[object]]) -> float:
    """Median over the rounds of one call's time."""
    rounds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(calls):
            await call()
        rounds.append((time.perf_counter() - began) / calls * 1e6)
    return statistics.median(rounds)


async def main(calls: int, path: Path) -> None:
    """Measure and print a table."""
    manager, threads = HookManager(), guard.Threads()
    for module in MODULES:
        manager.add_specifications(module)
    drivers = DriverRegistry(Dispatcher(manager, threads, lambda *failure: None), threads, lambda *failure: None)
    peer = Peer("bench", ["docker.volumedriver/1.0"], Address(path), Places((path.parent, "/shared")))
    remote = RemoteDriver(peer, "local")
    drivers.add("bench", [DriverSpec(VolumeDriver, "bench", remote)])
    driver = drivers.get(VolumeDriver, "bench")

    async def alone() -> None:
        bare(str(path))

    rows = {
        "bare exchange over the socket": alone,
        "the engine's peer": lambda: peer.call("VolumeDriver.Path", {"Name": "x"}, Reply, deadline=5),
        "the driver behind its guard": lambda: driver.path("x"),
    }
    taken = {title: await microseconds(calls, call) for title, call in rows.items()}
    print("| one call | µs |\n| --- | ---: |")
    for title, spent in taken.items():
        print(f"| {title} | {spent:.0f} |")
    first, *_, last = taken.values()
    print(f"| added by the engine | {last - first:.0f} |")
    await peer.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000)
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder, "plugin.sock")
        plugin = subprocess.Popen([sys.executable, "-c", PLUGIN, where])
        try:
            while not where.exists():
                time.sleep(0.01)
            time.sleep(0.1)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(main(parser.parse_args().calls, where))
        finally:
            plugin.kill()
            plugin.wait()

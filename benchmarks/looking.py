"""What it takes to look at containers: stats (one, all), ps and ps with sizes, inspect; side by side with a reference engine.

    python benchmarks/looking.py [--reference DOCKER_HOST] [--running 20] [--created 200] [--rounds 20]

Requests go straight to the sockets, so that no client's own time hides the engines'. Each is asked in turn on both sides; what is
printed is the median and the slowest in milliseconds, and the ratio of the medians. A single reading of the reference takes a
second or two by design (it waits for a second one), so that of it `one-shot` is asked for as well, which has nothing to compare with.
"""

from __future__ import annotations

import argparse
import http.client
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "tests"))

from harness import Engine  # noqa: E402

AIM = 50.0
"""Milliseconds within which a single reading of stats has to be there."""
SLOW_ROUNDS = 3
"""For requests that take seconds at the reference."""


class Side:
    """One engine, and the containers made in it.

    Attributes:
        milliseconds: request to its times.
    """

    def __init__(self, name: str, host: str) -> None:
        self.name, self.host = name, host
        self.prefix = f"looking-{os.getpid()}"
        self.milliseconds: dict[str, list[float]] = {}

    def docker(self, *args: str, input: bytes | None = None) -> str:
        """Run the client; raises CalledProcessError."""
        done = subprocess.run(
            ["docker", "-H", self.host, *args], input=input, check=True, capture_output=True, timeout=600
        )
        return done.stdout.decode()

    def fill(self, tar: Path, running: int, created: int) -> None:
        """Import the image and make the containers."""
        self.docker("import", str(tar), f"{self.prefix}:latest")
        for number in range(running):
            self.docker("run", "-d", "--name", f"{self.prefix}-{number}", f"{self.prefix}:latest", "sleep", "3600")
        for number in range(running, running + created):
            self.docker("create", "--name", f"{self.prefix}-{number}", f"{self.prefix}:latest", "true")

    def clear(self) -> None:
        """Remove what `fill` made."""
        names = self.docker("ps", "-aq", "-f", f"name={self.prefix}-").split()
        if names:
            self.docker("rm", "-f", *names)
        self.docker("rmi", "-f", f"{self.prefix}:latest")

    def ask(self, what: str, path: str) -> None:
        """One request, and how long it took until its last byte."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(self.host.removeprefix("unix://"))
            client = http.client.HTTPConnection("engine")
            client.sock = connection
            began = time.perf_counter()
            client.request("GET", path)
            answer = client.getresponse()
            answer.read()
            self.milliseconds.setdefault(what, []).append((time.perf_counter() - began) * 1000)
            if answer.status != 200:
                raise SystemExit(f"{self.name}: GET {path} gave {answer.status}")


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--reference", default="", metavar="DOCKER_HOST", help="another engine's socket (unix://)")
    options.add_argument("--running", type=int, default=20, help="running containers")
    options.add_argument("--created", type=int, default=200, help="containers that do not run")
    options.add_argument("--rounds", type=int, default=20)
    asked = options.parse_args()
    engine = Engine()
    tar = engine.root / "busybox.tar"
    sides = [Side("reference", asked.reference)] if asked.reference else []
    try:
        engine.start()
        subprocess.run([PROJECT / "scripts/busybox-rootfs", tar], check=True, timeout=60)
        sides.insert(0, Side("ours", engine.host))
        for side in sides:
            side.fill(tar, asked.running, asked.created)
        box = f"/containers/{sides[0].prefix}-0"
        requests = {
            "stats": (f"{box}/stats?stream=false", True),
            "stats one-shot": (f"{box}/stats?stream=false&one-shot=true", False),
            "inspect": (f"{box}/json", False),
            "inspect --size": (f"{box}/json?size=true", False),
            "ps": ("/containers/json", False),
            "ps -a": ("/containers/json?all=true", False),
            "ps -a -s": ("/containers/json?all=true&size=true", False),
        }
        for what, (path, slow) in requests.items():
            for _ in range(min(asked.rounds, SLOW_ROUNDS) if slow and len(sides) > 1 else asked.rounds):
                for side in sides:
                    side.ask(what, path)
        for _ in range(asked.rounds):
            sides[0].ask(f"stats of all {asked.running}", "/containers/stats?stream=false")
        report(sides)
    finally:
        for side in sides[1:]:
            side.clear()
        engine.destroy()


def report(sides: list[Side]) -> None:
    """A line for each request."""
    print(
        f"{'milliseconds':<22}"
        + "".join(f"{side.name + ' median':>18}{'slowest':>10}" for side in sides)
        + f"{'ratio':>8}"
    )
    for what, ours in sides[0].milliseconds.items():
        line = f"{what:<22}"
        for side in sides:
            found = side.milliseconds.get(what)
            line += f"{statistics.median(found):>18.1f}{max(found):>10.1f}" if found else " " * 28
        if len(sides) > 1 and what in sides[1].milliseconds:
            line += f"{statistics.median(ours) / statistics.median(sides[1].milliseconds[what]):>8.2f}"
        print(line)
    slowest = max(sides[0].milliseconds["stats"])
    print(f"a single reading of stats within {AIM:g} ms: {'yes' if slowest <= AIM else 'NO'} (slowest {slowest:.1f})")


if __name__ == "__main__":
    main()

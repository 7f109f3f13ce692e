"""Latencies of an engine as a user of the docker CLI feels them, side by side with a reference engine.

    python benchmarks/run_latency.py [--reference DOCKER_HOST] [--engine DOCKER_HOST] [--rounds 30]

Without --engine, our own is started here, in a network namespace, roots and a socket of its own. Both engines get the same busybox
image, and the same client asks them in turn, round by round in one run, so that whatever else the machine does hits both
alike. What counts is the median; the ratio is ours to the reference's.

Of the reference engine only the socket is used; it may live in other namespaces.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "tests"))

from harness import Client, Engine, eventually  # noqa: E402

AIMS = {"run": 0.4, "run --network none": 0.4, "exec": 0.5, "ps -a": 1.0}
"""Most that we may take of the reference's time."""
MOST_RESIDENT = 110.0
"""MiB, idle."""
MOST_START = 1.2
"""Seconds from the daemon's start to the first answer of its API."""
CREATED = 200
"""Containers that `ps -a` lists."""
WARM_UP = 3


@dataclass(slots=True)
class Side:
    """One engine under measurement.

    Attributes:
        env: of the client.
        seconds: what to its times.
    """

    name: str
    env: dict[str, str]
    box: str = ""
    created: list[str] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def docker(self, *args: str) -> str:
        """Run the client; raises CalledProcessError."""
        return subprocess.run(
            ["docker", *args], env=self.env, check=True, capture_output=True, text=True
        ).stdout.strip()

    def timed(self, what: str, args: Sequence[str], *, count: bool) -> None:
        """Run the client once, and note how long it took."""
        began = time.perf_counter()
        subprocess.run(["docker", *args], env=self.env, check=True, stdout=subprocess.DEVNULL)
        if count:
            self.seconds.setdefault(what, []).append(time.perf_counter() - began)

    def median(self, what: str) -> float:
        """Milliseconds."""
        return statistics.median(self.seconds[what]) * 1000


def measure(sides: Sequence[Side], what: str, args: Sequence[str], rounds: int) -> None:
    """Ask the sides in turn; the one that begins changes from round to round."""
    for number in range(WARM_UP + rounds):
        for side in sides if number % 2 else reversed(sides):
            filled = [side.box if part == "BOX" else part for part in args]
            side.timed(what, filled, count=number >= WARM_UP)


@contextlib.contextmanager
def furnished(side: Side, tar: Path) -> Iterator[None]:
    """With an image and a running container; removes what it brought."""
    image = f"engine-bench-{os.getpid()}:latest"
    side.docker("import", str(tar), image)
    try:
        side.box = side.docker("run", "-d", image, "sleep", "36000")
        side.created.append(side.box)
        yield
    finally:
        for begin in range(0, len(side.created), 50):
            side.docker("rm", "-f", *side.created[begin : begin + 50])
        side.docker("rmi", "-f", image)


def all_rounds(sides: Sequence[Side], rounds: int) -> None:
    """Every measurement, in the order of AIMS."""
    image = f"engine-bench-{os.getpid()}:latest"
    measure(sides, "run", ["run", "--rm", image, "true"], rounds)
    measure(sides, "run --network none", ["run", "--rm", "--network", "none", image, "true"], rounds)
    measure(sides, "exec", ["exec", "BOX", "true"], rounds)
    for side in sides:
        for _ in range(CREATED):
            side.created.append(side.docker("create", image, "true"))
    measure(sides, "ps -a", ["ps", "-a"], rounds)


def resident(pid: int) -> float:
    """MiB of a process and all its children."""
    total = 0.0
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError, AttributeError):
                status = (entry / "status").read_text()
                if int(entry.name) == pid or f"PPid:\t{pid}\n" in status:
                    total += int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024  # type: ignore[union-attr]
    return total


def starts(tries: int = 5) -> tuple[float, float]:
    """Median seconds from start to the first answer, and MiB that the idle daemon holds."""
    engine = Engine(debug=False)
    try:
        seconds = []
        for _ in range(tries):
            seconds.append(engine.start())
            eventually(lambda: "ready, listening" in engine.log())
            time.sleep(2)
            size = resident(engine.pid)
            engine.stop()
        return statistics.median(seconds), size
    finally:
        engine.destroy()


def table(ours: Side, reference: Side | None) -> list[dict[str, float | str]]:
    """One row for each measurement."""
    rows: list[dict[str, float | str]] = []
    for what, aim in AIMS.items():
        row: dict[str, float | str] = {"what": what, "ours": ours.median(what), "aim": aim}
        if reference:
            row |= {"reference": reference.median(what), "ratio": ours.median(what) / reference.median(what)}
        rows.append(row)
    return rows


def report(rows: Sequence[dict[str, float | str]], start: float, size: float) -> bool:
    """Print as Markdown; says whether all aims are met."""
    good = start <= MOST_START and size <= MOST_RESIDENT
    print("| what | ours, ms | reference, ms | ratio | aim |\n| --- | ---: | ---: | ---: | ---: |")
    for row in rows:
        line = f"| `{row['what']}` | {row['ours']:.0f} |"
        if "ratio" in row:
            line += f" {row['reference']:.0f} | {row['ratio']:.2f} | {row['aim']} |"
            good = good and float(row["ratio"]) <= float(row["aim"])
        else:
            line += f" | | {row['aim']} |"
        print(line)
    print(f"| start to first answer | {start * 1000:.0f} | | | {MOST_START * 1000:.0f} ms |")
    print(f"| resident memory, idle | {size:.0f} MiB | | | {MOST_RESIDENT:.0f} MiB |")
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", metavar="DOCKER_HOST", help="the engine to compare with")
    parser.add_argument("--engine", metavar="DOCKER_HOST", help="ours, when it runs already")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all times there, too")
    options = parser.parse_args()
    subprocess.run([PROJECT / "scripts/prepare-host"], check=True)

    start, size = starts()
    with contextlib.ExitStack() as stack:
        own: Engine | None = None
        if not options.engine:
            own = Engine(debug=False)
            stack.callback(own.destroy)
            own.start()
        client = Client(options.engine or own.host, None, Path("/nonexistent"))  # type: ignore[union-attr]
        sides = [Side("ours", client.env())]
        if options.reference:
            sides.append(Side("reference", Client(options.reference, None, Path("/nonexistent")).env()))
        tar = Path(f"/var/tmp/engine-bench-{os.getpid()}.tar")
        stack.callback(tar.unlink, missing_ok=True)
        subprocess.run([PROJECT / "scripts/busybox-rootfs", tar], check=True)
        for side in sides:
            stack.enter_context(furnished(side, tar))
        all_rounds(sides, options.rounds)
    rows = table(sides[0], sides[1] if len(sides) > 1 else None)
    if options.json:
        times = {side.name: side.seconds for side in sides}
        options.json.write_text(json.dumps({"rows": rows, "start": start, "resident": size, "times": times}, indent=1))
    return 0 if report(rows, start, size) else 1


if __name__ == "__main__":
    sys.exit(main())

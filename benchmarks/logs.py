"""Log throughput of an engine, from a container that writes as fast as it can to `docker logs`, beside a reference engine.

    python benchmarks/logs.py [--reference DOCKER_HOST] [--engine DOCKER_HOST] [--rounds 5] [--megabytes 100]
                              [--driver json-file]

Without --engine, our own is started here, in a network namespace, roots and a socket of its own. In each round both engines, in turn,
run the same static program, which writes numbered lines of 100 bytes with large writes, and are then asked:

    stored    from `docker run -d` until the container ended and its last line is in the driver's own file
    logs      `docker logs` of all of it, with the stock client, output to /dev/null
    api       the same without the client: one plain request on the socket, bytes counted
    follow    `docker run -d` and `docker logs -f` at once, to the end: from a container that writes to the client
    tail      `docker logs -n 10` of all of it
    cpu       seconds of CPU of the daemon for `stored`, and of the container's monitor or shim as far as it can be seen

What was shown is counted: a line lost or doubled ends the benchmark. The log has no bound (`max-size` above what is written), as
lines would be rotated away. What counts is the median; the ratio is ours to the reference's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "tests"))

from harness import Client, Engine  # noqa: E402

LINE = 100
AIM = 0.5
"""Most that we may take of the reference's time."""
TIMES = ("stored", "logs", "api", "follow", "tail", "cpu", "monitor")
AIMED = ("stored", "logs", "follow")
IMAGE = f"engine-bench-logs-{os.getpid()}:latest"

WRITER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define LINES 512
int main(int argc, char **argv) {
  static char text[LINES * 100 + 1];
  long total = argc > 1 ? atol(argv[1]) : 0;
  for (long done = 0; done < total;) {
    long now = total - done < LINES ? total - done : LINES;
    for (long k = 0; k < now; k++) {
      char *at = text + k * 100, number[16];
      memset(at, 'x', 99);
      memcpy(at, number, snprintf(number, sizeof number, "%010ld ", done + k));
      at[99] = '\n';
    }
    for (long at = 0; at < now * 100;) {
      long put = write(1, text + at, now * 100 - at);
      if (put <= 0) return 1;
      at += put;
    }
    done += now;
  }
  return 0;
}
"""


@dataclass(slots=True)
class Side:
    """One engine under measurement; `seconds` by what they were spent on."""

    name: str
    host: str
    env: dict[str, str]
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def docker(self, *args: str) -> str:
        """Run the client; raises CalledProcessError."""
        done = subprocess.run(["docker", *args], env=self.env, check=True, stdout=subprocess.PIPE, text=True)
        return done.stdout.strip()

    def connected(self) -> socket.socket:
        """The engine's socket."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(600)
        connection.connect(self.host.removeprefix("unix://"))
        return connection

    def daemon(self) -> int:
        """PID of whoever listens."""
        with self.connected() as connection:
            found: int = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
            return found

    def note(self, what: str, seconds: float) -> None:
        """Remember a time."""
        self.seconds.setdefault(what, []).append(seconds)

    def median(self, what: str) -> float:
        """Seconds."""
        return statistics.median(self.seconds[what])


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process used; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class MonitorCpu:
    """CPU of the process that holds a container's streams (conmon, containerd-shim), looked at until it is gone."""

    def __init__(self, container: str) -> None:
        self._id = container
        self.seconds = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """What was seen last."""
        self._over.set()
        self._thread.join()
        return self.seconds

    def _look(self) -> None:
        pid = 0
        while not self._over.wait(0.02):
            pid = pid or self._find()
            self.seconds = max(self.seconds, cpu_of(pid))

    def _find(self) -> int:
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    if self._id.encode() in words and (b"conmon" in words[0] or b"shim" in words[0]):
                        return int(entry.name)
        return 0


def stored(side: Side, lines: int, driver: str) -> str:
    """Run a container to its end; its ID, when its last line is in the driver's file."""
    pid = side.daemon()
    used, began = cpu_of(pid), time.perf_counter()
    container = side.docker("run", "-d", *options(lines, driver), IMAGE, "/writer", str(lines))
    monitor = MonitorCpu(container)
    side.docker("wait", container)
    path = Path(side.docker("inspect", "-f", "{{.LogPath}}", container)) if driver == "json-file" else None
    while path is not None and not ended(side, path, lines):
        time.sleep(0.01)
    side.note("stored", time.perf_counter() - began)
    side.note("cpu", cpu_of(pid) - used)
    side.note("monitor", monitor.stop())
    return container


def options(lines: int, driver: str) -> list[str]:
    """Of `docker run`."""
    bound = f"max-size={lines * LINE * 4 // 1024 // 1024 + 1}m"
    return ["--network", "none", "--log-driver", driver, "--log-opt", bound]


def ended(side: Side, path: Path, lines: int) -> bool:
    """The last line is in the file; of an engine with another root, its mount namespace's."""
    with contextlib.suppress(OSError), open(Path(f"/proc/{side.daemon()}/root") / path.relative_to("/"), "rb") as file:
        file.seek(-min(os.fstat(file.fileno()).st_size, 400), os.SEEK_END)
        return b"%010d x" % (lines - 1) in file.read()
    return False


def counted(side: Side, args: list[str], lines: int) -> float:
    """Run `docker logs` with its output counted by wc, then looked at; seconds."""
    with tempfile.TemporaryFile() as out:
        began = time.perf_counter()
        subprocess.run(["docker", *args], env=side.env, check=True, stdout=out)
        took = time.perf_counter() - began
        size = out.seek(0, os.SEEK_END)
        if size != lines * LINE:
            raise SystemExit(f"{side.name}: {' '.join(args)}: {size} bytes came instead of {lines * LINE}")
        out.seek(0)
        for number, line in enumerate(out):
            if int(line[:10]) != number:
                raise SystemExit(f"{side.name}: {' '.join(args)}: line {number} is {line!r}")
    return took


def timed_client(side: Side, args: list[str]) -> float:
    """Seconds of the client, with its output to nowhere."""
    began = time.perf_counter()
    subprocess.run(["docker", *args], env=side.env, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def timed_api(side: Side, container: str, lines: int) -> float:
    """Seconds of one plain request for the whole log."""
    began = time.perf_counter()
    size, buffer = 0, bytearray(1 << 20)
    with side.connected() as connection:
        connection.sendall(f"GET /v1.43/containers/{container}/logs?stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        last = b""
        while not last.endswith(b"\r\n0\r\n\r\n"):
            got = connection.recv_into(buffer)
            if not got:
                break
            size += got
            last = (last + buffer[max(0, got - 8) : got])[-8:]
    if size < lines * LINE:
        raise SystemExit(f"{side.name}: only {size} bytes came")
    return time.perf_counter() - began


def one_round(side: Side, lines: int, driver: str, *, check: bool) -> None:
    """Every measurement, once."""
    container = stored(side, lines, driver)
    try:
        if check:
            counted(side, ["logs", container], lines)
        side.note("logs", timed_client(side, ["logs", container]))
        side.note("api", timed_api(side, container, lines))
        side.note("tail", timed_client(side, ["logs", "-n", "10", container]))
    finally:
        side.docker("rm", "-f", container)
    began = time.perf_counter()
    container = side.docker("run", "-d", *options(lines, driver), IMAGE, "/writer", str(lines))
    try:
        if check:
            counted(side, ["logs", "-f", container], lines)
        else:
            timed_client(side, ["logs", "-f", container])
        side.note("follow", time.perf_counter() - began)
    finally:
        side.docker("rm", "-f", container)


@contextlib.contextmanager
def image(folder: Path) -> Iterator[Path]:
    """A tar with busybox and the writer."""
    tar, source, program = folder / "image.tar", folder / "writer.c", folder / "writer"
    source.write_text(WRITER)
    subprocess.run(["cc", "-O2", "-static", "-o", program, source], check=True)
    subprocess.run([PROJECT / "scripts/busybox-rootfs", tar], check=True)
    with tarfile.open(tar, "a") as archive:
        archive.add(program, "writer")
    yield tar


def report(ours: Side, reference: Side | None, megabytes: int) -> bool:
    """Print as Markdown; says whether the aims are met."""
    good = True
    print(
        "| what | ours, s | MB/s | reference, s | MB/s | ratio | aim |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    )
    for what in TIMES:
        mine = ours.median(what)
        speed = f"{megabytes / mine:.0f}" if mine and what in ("stored", "logs", "api", "follow") else ""
        line = f"| {what} | {mine:.2f} | {speed} |"
        if reference:
            theirs = reference.median(what)
            ratio = mine / theirs if theirs else float("nan")
            line += (
                f" {theirs:.2f} | {megabytes / theirs:.0f} | {ratio:.2f} |"
                if speed
                else f" {theirs:.2f} | | {ratio:.2f} |"
            )
            line += f" {AIM} |" if what in AIMED else " |"
            good = good and (what not in AIMED or ratio <= AIM)
        print(line)
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", metavar="DOCKER_HOST", help="the engine to compare with")
    parser.add_argument("--engine", metavar="DOCKER_HOST", help="ours, when it runs already")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--driver", default="json-file", choices=("json-file", "local"))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all times there, too")
    choice = parser.parse_args()
    subprocess.run([PROJECT / "scripts/prepare-host"], check=True)
    lines = choice.megabytes * 1_000_000 // LINE
    with contextlib.ExitStack() as stack:
        host = choice.engine
        if not host:
            own = Engine(debug=False)
            stack.callback(own.destroy)
            own.start()
            host = own.host
        sides = [Side("ours", host, Client(host, None, Path("/nonexistent")).env())]
        if choice.reference:
            env = Client(choice.reference, None, Path("/nonexistent")).env()
            sides.append(Side("reference", choice.reference, env))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp")))
        tar = stack.enter_context(image(folder))
        for side in sides:
            side.docker("import", str(tar), IMAGE)
            stack.callback(side.docker, "rmi", "-f", IMAGE)
        for number in range(choice.rounds + 1):
            for side in sides if number % 2 else reversed(sides):
                one_round(side, lines, choice.driver, check=number == 0)
            if number == 0:
                for side in sides:
                    side.seconds.clear()
    if choice.json:
        choice.json.write_text(json.dumps({side.name: side.seconds for side in sides}, indent=1))
    return 0 if report(sides[0], sides[1] if len(sides) > 1 else None, choice.megabytes) else 1


if __name__ == "__main__":
    sys.exit(main())

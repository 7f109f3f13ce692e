"""A real systemd-journald, started by hand as a journal namespace of its own.

with Journal() as journal:
    ... journald-namespace={journal.name} ...
    journal.entries(CONTAINER_NAME="web")
"""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

PROGRAM = "/lib/systemd/systemd-journald"
_CONFIG = """[Journal]
Storage=volatile
RateLimitIntervalSec=0
RateLimitBurst=0
RuntimeMaxUse=200M
LineMax=48K
ForwardToSyslog=no
ForwardToWall=no
"""


class Journal:
    """Runs from the beginning of the context to its end.

    Attributes:
        name: the namespace.
    """

    def __init__(self) -> None:
        self.name = f"test-{secrets.token_hex(4)}"
        self._sockets = Path(f"/run/systemd/journal.{self.name}")
        self._config = Path(f"/run/systemd/journald@{self.name}.conf.d/test.conf")
        machine = Path("/etc/machine-id").read_text().strip()
        self._files = Path(f"/run/log/journal/{machine}.{self.name}")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start; returns when it listens."""
        self._config.parent.mkdir(parents=True, exist_ok=True)
        self._config.write_text(_CONFIG)
        shutil.rmtree(self._sockets, ignore_errors=True)
        self._process = subprocess.Popen([PROGRAM, self.name], stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not (self._sockets / "socket").exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{PROGRAM} does not run")
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def entries(self, **fields: str) -> list[dict[str, Any]]:
        """Entries with these fields, in order; MESSAGE as bytes."""
        command = ["journalctl", "-D", str(self._files), "-o", "json", "--all", "--quiet"]
        done = subprocess.run(
            [*command, *(f"{name}={value}" for name, value in fields.items())],
            capture_output=True,
            timeout=30,
            check=False,
        )
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        for row in rows:
            message = row["MESSAGE"]
            row["MESSAGE"] = bytes(message) if isinstance(message, list) else message.encode()
        return rows

    def __enter__(self) -> Journal:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._config.parent, ignore_errors=True)
        shutil.rmtree(self._sockets, ignore_errors=True)
        shutil.rmtree(self._files, ignore_errors=True)

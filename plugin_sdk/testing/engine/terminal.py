"""A program on a pseudo-terminal of its own, as a person at a keyboard would use it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence


class Terminal:
    """A running program whose standard streams are a terminal.

    Attributes:
        text: all that it has printed so far, carriage returns removed.
    """

    def __init__(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, rows: int = 24, columns: int = 80
    ) -> None:
        self._master, slave = pty.openpty()
        self._size(slave, rows, columns)

        def take_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        try:
            self.process = subprocess.Popen(
                argv,
                stdin=slave,
                stdout=slave,
                stderr=slave,
                env=env,
                start_new_session=True,
                preexec_fn=take_terminal,  # noqa: PLW1509 - no threads in the tests
            )
        finally:
            os.close(slave)
        self.text = ""
        self._seen = 0

    @staticmethod
    def _size(descriptor: int, rows: int, columns: int) -> None:
        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, rows: int, columns: int) -> None:
        """Change the window's size; the program gets SIGWINCH."""
        self._size(self._master, rows, columns)

    def send(self, keys: str) -> None:
        """Type."""
        os.write(self._master, keys.encode())

    def expect(self, pattern: str, *, timeout: float = 15.0) -> re.Match[str]:
        """Wait until the output after the last match matches the regular expression.

        Raises:
            AssertionError: it did not in time, or the program ended before.
        """
        deadline = time.monotonic() + timeout
        while True:
            found = re.compile(pattern, re.MULTILINE).search(self.text, self._seen)
            if found:
                self._seen = found.end()
                return found
            left = deadline - time.monotonic()
            if left <= 0 or not self._read(left):
                raise AssertionError(f"no {pattern!r} on the terminal; it shows:\n{self.text[self._seen :]!r}")

    def _read(self, timeout: float) -> bool:
        """Read what is there; False at the end."""
        ready, _, _ = select.select([self._master], [], [], timeout)
        if not ready:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:
            return False  # EIO: nobody holds the other side any more
        self.text += data.decode(errors="replace").replace("\r", "")
        return bool(data)

    def wait(self, *, timeout: float = 15.0) -> int:
        """Read to the end; gives the exit code. Raises AssertionError when it does not end in time."""
        deadline = time.monotonic() + timeout
        while self.process.poll() is None and time.monotonic() < deadline:
            self._read(0.05)
        while select.select([self._master], [], [], 0)[0] and self._read(0):
            pass
        if self.process.returncode is None:
            raise AssertionError(f"still running after {timeout:g} s; the terminal shows:\n{self.text!r}")
        return self.process.returncode

    def close(self) -> None:
        """End the program, if it still runs, and the terminal."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
        with contextlib.suppress(OSError):
            os.close(self._master)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

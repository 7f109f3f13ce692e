"""The client's side of `engine run`: the container's streams on this terminal."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from plugin_sdk.stdcopy import Unframer

if TYPE_CHECKING:
    from docker import APIClient

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_CHUNK = 65536


class Session:
    """One container, started with its streams attached.

    Args:
        rm: the container removes itself; its exit code is asked for accordingly.
    """

    def __init__(self, client: APIClient, container_id: str, *, tty: bool, stdin: bool, rm: bool) -> None:
        self._client, self._id = client, container_id
        self._tty, self._stdin, self._rm = tty, stdin, rm

    def run(self) -> int:
        """Start, carry the streams until they end, and give the exit code. Raises docker.errors.APIError."""
        streams = {"stream": 1, "stdin": int(self._stdin), "stdout": 1, "stderr": 1}
        connection = self._client.attach_socket(self._id, streams)
        raw: socket.socket = getattr(connection, "_sock", connection)
        waiting = self._wait()
        self._client.start(self._id)
        raw.settimeout(None)
        with self._terminal(), self._signals():
            if self._stdin:
                threading.Thread(target=self._copy_in, args=(raw,), daemon=True).start()
            self._copy_out(raw)
            code = waiting.json()["StatusCode"]
        return int(code)

    def _wait(self) -> Any:
        # The answer's headers come before the start, its body after the end: no end can be missed.
        url = f"{self._client.base_url}/v{self._client.api_version}/containers/{self._id}/wait"
        condition = "removed" if self._rm else "next-exit"
        answer = self._client.post(url, params={"condition": condition}, stream=True, timeout=None)
        answer.raise_for_status()
        return answer

    def _copy_in(self, raw: socket.socket) -> None:
        while data := os.read(sys.stdin.fileno(), _CHUNK):
            try:
                raw.sendall(data)
            except OSError:
                return
        with contextlib.suppress(OSError):
            raw.shutdown(socket.SHUT_WR)

    def _copy_out(self, raw: socket.socket) -> None:
        frames = Unframer()
        while True:
            try:
                data = raw.recv(_CHUNK)
            except ConnectionError:
                return
            if not data:
                return
            for stream, payload in [(1, data)] if self._tty else frames.feed(data):
                target = sys.stderr.buffer if stream == 2 else sys.stdout.buffer
                target.write(payload)
                target.flush()

    @contextlib.contextmanager
    def _terminal(self) -> Iterator[None]:
        if not (self._tty and self._stdin and sys.stdin.isatty()):
            yield
            return
        self._resize()
        before = termios.tcgetattr(sys.stdin)
        signal.signal(signal.SIGWINCH, lambda *_: self._resize())
        tty.setraw(sys.stdin)
        try:
            yield
        finally:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)

    def _resize(self) -> None:
        from docker.errors import APIError

        size = shutil.get_terminal_size()
        with contextlib.suppress(APIError):
            self._client.resize(self._id, size.lines, size.columns)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        from docker.errors import APIError

        def forward(number: int, _: FrameType | None) -> None:
            with contextlib.suppress(APIError):
                self._client.kill(self._id, number)

        before = {number: signal.signal(number, forward) for number in _FORWARDED}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

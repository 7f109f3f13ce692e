"""Measures how long the event loop stood still, and says what it was doing."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback

from plugin_sdk.api import Stalls

BEAT = 0.1
"""Seconds between the loop's signs of life."""
STALL = 0.2
"""Seconds of standstill that are logged."""

log = logging.getLogger("engine.watchdog")


class Watchdog:
    """The loop beats; a thread looks at the beats, and at the loop's stack when one is late."""

    def __init__(self) -> None:
        self.stalls = Stalls()
        self._due = 0.0
        self._beat: asyncio.TimerHandle | None = None
        self._loop_thread = 0
        self._stack: list[str] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; call it on the loop's thread."""
        self._loop_thread = threading.get_ident()
        self._arm()
        self._thread = threading.Thread(target=self._watch, name="loop-watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        if self._beat is not None:
            self._beat.cancel()

    def _arm(self) -> None:
        self._due = time.monotonic() + BEAT
        self._beat = asyncio.get_running_loop().call_later(BEAT, self._alive)

    def _alive(self) -> None:
        late = time.monotonic() - self._due
        stack, self._stack = self._stack, []
        if late > self.stalls.longest:
            self.stalls.longest = late
            self.stalls.where = stack[-1].strip().replace("\n", ": ", 1) if stack else ""
        if late > STALL:
            self.stalls.count += 1
            log.warning(
                "the event loop stood still for %.0f ms%s",
                late * 1000,
                "; it was here:\n" + "".join(stack).rstrip() if stack else " (whatever it did held the interpreter)",
            )
        self._arm()

    def _watch(self) -> None:
        while not self._stop.wait(STALL / 2):
            if time.monotonic() - self._due > STALL / 2:
                frame = sys._current_frames().get(self._loop_thread)
                if frame is not None:
                    self._stack = traceback.format_stack(frame)

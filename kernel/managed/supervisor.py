"""Keeps one managed plugin running: start, readiness, restart with back-off, stop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from kernel.contracts.managed import ManagedPlugin, ManagedStatus, RunState
from kernel.contracts.runtime import Exit, OnExit
from kernel.errors import EngineError, Unavailable
from kernel.managed import output
from kernel.managed.peer import Peer
from kernel.managed.runner import Runner, World

BACKOFF = (0.1, 60.0)
"""Seconds before the first restart; they double, up to the second number."""
SETTLED = 10.0
"""Seconds after which a plugin that ran so long counts as running well: the back-off begins anew."""

log = logging.getLogger("engine.managed")


class Supervisor:
    """One plugin's process over its whole time in the daemon.

    Args:
        current: gives the plugin's record as it is now.

    Attributes:
        lock: held by whoever changes the plugin; never while one of its calls is awaited by others.
    """

    def __init__(self, world: World, plugin_id: str, current: Callable[[], ManagedPlugin]) -> None:
        self._world, self._current = world, current
        self.runner = Runner(world, plugin_id)
        self.lock = asyncio.Lock()
        self.peer: Peer | None = None
        self._state = RunState.STOPPED
        self._since = _now()
        self._last_error = ""
        self._restarts = 0
        self._delay = BACKOFF[0]
        self._began = 0.0
        self._ended: asyncio.Future[Exit] | None = None
        self._stopping = False
        self._teller: output.Teller | None = None
        self._restarting: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        if not current().Enabled:
            # An enabled one is about to be resumed: whoever asks before that waits.
            self._settled.set()

    def status(self) -> ManagedStatus:
        """See `ManagedPlugins.status`."""
        error = self._last_error or (self.peer.last_error if self.peer is not None else "")
        failures = self.peer.failures if self.peer is not None else 0
        return ManagedStatus(self._state, self.runner.pid, self._restarts, error, failures, self._since)

    async def start(self, deadline: float) -> None:
        """From stopped to ready. A failure leaves it stopped, with nothing behind.

        Raises:
            EngineError: why it does not get ready, with exit code and last output.
        """
        self._enter(RunState.STARTING)
        self._settled.clear()
        try:
            plugin = self._current()
            rootfs = await self._run(plugin)
            await self._connect(plugin, rootfs, deadline)
        except BaseException as error:
            self._last_error = str(error)
            await asyncio.shield(self._take_down(RunState.STOPPED))
            raise
        finally:
            self._settled.set()
        self._last_error = ""
        self._enter(RunState.READY)

    async def resume(self, deadline: float) -> None:
        """At the daemon's start: take over the process that runs, or start one; keep trying when it does not get ready."""
        plugin = self._current()
        self._enter(RunState.STARTING)
        self._settled.clear()
        try:
            rootfs = await self.runner.adopt(plugin, self._on_exit()) if self.runner.left_over() else None
            if rootfs is not None:
                await self._tell(plugin, at_end=True)
                self._began = time.monotonic()
                await self._connect(plugin, rootfs, deadline)
                self._enter(RunState.READY)
            else:
                await self.start(deadline)
        except EngineError as error:
            log.error("plugin %s does not get ready: %s", plugin.Name, error)
            self._last_error = str(error)
            await self._take_down(RunState.RESTARTING)
            self._schedule()
        finally:
            self._settled.set()

    async def stop(self) -> None:
        """To stopped, whatever it was. Idempotent."""
        self._enter(RunState.STOPPING)
        await self._take_down(RunState.STOPPED)

    async def leave(self) -> None:
        """The daemon stops: let go; the process goes on."""
        if self._restarting is not None:
            self._restarting.cancel()
        await self._hush()
        if self.peer is not None:
            await self._world.interfaces.disconnect(self.peer.name)
            await self.peer.close()

    async def reached(self, patience: float) -> Peer:
        """Its socket, once it is ready.

        Raises:
            Unavailable: it does not get ready in time, or it failed, and why.
        """
        name = self._current().Name
        try:
            async with asyncio.timeout(patience):
                await self._settled.wait()
        except TimeoutError:
            raise Unavailable(f"plugin {name!r} is still being started") from None
        if self.peer is None or self._state is RunState.STOPPED:
            raise Unavailable(f"plugin {name!r} does not run: {self._last_error or 'it was stopped'}")
        return self.peer

    # Parts

    def _enter(self, state: RunState) -> None:
        self._state, self._since = state, _now()

    def _on_exit(self) -> OnExit:
        ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._ended, self._stopping = ended, False

        async def on_exit(_: str, end: Exit) -> None:
            if not ended.done():
                ended.set_result(end)
            if self._ended is ended and not self._stopping and self._state is RunState.READY:
                self._lost(end)

        return on_exit

    async def _run(self, plugin: ManagedPlugin) -> Path:
        await self._hush()
        rootfs = await self.runner.start(plugin, self._on_exit())
        self._began = time.monotonic()
        await self._tell(plugin, at_end=False)
        return rootfs

    async def _tell(self, plugin: ManagedPlugin, *, at_end: bool) -> None:
        await self._hush()
        self._teller = output.Teller(self.runner.sites.output, plugin.Name, at_end=at_end)

    async def _hush(self) -> None:
        teller, self._teller = self._teller, None
        if teller is not None:
            await teller.close()

    async def _connect(self, plugin: ManagedPlugin, rootfs: Path, deadline: float) -> None:
        peer = self.runner.peer(plugin, rootfs)
        assert self._ended is not None
        if plugin.Config["Interface"]["Socket"]:
            await self.runner.wait_ready(peer, deadline, self._ended)
        if self.peer is not None:
            # Drivers hold on to the peer that they were made with.
            await peer.close()
            self.peer.come_back()
            peer = self.peer
        self.peer = peer
        await self._world.interfaces.connect(peer)

    def _lost(self, end: Exit) -> None:
        """The process has ended by itself."""
        name = self._current().Name
        self._last_error = f"it ended with exit code {end.code} and is being restarted"
        log.error("plugin %s has ended with exit code %d", name, end.code)
        self._enter(RunState.RESTARTING)
        if self.peer is not None:
            self.peer.leave(self._last_error)
        if time.monotonic() - self._began > SETTLED:
            self._delay = BACKOFF[0]
        self._schedule()

    def _schedule(self) -> None:
        self._restarting = asyncio.create_task(self._restart(), name=f"restart plugin {self.runner.id[:12]}")

    async def _restart(self) -> None:
        while True:
            delay, self._delay = self._delay, min(self._delay * 2, BACKOFF[1])
            await asyncio.sleep(delay)
            async with self.lock:
                if self._state is not RunState.RESTARTING:
                    return
                plugin = self._current()
                self._restarts += 1
                try:
                    rootfs = await self._run(plugin)
                    await self._connect(plugin, rootfs, plugin.Timeout)
                except EngineError as error:
                    log.error("plugin %s could not be started again: %s", plugin.Name, error)
                    self._last_error = str(error)
                    self._stopping = True
                    await self.runner.release(plugin)
                    continue
                self._last_error = ""
                self._enter(RunState.READY)
                assert self._ended is not None
                if self._ended.done():
                    self._lost(self._ended.result())
                return

    async def _take_down(self, state: RunState) -> None:
        self._stopping = True
        plugin = self._current()
        task, self._restarting = self._restarting, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
        peer, self.peer = self.peer, None
        await self._world.interfaces.disconnect(plugin.Name)
        ended = self._ended
        if ended is None:
            await self.runner.release(plugin)
        else:
            await self.runner.stop(plugin, ended)
        if peer is not None:
            await peer.close()
        await self._hush()
        self._enter(state)


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")

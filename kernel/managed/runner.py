"""One managed plugin's process: everything from its mounted root file system to the socket that answers, and back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kernel import sysmount
from kernel.contracts.containers import ContainerRecord, Preparation
from kernel.contracts.managed import ManagedPlugin
from kernel.contracts.network import Networks
from kernel.contracts.runtime import Exit, Launch, LogTarget, Running, Runtime, Runtimes
from kernel.errors import DeadlineExceeded, EngineError, Unavailable
from kernel.managed import guest, output, schema, secret_store
from kernel.managed.guest import Sites
from kernel.managed.peer import Address, Peer, Places

if TYPE_CHECKING:
    from kernel.context import Services
    from kernel.contracts.runtime import OnExit
    from kernel.drivers import DriverRegistry
    from kernel.managed.interfaces import Interfaces
    from kernel.managed.layers import Layers

STOP_SECONDS = 10.0
"""Seconds from SIGTERM to SIGKILL."""
GONE_SECONDS = 10.0
POLL = (0.005, 0.1)
"""Seconds between looks for the socket: at first, and at most."""
SOCKET_PATH = 107
"""Bytes that the path of a unix socket may have (unix(7))."""

log = logging.getLogger("engine.managed")


@dataclass(frozen=True, slots=True)
class World:
    """What runners work with."""

    services: Services
    drivers: DriverRegistry
    layers: Layers
    interfaces: Interfaces
    data: Path
    run: Path


class Runner:
    """Runs one plugin. Not for concurrent use: its supervisor lets one operation through at a time.

    Attributes:
        pid: of its first process on the host; 0 while it does not run.
    """

    def __init__(self, world: World, plugin_id: str) -> None:
        self._world = world
        self.id = plugin_id
        self.sites = Sites(world.data / plugin_id, world.run / plugin_id[:16])
        self.pid = 0
        self.record: ContainerRecord | None = None

    def runtime(self) -> Runtime:
        """Raises Unavailable when there is none."""
        chosen = self._world.services.find(Runtimes)
        if chosen is None:
            raise Unavailable("managed plugins need a runtime, and no enabled plugin provides Runtimes")
        return self._world.drivers.get(Runtime, chosen.default)

    def peer(self, plugin: ManagedPlugin, rootfs: Path) -> Peer:
        """Its socket, whether it answers or not. Raises InvalidParameter when the socket's path would be too long."""
        config = schema.model(plugin.Config)
        socket = self.sites.sockets / (config.Interface.Socket or "plugin.sock")
        if len(os.fsencode(socket)) > SOCKET_PATH:
            raise EngineError(
                f"plugin {plugin.Name}: the path {socket} is longer than the {SOCKET_PATH} bytes that a socket's may have:"
                " choose a shorter --exec-root"
            )
        propagated = (config.PropagatedMount, self.sites.propagated) if config.PropagatedMount else None
        places = Places((self.sites.shared, guest.SHARED_INSIDE), rootfs, propagated)
        return Peer(plugin.Name, [text.lower() for text in config.Interface.Types], Address(socket), places)

    async def start(self, plugin: ManagedPlugin, on_exit: OnExit) -> Path:
        """Start the process; gives its root file system. A failure leaves nothing behind.

        Raises:
            EngineError: the reason, in plain words.
        """
        runtime = self.runtime()
        await self.release(plugin)
        try:
            rootfs = await self._world.layers.mount(plugin)
            secrets = await asyncio.to_thread(self._make_ready, plugin)
            config = schema.model(plugin.Config)
            hidden = [
                f"{item.Name}={secrets[item.Name]}" for item in config.Env if item.Secret and item.Name in secrets
            ]
            chosen = self._world.services.find(Runtimes)
            assert chosen is not None
            record = guest.record(plugin, chosen.default, hidden)
            extra = await self._world.interfaces.mounts(config.Interface.Types)
            preparation = Preparation(self.sites.bundle, rootfs, [*guest.mounts(plugin, self.sites), *extra])
            networks = self._world.services.find(Networks)
            mode = guest.network_mode(config)
            if mode != "none":
                if networks is None and mode == "bridge":
                    raise Unavailable(f"plugin {plugin.Name} wants a network, and no enabled plugin provides Networks")
                if networks is not None:
                    await networks.lend(record, preparation)
            spec = await runtime.spec(record, preparation)
            guest.shape(plugin, spec)
            log_target = LogTarget(self.sites.output, output.MAX_SIZE)
            launch = Launch(plugin.Id, self.sites.bundle, spec, log=log_target)
            running = await runtime.create(launch, on_exit)
            await runtime.start(plugin.Id)
        except BaseException:
            await asyncio.shield(self.release(plugin))
            raise
        self.pid, self.record = running.pid, record
        return rootfs

    async def adopt(self, plugin: ManagedPlugin, on_exit: OnExit) -> Path | None:
        """After a restart of the daemon: its root file system when the process still runs, else None."""
        found = await self.runtime().adopt(plugin.Id, self.sites.bundle, on_exit)
        if not isinstance(found, Running):
            return None
        config = schema.model(plugin.Config)
        networks = self._world.services.find(Networks)
        if networks is not None and guest.network_mode(config) != "none":
            await networks.keep(plugin.Id)
        self.pid = found.pid
        self.record = guest.record(plugin, "", [])
        return await self._world.layers.mount(plugin)

    async def wait_ready(self, peer: Peer, deadline: float, ended: asyncio.Future[Exit]) -> None:
        """Until the socket takes connections.

        Raises:
            EngineError: the process has ended, or the time is over; with what it wrote last.
        """
        until = time.monotonic() + deadline
        pause = POLL[0]
        while True:
            if ended.done():
                raise EngineError(
                    f"plugin {peer.name!r} has ended with exit code {ended.result().code}{await self._words()}"
                )
            try:
                await peer.ping(min(1.0, deadline))
                return
            except EngineError:
                if time.monotonic() > until:
                    raise DeadlineExceeded(
                        f"plugin {peer.name!r} does not listen on its socket after {deadline:g} s{await self._words()}"
                    ) from None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await asyncio.shield(ended)
            pause = min(pause * 2, POLL[1])

    async def _words(self) -> str:
        words = await asyncio.to_thread(output.last_words, self.sites.output)
        return f"; its last output:\n{words}" if words else "; it wrote nothing"

    async def stop(self, plugin: ManagedPlugin, ended: asyncio.Future[Exit]) -> None:
        """SIGTERM, then SIGKILL, then give everything back. Idempotent; failures are logged."""
        try:
            runtime = self.runtime()
            for signal, seconds in ((15, STOP_SECONDS), (9, GONE_SECONDS)):
                if ended.done():
                    break
                await runtime.kill(plugin.Id, signal)
                await asyncio.wait([ended], timeout=seconds)
        except EngineError as error:
            log.debug("plugin %s: %s", plugin.Name, error)
        await self.release(plugin)

    async def release(self, plugin: ManagedPlugin) -> None:
        """Give back what a start took, whatever is there of it. Failures are logged."""
        self.pid = 0
        networks = self._world.services.find(Networks)
        steps = [
            ("its process", self.runtime().delete(plugin.Id)),
            ("its root file system", self._world.layers.unmount(plugin)),
            ("its folders", asyncio.to_thread(self._clear)),
        ]
        if networks is not None:
            steps.insert(1, ("its network", networks.take_back(plugin.Id)))
        for what, step in steps:
            try:
                await step
            except (EngineError, OSError) as error:
                log.warning("plugin %s: %s could not be given back: %s", plugin.Name, what, error)

    def left_over(self) -> bool:
        """A start left something."""
        return self.sites.run.exists()

    # Blocking parts

    def _make_ready(self, plugin: ManagedPlugin) -> dict[str, str]:
        config = schema.model(plugin.Config)
        sites, user = self.sites, config.User
        sites.data.mkdir(mode=0o711, parents=True, exist_ok=True)
        sites.run.mkdir(mode=0o711, parents=True, exist_ok=True)
        for folder in (sites.bundle, sites.sockets, sites.shared, sites.empty):
            folder.mkdir(mode=0o755, exist_ok=True)
        for folder in (sites.sockets, sites.shared):
            os.chown(folder, user.UID, user.GID)
        sites.output.unlink(missing_ok=True)
        if config.PropagatedMount:
            sites.propagated.mkdir(mode=0o755, exist_ok=True)
            if not sysmount.mounted(str(sites.propagated)):
                sysmount.mount(str(sites.propagated), str(sites.propagated), "", sysmount.MS_BIND | sysmount.MS_REC)
            sysmount.mount("", str(sites.propagated), "", sysmount.MS_SHARED | sysmount.MS_REC)
        secrets = secret_store.load(sites.data)
        if config.Secrets:
            sites.secrets.mkdir(mode=0o711, exist_ok=True)
            sysmount.mount(
                "tmpfs", str(sites.secrets), "tmpfs", sysmount.MS_NOSUID | sysmount.MS_NODEV, "mode=0711,size=1m"
            )
            for secret in config.Secrets:
                if secret.Name in secrets:
                    file = sites.secrets / secret.Name
                    file.touch(mode=0o400)
                    file.write_text(secrets[secret.Name])
                    os.chown(file, user.UID, user.GID)
        return secrets

    def _clear(self) -> None:
        if sysmount.mounted(str(self.sites.secrets)):
            sysmount.unmount(str(self.sites.secrets))
        shutil.rmtree(self.sites.run, ignore_errors=True)

    def clear_propagated(self) -> None:
        """Take off what the plugin mounted and the mount itself: when it is disabled or removed. Blocking."""
        base = os.path.realpath(self.sites.propagated)
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
            places = [re.sub(r"\\([0-7]{3})", lambda c: chr(int(c[1], 8)), line.split(" ", 5)[4]) for line in table]
        for place in sorted((p for p in places if p == base or p.startswith(base + "/")), key=len, reverse=True):
            sysmount.unmount(place)

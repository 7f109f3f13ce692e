"""The one assembly point: a Kernel is everything, from the state database to the running plugins."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import importlib.metadata
import logging
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kernel import guard
from kernel.config import Config
from kernel.context import Services
from kernel.contracts.api import ApiServer
from kernel.contracts.events import Event
from kernel.contracts.managed import ManagedPlugins
from kernel.contracts.plugin import EngineFacts, PluginAdmin
from kernel.discovery import Found
from kernel.dispatch import Dispatcher
from kernel.drivers import DriverRegistry
from kernel.entry import PluginSwitch
from kernel.errors import EngineError
from kernel.events import Bus
from kernel.hookspecs import MODULES
from kernel.journal import Journal
from kernel.lifecycle import KERNEL, Lifecycle, Parts
from kernel.managed.service import ManagedService
from kernel.managed.service import Parts as ManagedParts
from kernel.manager import HookManager
from kernel.state import Store
from kernel.state.store import PluginStore

WORKERS = 64
"""Threads for blocking work: enough that slow disks and namespaces do not wait for each other."""
EVENTS_WAITING = 4096
"""Events that may wait for `engine_event` before the oldest are dropped (and the log says so)."""

log = logging.getLogger("engine")


class Kernel:
    """One engine. Nothing is shared between two of them but the process."""

    def __init__(self, config: Config, found: Sequence[Found]) -> None:
        """Opens the state. Raises EngineError when it cannot be used."""
        settings = config.kernel
        for folder in (settings.data_root, settings.exec_root):
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.facts = EngineFacts(
            id=_identity(settings.data_root),
            version=importlib.metadata.version("engine"),
            data_root=settings.data_root,
            exec_root=settings.exec_root,
            started_ns=time.time_ns(),
            debug=settings.debug,
            config_file=config.file,
        )
        self.config = config
        self.store = Store(settings.data_root / "state.db")
        self.events = Bus(Journal(settings.data_root / "events"))
        self.services = Services()
        self.threads = guard.Threads()
        self.manager = HookManager()
        for module in MODULES:
            self.manager.add_specifications(module)
        self.hooks = Dispatcher(self.manager, self.threads, self._failed)
        self.drivers = DriverRegistry(self.hooks, self.threads, self._failed)
        self.plugins = Lifecycle(
            Parts(
                facts=self.facts,
                state=lambda name: PluginStore(self.store, name),
                switches=self.store.collection("kernel.switches", PluginSwitch, key=lambda switch: switch.name),
                events=self.events,
                manager=self.manager,
                hooks=self.hooks,
                drivers=self.drivers,
                services=self.services,
                threads=self.threads,
                settings=self._settings,
                configured=lambda name: bool(self.config.values.get(name)),
            ),
            found,
        )
        self.managed = ManagedService(
            ManagedParts(
                data_root=settings.data_root,
                exec_root=settings.exec_root,
                state=PluginStore(self.store, "kernel"),
                events=self.events,
                hooks=self.hooks,
                drivers=self.drivers,
                services=self.services,
                old_style=settings.plugin_dirs,
            )
        )
        self.services.provide(KERNEL, PluginAdmin, self.plugins)
        self.services.provide(KERNEL, ManagedPlugins, self.managed)
        self._outbox: asyncio.Queue[Event] = asyncio.Queue(EVENTS_WAITING)
        self._tasks: list[asyncio.Task[None]] = []

    def _settings(self, meta: object) -> object:
        return self.config.settings(meta)  # type: ignore[arg-type]

    def _failed(self, plugin: str, call: str, error: BaseException) -> None:
        self.plugins.failed(plugin, call, error)

    async def start(self) -> None:
        """Start the plugins, then restore. Raises EngineError when the engine cannot run."""
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(WORKERS, thread_name_prefix="worker"))
        self.events.listener = self._forward
        self._tasks.append(asyncio.create_task(self._tell(), name="kernel: engine_event"))
        await self.plugins.start_all()
        log.info("plugins have started")
        await self.managed.restore()
        await self.plugins.restore_all()
        server = self.services.find(ApiServer)
        addresses = server.addresses() if server is not None else []
        log.info("ready, listening on %s", ", ".join(addresses) or "nothing")
        await self.hooks.notify("engine_ready", addresses=addresses)
        # What lives now lives as long as the daemon: the collector need not look at it again in the middle of a request.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)

    async def reload(self, config: Config) -> None:
        """Take over what can change without a restart."""
        self.config = config
        await self.plugins.reload(self._settings)
        self.events.publish(Event("daemon", "reload", self.facts.id, {"name": os.uname().nodename}))

    async def stop(self) -> None:
        """Stop the plugins, and close the state. Containers go on."""
        self.events.close()
        await self.managed.stop()
        await self.plugins.stop_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.store.close()
        self.events.shut()

    def _forward(self, event: Event) -> None:
        if self._outbox.full():
            dropped = self._outbox.get_nowait()
            log.warning("engine_event is behind: %s %s of %s is not told", dropped.type, dropped.action, dropped.actor)
        self._outbox.put_nowait(event)

    async def _tell(self) -> None:
        while True:
            event = await self._outbox.get()
            if event.type == "plugin" and event.action == "enable":
                await self.managed.rewire()
            if self.manager.table("engine_event"):
                await self.hooks.notify("engine_event", event=event)


async def run(config: Config, found: Sequence[Found], again: Callable[[], Config]) -> None:
    """An engine from start to SIGTERM or SIGINT. SIGHUP reloads: `again` reads the configuration anew."""
    loop = asyncio.get_running_loop()
    kernel = Kernel(config, found)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)

    async def reload() -> None:
        try:
            await kernel.reload(again())
        except EngineError as error:
            log.error("the configuration stays as it was: %s", error)

    reloads: set[asyncio.Task[None]] = set()

    def hang_up() -> None:
        task = loop.create_task(reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, hang_up)
    starting = asyncio.create_task(kernel.start(), name="kernel: start")
    halted = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({starting, halted}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            await halted
        log.info("stopping")
    finally:
        for task in (starting, halted):
            task.cancel()
        await asyncio.gather(starting, halted, return_exceptions=True)
        await kernel.stop()


@contextlib.contextmanager
def alone(data_root: Path, pidfile: Path) -> Iterator[None]:
    """Hold the data root's lock and the PID file while the engine runs.

    Raises:
        EngineError: another process holds one of them; names it.
    """
    data_root.mkdir(mode=0o711, parents=True, exist_ok=True)
    lock = os.open(data_root / "engine.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EngineError(
                f"another engine uses the data root {data_root}; stop it, or choose another --data-root"
            ) from None
        if (other := _pid_in(pidfile)) is not None:
            raise EngineError(
                f"process with PID {other} is still running (PID file {pidfile}); stop it, or choose another --pidfile"
            )
        pidfile.parent.mkdir(parents=True, exist_ok=True)
        pidfile.write_text(f"{os.getpid()}\n")
        try:
            yield
        finally:
            pidfile.unlink(missing_ok=True)
    finally:
        os.close(lock)


def _pid_in(pidfile: Path) -> int | None:
    """The process of a PID file if it lives and is not this one; a zombie does not live."""
    try:
        pid = int(pidfile.read_text())
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    return pid if pid != os.getpid() and state != "Z" else None


def _identity(data_root: Path) -> str:
    path = data_root / "engine-id"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        identity = str(uuid.uuid4())
        path.write_text(identity + "\n")
        return identity

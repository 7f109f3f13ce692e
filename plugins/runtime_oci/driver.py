"""The driver of one runtime: fulfils `plugin_sdk.runtime.Runtime`."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from plugin_sdk import Conflict, EngineError
from plugin_sdk.aio import blocking
from plugin_sdk.containers import ContainerRecord, ExecSpec, Preparation, Resources
from plugin_sdk.runtime import (
    ContainerUsage,
    CpuUsage,
    ExecProcess,
    Exit,
    Launch,
    OciSpec,
    OnExit,
    OnOom,
    ProcessIO,
    Running,
    RuntimeDescription,
)
from plugins.runtime_oci import attach, cgroups, messages, monitor, process, starting, usage
from plugins.runtime_oci import spec as specs
from plugins.runtime_oci.binary import CRUN, Binary
from plugins.runtime_oci.checks import check_limits
from plugins.runtime_oci.execs import ExecFailed, ExecLauncher
from plugins.runtime_oci.host import HostFacts
from plugins.runtime_oci.lifting import lift, take_lifted
from plugins.runtime_oci.limits import oci_resources
from plugins.runtime_oci.live import CONFIG_FILE, LAUNCH_FILE, Live, Terms
from plugins.runtime_oci.migration import Readiness
from plugins.runtime_oci.namespaces import FindContainer
from plugins.runtime_oci.oom import OomWatch, killed_in_cgroup
from plugins.runtime_oci.pids import ended
from plugins.runtime_oci.seccomp_bpf import FilterCache
from plugins.runtime_oci.watch import FileWatch

log = logging.getLogger("engine.runtime_oci")

EXIT_FILE_DEADLINE = 10.0
"""Seconds after the end of a container in which a living monitor tells it."""
ABANDON_DEADLINE = 10.0
"""Seconds for a creation that nobody waits for any more; then it is killed."""
UNKNOWN_END = 255
"""Exit code of a container whose monitor was killed."""


@dataclass(slots=True)
class Shared:
    """What all runtimes of the plugin share.

    Attributes:
        conmon: path as configured.
        exits: where monitors write exit files.
        defaults: for specs; replaced as a whole when settings change.
    """

    conmon: str
    exits: FileWatch
    execs: ExecLauncher
    defaults: specs.SpecDefaults
    find: FindContainer
    groups: cgroups.Cgroups
    facts: HostFacts
    readiness: Readiness
    filters: FilterCache = field(default_factory=FilterCache)


class OciRuntime:
    """See the module."""

    def __init__(self, name: str, binary: Binary, shared: Shared) -> None:
        self.name = name
        self.binary = binary
        self._shared = shared
        self._live: dict[str, Live] = {}
        self._ooms = OomWatch()

    def expect(self) -> None:
        """See `Runtime`."""
        self._shared.readiness.soon()

    async def spec(self, container: ContainerRecord, preparation: Preparation) -> OciSpec:
        """See `Runtime`."""
        return await blocking(specs.build, container, preparation, self._shared.defaults, self._shared.find)

    # Beginning

    async def create(self, launch: Launch, on_exit: OnExit, on_oom: OnOom | None = None) -> Running:
        """See `Runtime`."""
        creating = asyncio.ensure_future(self._create(launch, on_exit, on_oom))
        try:
            return await asyncio.shield(creating)
        except asyncio.CancelledError:
            await asyncio.shield(self._abandon(creating, launch))
            raise

    async def _create(self, launch: Launch, on_exit: OnExit, on_oom: OnOom | None) -> Running:
        try:
            spawned = await blocking(self._spawn, launch)
            pid = await monitor.created(spawned, launch.bundle)
            monitor_pid = monitor.read_pid(launch.bundle / monitor.MONITOR_PID_FILE)
            live = Live(launch.id, launch.bundle, pid, monitor_pid, Terms.of(launch), on_exit, on_oom)
            live.plain_start = not launch.spec.get("hooks", {}).get("poststart")
            self._begin(live)
        except monitor.CreateFailed as error:
            await self._undo(launch)
            raise messages.failure(str(error), name=self.name, command=_command(launch.spec)) from None
        except BaseException:
            await asyncio.shield(self._undo(launch))
            raise
        return Running(pid, monitor_pid)

    async def _abandon(self, creating: asyncio.Future[Running], launch: Launch) -> None:
        """Nobody waits for the creation any more: let it come to its end, which is soon, and undo it."""
        await asyncio.wait([creating], timeout=ABANDON_DEADLINE)
        if not creating.done():
            creating.cancel()
        elif creating.exception() is None:
            await self._undo(launch)

    def _spawn(self, launch: Launch) -> monitor.Spawned:
        spec = launch.spec
        if launch.tty and all(launch.console):
            size = {"height": launch.console[0], "width": launch.console[1]}
            spec["process"]["consoleSize"] = size
        launch.bundle.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.binary.known.kind == CRUN:
            spec = self._shared.filters.apply(spec)
        (launch.bundle / CONFIG_FILE).write_bytes(orjson.dumps(spec))
        (launch.bundle / LAUNCH_FILE).write_text(Terms.of(launch).encode())
        self._shared.exits.remove_stale(launch.id)
        systemd = not spec["linux"].get("cgroupsPath", "/").startswith("/")
        argv = monitor.command(
            monitor.find_conmon(self._shared.conmon),
            self.binary.program(),
            self.binary.options(systemd=systemd),
            launch,
            self._shared.exits.folder,
        )
        return monitor.spawn(argv, launch.bundle)

    async def _undo(self, launch: Launch) -> None:
        """Nothing of a failed creation stays."""
        pid = monitor.read_pid(launch.bundle / monitor.MONITOR_PID_FILE)
        if launch.id not in self._live and monitor.is_monitor(pid, launch.id):
            _kill(pid)
        try:
            await self.delete(launch.id)
        except EngineError as error:
            log.warning("container %s: its failed creation left something: %s", launch.id[:12], error)
        # crun leaves the groups whose limits it could not write.
        await blocking(cgroups.remove, self._shared.groups, launch.spec["linux"].get("cgroupsPath", ""))

    def _begin(self, live: Live) -> None:
        self._live[live.id] = live
        try:
            live.watch(self._gone)
        except ProcessLookupError:
            self._gone(live)
        self._shared.exits.expect(live.id, lambda: self._told(live))
        if live.on_oom is not None and live.terms.memory_limited:
            self._ooms.expect(live.id, live.bundle, live.tell_oom)

    async def start(self, container_id: str) -> None:
        """See `Runtime`."""
        live = self._get(container_id)
        kind = (await self.binary.identify()).kind
        if live.plain_start and starting.by_fifo(kind, self.binary.root, container_id):
            return
        done = await blocking(self.binary.run, ["start", container_id])
        if done.code != 0:
            raise messages.failure(done.message, name=self.name, command=_command(await blocking(live.spec)))

    async def adopt(
        self, container_id: str, bundle: Path, on_exit: OnExit, on_oom: OnOom | None = None
    ) -> Running | Exit | None:
        """See `Runtime`. `on_exit` is not called for an Exit that is returned."""
        if (known := self._live.get(container_id)) is not None:
            return Running(known.pid, known.monitor_pid)
        if (end := await blocking(self._exit, container_id, bundle, 0)) is not None:
            return end
        pid = monitor.read_pid(bundle / monitor.PID_FILE)
        monitor_pid = monitor.read_pid(bundle / monitor.MONITOR_PID_FILE)
        watched = monitor.is_monitor(monitor_pid, container_id)
        parent = monitor.parent_of(pid) if pid else 0
        alive = parent == monitor_pid if watched else bool(parent) and self._is_ours(pid, container_id)
        if not alive and not watched:
            return None
        live = Live(container_id, bundle, pid, monitor_pid if watched else 0, Terms.load(bundle), on_exit, on_oom)
        if alive:
            self._begin(live)
            return Running(pid, live.monitor_pid)
        return await self._last_words(live)

    async def _last_words(self, live: Live) -> Exit | None:
        """The process has ended; its monitor is about to say how, or was killed while creating it."""
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._shared.exits.expect(live.id, lambda: None if told.done() else told.set_result(None))
        try:
            async with asyncio.timeout(EXIT_FILE_DEADLINE):
                await told
        except TimeoutError:
            _kill(live.monitor_pid)
        finally:
            self._shared.exits.forget(live.id)
        return await blocking(self._exit, live.id, live.bundle, 0)

    def _is_ours(self, pid: int, container_id: str) -> bool:
        """A container's process without its monitor: known by its cgroup, which is named after the container."""
        group = self._shared.groups.of(pid)
        return group is not None and container_id in str(group)

    # End

    def _told(self, live: Live) -> None:
        if not live.ending:
            live.ending = True
            asyncio.get_running_loop().create_task(self._end(live), name=f"end of {live.id[:12]}")

    def _gone(self, live: Live) -> None:
        """The first process has ended. The monitor tells how; if it was killed, nobody will."""

        async def wait() -> None:
            if monitor.is_monitor(live.monitor_pid, live.id):
                await ended(live.monitor_pid, None)
            self._told(live)

        asyncio.get_running_loop().create_task(wait(), name=f"monitor of {live.id[:12]}")

    async def _end(self, live: Live) -> None:
        self._shared.exits.forget(live.id)
        self._ooms.forget(live.id)
        end = self._exit(live.id, live.bundle, live.pid)
        if end is None:
            log.error("the monitor of container %s was killed: its exit code is unknown", live.id[:12])
            end = Exit(UNKNOWN_END, oom=False, finished_ns=time.time_ns())
        live.release()
        if self._live.get(live.id) is live:
            del self._live[live.id]
        try:
            await live.on_exit(live.id, end)
        except Exception:
            log.exception("container %s has ended with %d, and what follows failed", live.id[:12], end.code)

    def _exit(self, container_id: str, bundle: Path, pid: int) -> Exit | None:
        found = self._shared.exits.read(container_id)
        if found is None:
            return None
        code, when = found
        code = code if 0 <= code <= 255 else UNKNOWN_END
        oom = (bundle / monitor.OOM_FILE).exists()
        if not oom and code == 128 + signal.SIGKILL:
            # conmon may see the end before the kernel's message about memory.
            oom = killed_in_cgroup(self._shared.groups, bundle)
        return Exit(code, oom, when)

    async def delete(self, container_id: str) -> None:
        """See `Runtime`."""
        live = self._live.get(container_id)
        if live is not None:
            # Nobody is told: whoever deletes knows.
            live.ending = True
            live.signal(signal.SIGKILL)
        if (self.binary.root / container_id).exists():
            done = await blocking(self.binary.run, ["delete", "--force", container_id])
            if done.code != 0 and (self.binary.root / container_id).exists():
                raise EngineError(f"{self.name} cannot delete container {container_id}: {messages.plain(done.message)}")
        if live is not None:
            self._shared.exits.forget(container_id)
            self._ooms.forget(container_id)
            live.release()
            self._live.pop(container_id, None)
            await _monitor_end(live)
        self._shared.exits.remove(container_id)

    # Streams and processes

    async def attach(self, container_id: str) -> ProcessIO:
        """See `Runtime`."""
        live = self._get(container_id)
        async with live.attaching:
            if live.hub is None or live.hub.closed:
                connection = await attach.connect(live.bundle, container_id)
                terms = live.terms
                ends_input = terms.stdin and terms.stdin_once and not terms.tty
                live.hub = attach.Hub(connection, container_id[:12], stdin=terms.stdin, ends_input=ends_input)
            return live.hub.client()

    async def exec(self, container_id: str, exec_id: str, spec: ExecSpec, container: ContainerRecord) -> ExecProcess:
        """See `Runtime`."""
        live = self._get(container_id)
        if live.process is None:
            live.process = {"process": (await blocking(live.spec))["process"]}
        root = f"/proc/{live.pid}/root"
        if spec.user:
            made = await blocking(process.for_exec, live.process, container, spec, root)
        else:
            made = process.for_exec(live.process, container, spec, root)
        argv = [self.binary.program(), *self.binary.options()]
        try:
            return await self._shared.execs.launch(
                argv,
                container_id,
                exec_id,
                made,
                stdin=spec.stdin,
                sends_terminal=self.binary.known.kind == CRUN,
            )
        except ExecFailed as error:
            raise messages.failure(str(error), name=self.name, command=spec.argv[0], exec=True) from None

    async def kill(self, container_id: str, signal: int, *, all: bool = False) -> None:
        """See `Runtime`."""
        live = self._get(container_id)
        if all:
            for pid in await self.pids(container_id):
                _kill(pid, signal)
        elif not live.signal(signal):
            raise _not_running(container_id)

    async def pause(self, container_id: str) -> None:
        """See `Runtime`."""
        await self._command("pause", container_id)

    async def resume(self, container_id: str) -> None:
        """See `Runtime`."""
        await self._command("resume", container_id)

    async def resize(self, container_id: str, height: int, width: int) -> None:
        """See `Runtime`."""
        try:
            self._get(container_id).resize(height, width)
        except OSError:
            raise _not_running(container_id) from None

    async def update(self, container_id: str, resources: Resources) -> None:
        """See `Runtime`."""
        check_limits(resources, self._shared.facts)
        limits: dict[str, Any] = await blocking(oci_resources, resources)
        groups = self._shared.groups
        lifted = take_lifted(limits, v2=groups.v2)
        live = self._get(container_id)
        document = live.bundle / "resources.json"
        document.write_bytes(orjson.dumps(limits))
        await self._command("update", "--resources", str(document), container_id)
        try:
            lift(groups, live.pid, lifted)
        except OSError as error:
            raise EngineError(f"a limit of container {container_id} cannot be taken away: {error}") from None

    async def pids(self, container_id: str) -> Sequence[int]:
        """See `Runtime`."""
        live = self._get(container_id)
        group = self._shared.groups.of(live.pid)
        if group is None:
            raise _not_running(container_id)
        return sorted(cgroups.processes(group))

    async def usage(self, container_id: str) -> ContainerUsage:
        """See `Runtime`."""
        try:
            return await blocking(self._meter(self._get(container_id)).read)
        except OSError:
            raise _not_running(container_id) from None

    async def cpu_usage(self, container_ids: Sequence[str]) -> Mapping[str, CpuUsage]:
        """See `Runtime`."""
        found = {name: self._meter(live) for name in container_ids if (live := self._live.get(name)) is not None}
        return await blocking(usage.read_cpu, found)

    def _meter(self, live: Live) -> usage.Meter:
        if live.meter is None:
            live.meter = usage.Meter(self._shared.groups, live.pid, live.id)
        return live.meter

    async def _command(self, *command: str) -> None:
        self._get(command[-1])
        done = await blocking(self.binary.run, command)
        if done.code != 0:
            raise EngineError(f"{self.name} {command[0]} failed: {messages.plain(done.message)}")

    def _get(self, container_id: str) -> Live:
        live = self._live.get(container_id)
        if live is None or live.ending:
            raise _not_running(container_id)
        return live

    def describe(self) -> RuntimeDescription:
        """See `Runtime`."""
        known = self.binary.known
        return RuntimeDescription(
            name=self.name,
            path=self.binary.path,
            version=known.version,
            commit=known.commit,
            arguments=self.binary.arguments,
            facts={"kind": known.kind},
        )

    def release(self) -> None:
        """Let go of all containers; they go on."""
        for live in self._live.values():
            live.release()
        self._live.clear()
        self._ooms.close()
        self.binary.close()


def _not_running(container_id: str) -> Conflict:
    return Conflict(f"container {container_id} is not running")


def _command(spec: OciSpec) -> str:
    arguments = spec["process"].get("args") or [""]
    return str(arguments[0])


def _kill(pid: int, number: int = signal.SIGKILL) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


async def _monitor_end(live: Live) -> None:
    """A monitor ends with its container; one that does not is killed, lest it write an exit file later."""
    if monitor.is_monitor(live.monitor_pid, live.id) and not await ended(live.monitor_pid, EXIT_FILE_DEADLINE):
        _kill(live.monitor_pid)

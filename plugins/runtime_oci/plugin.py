"""Wiring: settings, drivers, hooks; what is done at start, restore and stop."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from plugin_sdk import DriverSpec, EngineError, InvalidParameter, NotFound, Plugin, PluginContext, PluginMeta, hookimpl
from plugin_sdk.aio import blocking
from plugin_sdk.containers import ContainerDraft, ContainerRecord, Containers, Preparation
from plugin_sdk.managed import ManagedPlugins
from plugin_sdk.runtime import Exit, Runtime, Runtimes
from plugins.runtime_oci import capabilities, cdi, cgroups, checks, host, mounts, remap, seccomp
from plugins.runtime_oci.driver import OciRuntime, Shared
from plugins.runtime_oci.execs import ExecLauncher
from plugins.runtime_oci.migration import Readiness, own_procs
from plugins.runtime_oci.runtimes import ALIASES, RuntimesService, binaries
from plugins.runtime_oci.settings import RuntimeSettings, read_profile
from plugins.runtime_oci.spec import SpecDefaults
from plugins.runtime_oci.watch import FileWatch

log = logging.getLogger("engine.runtime_oci")

DEADLINE = 300.0
"""Seconds that a call of the driver may take; the parts of it have deadlines of their own."""


class RuntimeOciPlugin(Plugin):
    """See the package."""

    meta = PluginMeta(
        name="runtime_oci",
        description="Runs containers with an OCI runtime (crun, runc, ...) under conmon",
        provides=(Runtimes,),
        drivers=(Runtime,),
        settings=RuntimeSettings,
    )

    def __init__(self) -> None:
        self._drivers: dict[str, OciRuntime] = {}
        self._shared: Shared | None = None

    async def start(self, ctx: PluginContext) -> None:
        """Find programs and hierarchies; nothing is executed here."""
        self._ctx = ctx
        settings: RuntimeSettings = ctx.settings
        self._settings = settings
        if settings.oom_score_adjust:
            _adjust_oom_score(settings.oom_score_adjust)
        programs = await blocking(binaries, settings, ctx.run)
        profile = await blocking(read_profile, settings.seccomp_profile)
        self._ids = await blocking(remap.read_remap, settings.userns_remap)
        groups = await blocking(cgroups.detect)
        facts = await blocking(host.look, groups)
        self._service = RuntimesService(next(iter(programs)), settings.init_path)
        self._check_parent(settings.cgroup_parent)
        exits, execs = FileWatch(ctx.run / "exits"), ExecLauncher(ctx.run / "execs")
        defaults = SpecDefaults(
            cgroup_parent=settings.cgroup_parent,
            systemd=settings.cgroup_driver == "systemd",
            ulimits=settings.default_ulimits,
            profile=profile,
            no_new_privileges=settings.no_new_privileges,
            init=settings.init,
            shm=self._shm,
            init_path=self._service.init_path,
            cdi_folders=settings.cdi_spec_dirs,
        )
        self._shared = Shared(
            settings.conmon, exits, execs, defaults, self._find, groups, facts, Readiness(own_procs())
        )
        exits.open()
        execs.open()
        for name, binary in programs.items():
            binary.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._drivers[name] = OciRuntime(name, binary, self._shared)
        ctx.provide(Runtimes, self._service)
        ctx.spawn(self._get_ready(self._shared), name="runtimes")

    async def _get_ready(self, shared: Shared) -> None:
        """Behind the start: what the programs are, the default one first, and the usual seccomp filter."""
        for driver in self._drivers.values():
            try:
                await driver.binary.identify()
            except EngineError as error:
                log.warning("runtime %s: %s", driver.name, error)
        if shared.defaults.profile is None and seccomp.supported():
            await blocking(shared.filters.encoded, seccomp.builtin(capabilities.DEFAULT))

    def _find(self, ref: str) -> ContainerRecord:
        return self._ctx.require(Containers).get(ref)

    def _shm(self, container_id: str) -> Path:
        return self._ctx.run / "shm" / container_id

    def _check_parent(self, parent: str) -> None:
        if parent and self._settings.cgroup_driver == "systemd" and not parent.endswith(".slice"):
            raise InvalidParameter('cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"')

    async def restore(self) -> None:
        """Remove what belongs to no container: one that was being created when the daemon was killed."""
        containers = self._ctx.find(Containers)
        if containers is None or self._shared is None:
            return
        known = {record.Id for record in containers.list()}
        managed = self._ctx.find(ManagedPlugins)
        if managed is not None:
            known |= {plugin.Id for plugin in managed.list()}
        for driver in self._drivers.values():
            for container_id in await blocking(_names, driver.binary.root):
                if container_id not in known:
                    log.info("removing container %s, which nobody knows any more", container_id[:12])
                    await driver.delete(container_id)
        for name in await blocking(_names, self._shared.exits.folder):
            if name not in known:
                self._shared.exits.remove(name)
        for name in await blocking(_names, self._ctx.run / "shm"):
            if name not in known:
                await blocking(mounts.unmount_shm, self._shm(name))

    async def stop(self) -> None:
        """Let go; containers go on."""
        for driver in self._drivers.values():
            driver.release()
        self._drivers.clear()
        if self._shared is not None:
            self._shared.exits.close()
            self._shared.execs.close()
            self._shared.readiness.close()
            self._shared = None

    @hookimpl
    def engine_drivers(self) -> Iterable[DriverSpec]:
        """One driver for each runtime."""
        return [DriverSpec(Runtime, name, driver, DEADLINE) for name, driver in self._drivers.items()]

    @hookimpl(order=10)
    async def engine_container_validate(self, draft: ContainerDraft) -> None:
        """Check the options that the runtime interprets, and fill in their defaults."""
        assert self._shared is not None
        settings, shared, asked = self._settings, self._shared, draft.host
        checks.check_options(asked)
        checks.check_limits(asked, shared.facts)
        self._check_parent(asked.CgroupParent)
        if asked.DeviceRequests:
            await blocking(cdi.find, cdi.wanted(asked.DeviceRequests), settings.cdi_spec_dirs)
        if self._ids is not None and asked.UsernsMode != "host":
            remap.check_remapped(asked)
            draft.ids = self._ids
        if (settings.init if asked.Init is None else asked.Init) and not asked.PidMode:
            await blocking(self._service.init_path)
        changed = checks.fit_limits(asked, shared.facts, v2=shared.groups.v2, warn=draft.warnings.append)
        changed["Runtime"] = await self._runtime_name(asked.Runtime)
        changed["ShmSize"] = asked.ShmSize or settings.default_shm_size
        changed["IpcMode"] = asked.IpcMode or settings.default_ipc_mode
        changed["CgroupnsMode"] = asked.CgroupnsMode or self._cgroupns_mode(asked.Privileged)
        if asked.Privileged or "host" in (asked.PidMode, asked.IpcMode):
            # As dockerd shows it: labels would keep such a container from what it is to reach.
            changed["SecurityOpt"] = [
                *asked.SecurityOpt,
                *(() if "label=disable" in asked.SecurityOpt else ("label=disable",)),
            ]
        if not asked.Privileged:
            if asked.MaskedPaths is None:
                changed["MaskedPaths"] = list(mounts.MASKED)
            if asked.ReadonlyPaths is None:
                changed["ReadonlyPaths"] = list(mounts.READ_ONLY)
        draft.host = asked.model_copy(update=changed)

    async def _runtime_name(self, asked: str) -> str:
        name = ALIASES.get(asked, asked) or self._service.default
        try:
            await self._ctx.drivers.find(Runtime, name)
        except NotFound:
            raise InvalidParameter(f"unknown or invalid runtime name: {asked}") from None
        return name

    def _cgroupns_mode(self, privileged: bool) -> str:
        assert self._shared is not None
        if not self._shared.facts.cgroup_namespaces or (privileged and not self._shared.groups.v2):
            return "host"
        return self._settings.default_cgroupns_mode or ("private" if self._shared.groups.v2 else "host")

    @hookimpl(order=10)
    async def engine_container_prepare(self, container: ContainerRecord, preparation: Preparation) -> None:
        """Mount the /dev/shm that other containers may share."""
        if container.HostConfig.IpcMode == "shareable":
            await blocking(mounts.mount_shm, self._shm(container.Id), container.HostConfig.ShmSize, container.Ids)

    @hookimpl(order=10)
    async def engine_container_release(self, container: ContainerRecord, exit: Exit | None) -> None:
        """Unmount it."""
        if container.HostConfig.IpcMode == "shareable":
            await blocking(mounts.unmount_shm, self._shm(container.Id))

    @hookimpl
    def engine_info(self) -> dict[str, Any]:
        """What containers can be given on this host, and the runtimes."""
        assert self._shared is not None
        shared, settings = self._shared, self._settings
        default = self._drivers[self._service.default].binary.known
        profile = settings.seccomp_profile or "builtin"
        return {
            **host.info(shared.facts, shared.groups, settings.cgroup_driver),
            "Runtimes": {
                **{name: _describe(driver) for name, driver in self._drivers.items()},
                "io.containerd.runc.v2": {"path": "runc"},
            },
            "DefaultRuntime": self._service.default,
            "RuncCommit": {"ID": default.commit or default.version, "Expected": default.commit or default.version},
            "CDISpecDirs": settings.cdi_spec_dirs,
            "InitBinary": settings.init_path or "docker-init",
            "SecurityOptions": host.security_options(
                profile,
                cgroupns=shared.groups.v2,
                no_new_privileges=settings.no_new_privileges,
                userns=self._ids is not None,
            ),
        }


def _describe(driver: OciRuntime) -> dict[str, Any]:
    described = {"path": driver.binary.path}
    return described | ({"runtimeArgs": list(driver.binary.arguments)} if driver.binary.arguments else {})


def _names(folder: Path) -> list[str]:
    """Entries of a folder but hidden ones; none when it is not there."""
    try:
        return [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    except FileNotFoundError:
        return []


def _adjust_oom_score(value: int) -> None:
    try:
        Path("/proc/self/oom_score_adj").write_text(str(value))
    except OSError as error:
        log.warning("--oom-score-adjust %d: %s", value, error.strerror)

"""Factories of our own drivers, for the conformance kits: `pytest --engine-driver=harness.drivers:overlay2`."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from plugins.logging.jsonfile import JsonFileDriver
from plugins.logging.local import LocalDriver as LocalLogs
from plugins.net_bridge.driver import BridgeDriver
from plugins.net_bridge.firewall import Firewall
from plugins.net_bridge.links import Links
from plugins.networks.ipam import DefaultIpam, NullIpam, parse_pools
from plugins.runtime_oci import cgroups, host
from plugins.runtime_oci.binary import Binary
from plugins.runtime_oci.driver import OciRuntime, Shared
from plugins.runtime_oci.execs import ExecLauncher
from plugins.runtime_oci.migration import Readiness, own_procs
from plugins.runtime_oci.spec import SpecDefaults
from plugins.runtime_oci.watch import FileWatch
from plugins.storage_overlay2.driver import Overlay2
from plugins.volumes.local import LocalDriver as LocalVolumes

log = logging.getLogger("test")


def local_volumes(folder: Path) -> LocalVolumes:
    return LocalVolumes(folder)


def json_file(folder: Path) -> JsonFileDriver:
    return JsonFileDriver()


def local_logs(folder: Path) -> LocalLogs:
    return LocalLogs()


def default_ipam(folder: Path) -> DefaultIpam:
    return DefaultIpam(parse_pools([]), ipaddress.IPv6Network("fd12:3456:789a::/48"), lambda subnet: "")


def null_ipam(folder: Path) -> NullIpam:
    return NullIpam()


@asynccontextmanager
async def overlay2(folder: Path) -> AsyncIterator[Overlay2]:
    behind: set[asyncio.Future[object]] = set()

    def spawn(work: object, name: str) -> None:
        behind.add(asyncio.ensure_future(work))  # type: ignore[arg-type]

    made = Overlay2(folder, log, spawn)
    made.open()
    await made.recover()
    yield made
    for task in behind:
        if not task.get_coro().__qualname__.endswith("_settle"):  # type: ignore[union-attr]
            await task
        task.cancel()


@asynccontextmanager
async def bridge(folder: Path) -> AsyncIterator[BridgeDriver]:
    """In a network namespace of the process's own: `unshare --net pytest ...`."""
    families = ["ip", "ip6"]
    identity = "0" * 32
    driver = BridgeDriver(
        Links(identity), Firewall(f"engine-{identity[:12]}", families), families, host_ip="", forward=False, log=log
    )
    if not (folder / "began").exists():  # a second driver on the folder is told by the kit what there is
        await driver.restore([], [])
        (folder / "began").touch()
    yield driver
    await driver.close()


@asynccontextmanager
async def _runtime(name: str, folder: Path) -> AsyncIterator[OciRuntime]:
    exits, execs = FileWatch(folder / "exits"), ExecLauncher(folder / "execs")
    exits.open()
    execs.open()
    binary = Binary(shutil.which(name) or name, folder / "state")
    binary.root.mkdir(exist_ok=True)
    groups = cgroups.detect()
    defaults = SpecDefaults(cgroup_parent="/engine-tests")

    def find(ref: str) -> object:
        raise KeyError(ref)

    facts = host.look(groups)
    shared = Shared("", exits, execs, defaults, find, groups, facts, Readiness(own_procs()))  # type: ignore[arg-type]
    driver = OciRuntime(name, binary, shared)
    await binary.identify()
    yield driver
    driver.release()
    exits.close()
    execs.close()
    shared.readiness.close()


def crun(folder: Path) -> object:
    return _runtime("crun", folder)


def runc(folder: Path) -> object:
    return _runtime("runc", folder)

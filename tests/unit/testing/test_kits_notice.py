"""Each claim of the kits for volumes, logs and IPAM can be broken, and its check notices; sound drivers hold all."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from plugin_sdk import NotFound
from plugin_sdk.logs import LogEntry, LogInfo, LogQuery
from plugin_sdk.network import Pool
from plugin_sdk.testing.kit import Kit, Outcome, Result
from plugin_sdk.testing.kits import ipam, log, volume
from plugin_sdk.testing.subjects import made_by
from plugin_sdk.volumes import DriverVolume

# Test files are imported by path (importlib mode), so a neighbour has to be as well.
_spec = importlib.util.spec_from_file_location("testing_sound", Path(__file__).with_name("sound.py"))
assert _spec is not None and _spec.loader is not None
sound = importlib.util.module_from_spec(_spec)
sys.modules["testing_sound"] = sound
_spec.loader.exec_module(sound)


class WrongScope(sound.Volumes):
    def scope(self) -> str:
        return "galactic"


class Forgetful(sound.Volumes):
    async def list(self) -> Sequence[DriverVolume]:
        return []


class ClearsOnCreate(sound.Volumes):
    async def create(self, name: str, options: Mapping[str, str]) -> None:
        await self.remove(name)
        await super().create(name, options)
        await super().mount(name, "again")


class FindsAll(sound.Volumes):
    async def get(self, name: str) -> DriverVolume:
        return DriverVolume(name)


class RefusesSecondRemove(sound.Volumes):
    async def remove(self, name: str) -> None:
        await self.get(name)
        await super().remove(name)


class LosesData(sound.Volumes):
    async def unmount(self, name: str, request: str) -> None:
        await super().unmount(name, request)
        for file in (self.kept / name).glob("*"):
            file.unlink()


class CountsByNumber(sound.Volumes):
    """The most common fault: a counter, where requests have to be told from each other."""

    async def mount(self, name: str, request: str) -> str:
        self.count = getattr(self, "count", 0) + 1
        return str(await super().mount(name, request))

    async def unmount(self, name: str, request: str) -> None:
        self.count = getattr(self, "count", 0) - 1
        if self.count <= 0:
            self.requests[name] = set()
            await super().unmount(name, request)


class RefusesUnknownUnmount(sound.Volumes):
    async def unmount(self, name: str, request: str) -> None:
        if request not in self.requests.get(name, ()):
            raise NotFound("never mounted")
        await super().unmount(name, request)


class RelativePath(sound.Volumes):
    async def path(self, name: str) -> str:
        return name


class OneForAll(sound.Volumes):
    async def mount(self, name: str, request: str) -> str:
        await super().mount(name, request)
        (self.seen / "all").mkdir(exist_ok=True)
        return str(self.seen / "all")


class KeepsContent(sound.Volumes):
    async def remove(self, name: str) -> None:
        if (self.kept / name).exists():
            (self.kept / name).rename(self.kept.parent / f"gone-{name}")

    async def create(self, name: str, options: Mapping[str, str]) -> None:
        gone = self.kept.parent / f"gone-{name}"
        if gone.exists():
            gone.rename(self.kept / name)
        await super().create(name, options)


class MakesBeforeItRefuses(sound.Volumes):
    async def create(self, name: str, options: Mapping[str, str]) -> None:
        (self.kept / name).mkdir(exist_ok=True)
        await super().create(name, options)


class OnlyInMemory(sound.Volumes):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.names: set[str] = set()

    async def create(self, name: str, options: Mapping[str, str]) -> None:
        await super().create(name, options)
        self.names.add(name)

    async def list(self) -> Sequence[DriverVolume]:
        return [each for each in await super().list() if each.name in self.names]


class NotReadableSaid(sound.Logs):
    readable = "yes"


class RefusesOptions(sound.Logs):
    def validate(self, options: Mapping[str, str]) -> None:
        raise NotFound("no options at all")


class TakesAnyOption(sound.Logs):
    def validate(self, options: Mapping[str, str]) -> None:
        return


class RelativeLogPath(sound.Logs):
    def log_path(self, info: LogInfo) -> str:
        return "log"


class _Refusing(sound.Sink):
    async def write(self, entries: Sequence[LogEntry]) -> None:
        if not entries:
            raise ValueError("nothing to write")


class RefusesNothing(sound.Logs):
    async def open(self, info: LogInfo) -> Any:
        return _Refusing(self.file(info))


class Reversed(sound.Logs):
    def entries(self, info: LogInfo) -> list[LogEntry]:
        return list(reversed(super().entries(info)))


class LosesPieces(sound.Logs):
    def entries(self, info: LogInfo) -> list[LogEntry]:
        return [LogEntry(each.time_ns, each.stream, each.line) for each in super().entries(info)]


class _Buffering(sound.Sink):
    held: list[LogEntry]

    async def write(self, entries: Sequence[LogEntry]) -> None:
        self.held = [*getattr(self, "held", []), *entries]

    async def close(self) -> None:
        await super().write(getattr(self, "held", []))


class Buffers(sound.Logs):
    async def open(self, info: LogInfo) -> Any:
        return _Buffering(self.file(info))


class BeginsAnew(sound.Logs):
    async def open(self, info: LogInfo) -> Any:
        self.file(info).unlink(missing_ok=True)
        return await super().open(info)


class _Overlooking(sound.Logs):
    overlooked: Mapping[str, Any] = {}

    async def read(self, info: LogInfo, query: LogQuery) -> AsyncIterator[Sequence[LogEntry]]:
        import dataclasses

        async for batch in super().read(info, dataclasses.replace(query, **self.overlooked)):
            yield batch


class NoTail(_Overlooking):
    overlooked = {"tail": -1}


class NoBounds(_Overlooking):
    overlooked = {"until_ns": 0}


class BothStreams(_Overlooking):
    overlooked = {"stdout": True, "stderr": True}


class OneFile(sound.Logs):
    def file(self, info: LogInfo) -> Path:
        return self.folder / "all"


class KeepsLogs(sound.Logs):
    async def remove(self, info: LogInfo) -> None:
        return


class AnotherSubnet(sound.Ipam):
    async def request_pool(self, subnet: str, ip_range: str, options: Mapping[str, str], *, v6: bool = False) -> Pool:
        return Pool("x", "10.0.0.0/8")


class SamePool(sound.Ipam):
    def choose(self, v6: bool) -> Any:
        return super().choose(v6) if v6 else sound.ipaddress.ip_network("10.77.0.0/24")

    def refuse_overlap(self, net: Any) -> None:
        return


class NoVersion6(sound.Ipam):
    def choose(self, v6: bool) -> Any:
        return super().choose(False)


class AllowsOverlap(sound.Ipam):
    def refuse_overlap(self, net: Any) -> None:
        return


class KeepsPools(sound.Ipam):
    async def release_pool(self, pool_id: str) -> None:
        return


class SameAddress(sound.Ipam):
    async def request_address(self, pool_id: str, address: str, options: Mapping[str, str]) -> str:
        self.used[pool_id] = set()
        return str(await super().request_address(pool_id, address, options))


class NoPrefix(sound.Ipam):
    async def request_address(self, pool_id: str, address: str, options: Mapping[str, str]) -> str:
        return str(await super().request_address(pool_id, address, options)).partition("/")[0]


class Twice(sound.Ipam):
    async def request_address(self, pool_id: str, address: str, options: Mapping[str, str]) -> str:
        if address:
            return f"{address}/{self.pools[pool_id][0].prefixlen}"
        return str(await super().request_address(pool_id, address, options))


class NoGateway(sound.Ipam):
    async def request_address(self, pool_id: str, address: str, options: Mapping[str, str]) -> str:
        return str(await super().request_address(pool_id, "" if options else address, {})).replace(".1/", ".9/")


class RunsOver(sound.Ipam):
    async def request_address(self, pool_id: str, address: str, options: Mapping[str, str]) -> str:
        try:
            return str(await super().request_address(pool_id, address, options))
        except sound.Unavailable:
            self.used[pool_id] = set()
            return str(await super().request_address(pool_id, address, options))


class KeepsAddresses(sound.Ipam):
    async def release_address(self, pool_id: str, address: str) -> None:
        return


class NoRange(sound.Ipam):
    async def request_pool(self, subnet: str, ip_range: str, options: Mapping[str, str], *, v6: bool = False) -> Any:
        return await super().request_pool(subnet, "", options, v6=v6)


class NoRestore(sound.Ipam):
    async def restore(self, pools: Any, addresses: Any) -> None:
        await super().restore(pools, {})


BREAKS: dict[str, dict[str, type[Any]]] = {
    "VolumeDriver": {
        "scope": WrongScope,
        "created-volume-is-known": Forgetful,
        "create-again": ClearsOnCreate,
        "get-unknown": FindsAll,
        "remove": RefusesSecondRemove,
        "data-stays": LosesData,
        "mounts-are-counted-by-request": CountsByNumber,
        "unmount-unknown": RefusesUnknownUnmount,
        "path": RelativePath,
        "volumes-are-apart": OneForAll,
        "content-goes": KeepsContent,
        "refused-options-leave-nothing": MakesBeforeItRefuses,
        "at-the-same-time": OneForAll,
        "restart": OnlyInMemory,
    },
    "LogDriver": {
        "readable": NotReadableSaid,
        "own-options": RefusesOptions,
        "unknown-option": TakesAnyOption,
        "log-path": RelativeLogPath,
        "write": RefusesNothing,
        "read-back": Reversed,
        "pieces": LosesPieces,
        "written-is-kept": Buffers,
        "open-again": BeginsAnew,
        "tail": NoTail,
        "since-and-until": NoBounds,
        "streams": BothStreams,
        "containers-are-apart": OneFile,
        "remove": KeepsLogs,
    },
    "IpamDriver": {
        "pool-asked-for": AnotherSubnet,
        "chosen-pools-are-apart": SamePool,
        "pool-of-version-6": NoVersion6,
        "overlap-is-refused": AllowsOverlap,
        "release-pool": KeepsPools,
        "addresses-differ": SameAddress,
        "address-asked-for": Twice,
        "gateway": NoGateway,
        "used-up": RunsOver,
        "release-address": KeepsAddresses,
        "ip-range": NoRange,
        "restore": NoRestore,
    },
}
KITS = {kit.name: (kit, driver) for kit, driver in (
    (volume.KIT, sound.Volumes), (log.KIT, sound.Logs), (ipam.KIT, sound.Ipam))}  # fmt: skip


def _with_folder(driver: type[Any]) -> Callable[[Path], Any]:
    def factory(folder: Path) -> Any:
        return driver() if issubclass(driver, sound.Ipam) else driver(folder)

    return factory


async def tried(kit: Kit, driver: type[Any], check: str) -> Result:
    (found,) = [each async for each in kit.run(made_by(_with_folder(driver), kit), [check])]
    return found


CASES = [(name, check) for name, breaks in BREAKS.items() for check in breaks]


@pytest.mark.parametrize(("name", "check"), CASES)
async def test_a_broken_claim_is_noticed(name: str, check: str) -> None:
    kit, _ = KITS[name]
    result = await tried(kit, BREAKS[name][check], check)
    assert result.outcome is Outcome.BROKEN, result
    assert "expected" in result.detail and "got" in result.detail
    assert result.says.startswith(("VolumeDriver", "LogDriver", "LogSink", "LogQuery", "LogEntry", "IpamDriver"))


@pytest.mark.parametrize("name", KITS)
def test_every_claim_can_be_broken(name: str) -> None:
    assert [check.name for check in KITS[name][0].checks] == list(BREAKS[name])


@pytest.mark.parametrize("name", KITS)
async def test_a_sound_driver_holds_all(name: str) -> None:
    kit, driver = KITS[name]
    results = [each async for each in kit.run(made_by(_with_folder(driver), kit))]
    assert [each for each in results if each.outcome is not Outcome.HOLDS] == []


async def test_a_prefix_is_asked_for_too() -> None:
    result = await tried(ipam.KIT, NoPrefix, "addresses-differ")
    assert "expected an address/24" in result.detail

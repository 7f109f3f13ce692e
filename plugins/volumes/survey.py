"""What is seen of the volumes of all drivers, without ever waiting long for one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from plugin_sdk import EngineError, NotFound, PluginContext
from plugin_sdk.volumes import DriverVolume, VolumeDriver, VolumeRecord

from .local import LocalDriver
from .service import VolumeService

LISTING_DEADLINE = 1.2
"""Seconds that one driver may take to tell of its volumes before a listing goes on without it: all of them are asked at the
same time, and the whole listing is to take less than two."""
LOOK_DEADLINE = 5.0
"""The same for one volume that somebody asks for."""

Seen = tuple[VolumeRecord, DriverVolume]


@dataclass(slots=True)
class _Told:
    """One driver's answer."""

    volumes: dict[str, DriverVolume] = field(default_factory=dict)
    scope: str = "local"
    problem: str = ""


class Survey:
    """Asks the drivers, for reads."""

    def __init__(self, ctx: PluginContext, volumes: VolumeService, local: LocalDriver) -> None:
        self._ctx, self._volumes, self._local = ctx, volumes, local

    async def all(self) -> tuple[list[Seen], list[str]]:
        """All volumes of all drivers, and a warning for each driver that cannot tell of its own now."""
        own = {record.Name: record for record in self._volumes.list()}
        names = sorted(set(self._foreign()) | {record.Driver for record in own.values() if record.Driver != "local"})
        told = dict(zip(names, await asyncio.gather(*map(self._ask, names)), strict=True))
        found: list[Seen] = []
        for record in own.values():
            if record.Driver == "local":
                found.append((record, DriverVolume(record.Name, str(self._local.data(record.Name)))))
                continue
            answer = told[record.Driver]
            found.append((record, answer.volumes.get(record.Name) or _unknown(record.Name, answer.problem)))
        for driver, answer in told.items():
            found += [
                (_stranger(driver, answer.scope, volume), volume)
                for name, volume in answer.volumes.items()
                if name not in own
            ]
        return sorted(found, key=lambda pair: pair[0].Name), [one.problem for one in told.values() if one.problem]

    async def look(self, name: str) -> Seen:
        """A volume with what its driver says of it; one that only a driver knows is found too.

        A driver that cannot be asked does not hide the volume: its `Status` then has the reason under "Error".

        Raises NotFound.
        """
        record = self._volumes.find(name)
        if record is None:
            return await self._look_around(name)
        if record.Driver == "local":
            return record, DriverVolume(name, str(self._local.data(name)), record.CreatedAt)
        try:
            async with asyncio.timeout(LOOK_DEADLINE):
                driver = await self._volumes.driver_of(record)
                return record, await driver.get(name)
        except TimeoutError:
            return record, _unknown(name, _late(record.Driver, LOOK_DEADLINE))
        except EngineError as error:
            return record, _unknown(name, f"volume driver {record.Driver}: {error}")

    async def _look_around(self, name: str) -> Seen:
        names = self._foreign()
        problems: list[str] = []
        for driver, answer in zip(names, await asyncio.gather(*(self._get(one, name) for one in names)), strict=True):
            if name in answer.volumes:
                volume = answer.volumes[name]
                return _stranger(driver, answer.scope, volume), volume
            if answer.problem:
                problems.append(answer.problem)
        raise NotFound("; ".join([f"get {name}: no such volume", *problems]))

    async def _ask(self, name: str) -> _Told:
        try:
            async with asyncio.timeout(LISTING_DEADLINE):
                driver = await self._volumes.driver(name)
                return _Told({volume.name: volume for volume in await driver.list()}, driver.scope())
        except TimeoutError:
            return _Told(problem=f"{_late(name, LISTING_DEADLINE)}: its volumes may be missing")
        except EngineError as error:
            return _Told(problem=f"volume driver {name}: {error}")

    async def _get(self, driver_name: str, name: str) -> _Told:
        try:
            async with asyncio.timeout(LISTING_DEADLINE):
                driver = self._ctx.drivers.get(VolumeDriver, driver_name)
                return _Told({name: await driver.get(name)}, driver.scope())
        except NotFound:
            return _Told()
        except TimeoutError:
            return _Told(problem=_late(driver_name, LISTING_DEADLINE))
        except EngineError as error:
            return _Told(problem=f"volume driver {driver_name}: {error}")

    def _foreign(self) -> Sequence[str]:
        return [name for name in self._ctx.drivers.all(VolumeDriver) if name != "local"]


def _late(driver: str, seconds: float) -> str:
    return f"volume driver {driver} did not answer within {seconds:g} s"


def _unknown(name: str, problem: str) -> DriverVolume:
    return DriverVolume(name, status={"Error": problem} if problem else {})


def _stranger(driver: str, scope: str, volume: DriverVolume) -> VolumeRecord:
    return VolumeRecord(Name=volume.name, Driver=driver, CreatedAt=volume.created_at, Scope=scope)

"""The kit of `VolumeDriver`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from kernel.contracts.volumes import DriverVolume, VolumeDriver
from kernel.errors import EngineError, NotFound, PluginError
from plugin_sdk.aio import blocking
from plugin_sdk.testing.kit import Bench, Broken, DoesNotApply, Kit


class VolumeBench(Bench[VolumeDriver]):
    """Makes volumes and mounts, and takes them back."""

    async def volume(self, name: str = "") -> str:
        """A new volume; gives its name."""
        name = name or self.unique()
        self.later(f"remove volume {name}", lambda: self.driver.remove(name))
        await self.fine("create", self.driver.create(name, self.options))
        return name

    async def mounted(self, name: str, request: str = "") -> Path:
        """Mount it; gives the mount point, which must be a folder of the host."""
        request = request or self.unique("request")
        self.later(f"unmount {name}", lambda: self._unmounted(name, request))
        point = await self.fine("mount", self.driver.mount(name, request))
        self.expect(point.startswith("/"), "mount to give an absolute path on the host", point)
        self.expect(await blocking(os.path.isdir, point), "mount to give a folder of the host", point)
        return Path(point)

    async def _unmounted(self, name: str, request: str) -> None:
        try:
            await self.driver.unmount(name, request)
        except EngineError:
            if name in await self.listed():  # of a volume that is gone, a driver need not know the mounts
                raise

    async def listed(self) -> dict[str, DriverVolume]:
        """What `list` tells, by name."""
        found = await self.driver.list()
        names = [volume.name for volume in found]
        self.equal(sorted(set(names)), sorted(names), "each volume to be listed once: the names")
        return {volume.name: volume for volume in found}


KIT = Kit("VolumeDriver", VolumeDriver, VolumeBench)


@KIT.check("scope is local or global", says=VolumeDriver.scope)
async def scope(bench: VolumeBench) -> None:
    said = bench.driver.scope()
    bench.expect(said in ("local", "global"), 'scope to be "local" or "global"', said)


@KIT.check("a created volume is there, under its name", says=VolumeDriver.get)
async def created_volume_is_known(bench: VolumeBench) -> None:
    name = await bench.volume()
    bench.equal((await bench.driver.get(name)).name, name, "get to give the name")
    bench.expect(name in await bench.listed(), f"list to name {name}", sorted(await bench.listed()))


@KIT.check("creating an existing volume with the same options changes nothing", says=VolumeDriver.create)
async def create_again(bench: VolumeBench) -> None:
    name = await bench.volume()
    point = await bench.mounted(name)
    await blocking((point / "kept").write_bytes, b"1")
    await bench.fine("creating an existing volume again", bench.driver.create(name, bench.options))
    bench.expect(await blocking((point / "kept").exists), "its content to stay", "an empty volume")
    bench.expect(name in await bench.listed(), "it to be listed once", sorted(await bench.listed()))


@KIT.check("get of a volume that does not exist raises NotFound", says=VolumeDriver.get)
async def get_unknown(bench: VolumeBench) -> None:
    await bench.refused("get of an unknown volume", bench.driver.get(bench.unique()), NotFound)


@KIT.check("a removed volume is gone, and removing it again is fine", says=VolumeDriver.remove)
async def remove(bench: VolumeBench) -> None:
    name = await bench.volume()
    await bench.twice("remove", lambda: bench.driver.remove(name))
    await bench.refused("get of a removed volume", bench.driver.get(name), NotFound)
    bench.expect(name not in await bench.listed(), "list to leave a removed volume out", name)
    await bench.fine("removing a volume that never was", bench.driver.remove(bench.unique()))


@KIT.check("what is written under the mount point is there at the next mount", says=VolumeDriver.mount)
async def data_stays(bench: VolumeBench) -> None:
    name = await bench.volume()
    first = bench.unique("request")
    point = await bench.mounted(name, first)
    await blocking((point / "file").write_bytes, b"content")
    await bench.fine("unmount", bench.driver.unmount(name, first))
    again = await bench.mounted(name) / "file"
    bench.expect(await blocking(again.is_file), f"{again} to be there again", "no such file")
    bench.equal(await blocking(again.read_bytes), b"content", "the content")


@KIT.check("a mount of one request outlives the unmount of another, however often that comes", says=VolumeDriver.mount)
async def mounts_are_counted_by_request(bench: VolumeBench) -> None:
    name = await bench.volume()
    one, two = bench.unique("request"), bench.unique("request")
    point = await bench.mounted(name, one)
    await blocking((point / "file").write_bytes, b"content")
    other = await bench.mounted(name, two)
    for _ in range(2):
        await bench.fine("unmount", bench.driver.unmount(name, one))
    bench.expect(
        await blocking((other / "file").is_file),
        f"the mount of {two} to stay while only {one} was unmounted (twice)",
        f"nothing at {other / 'file'}",
    )


@KIT.check("unmount of an unknown request is fine", says=VolumeDriver.unmount)
async def unmount_unknown(bench: VolumeBench) -> None:
    name = await bench.volume()
    await bench.fine("unmount of an unknown request", bench.driver.unmount(name, bench.unique("request")))
    request = bench.unique("request")
    await bench.mounted(name, request)
    await bench.twice("unmount", lambda: bench.driver.unmount(name, request))


@KIT.check("path is the mount point while mounted, and an absolute path or empty otherwise", says=VolumeDriver.path)
async def path(bench: VolumeBench) -> None:
    name = await bench.volume()
    before = await bench.driver.path(name)
    bench.expect(before == "" or before.startswith("/"), 'path to be absolute, or "" while not mounted', before)
    point = await bench.mounted(name)
    bench.equal(await bench.driver.path(name), str(point), "path of a mounted volume")


@KIT.check("volumes do not see each other's content", says=VolumeDriver.mount)
async def volumes_are_apart(bench: VolumeBench) -> None:
    one, two = await bench.mounted(await bench.volume()), await bench.mounted(await bench.volume())
    await blocking((one / "file").write_bytes, b"one")
    bench.expect(not await blocking((two / "file").exists), "the other volume to stay empty", sorted(os.listdir(two)))


@KIT.check("a volume's content goes with it", says=VolumeDriver.remove)
async def content_goes(bench: VolumeBench) -> None:
    name, request = await bench.volume(), bench.unique("request")
    point = await bench.mounted(name, request)
    await blocking((point / "file").write_bytes, b"old")
    await bench.driver.unmount(name, request)
    await bench.driver.remove(name)
    again = await bench.mounted(await bench.volume(name))
    bench.expect(not await blocking((again / "file").exists), "a new volume of that name to be empty", "the old file")


@KIT.check("an option that is refused leaves no volume behind", says=VolumeDriver.create)
async def refused_options_leave_nothing(bench: VolumeBench) -> None:
    name = bench.unique()
    bench.later(f"remove volume {name}", lambda: bench.driver.remove(name))
    try:
        await bench.driver.create(name, {**bench.options, "no-such-option-of-any-driver": "x"})
    except PluginError as error:
        raise Broken("an unknown option to be taken, or refused in plain words", f"{error}") from error
    except EngineError:
        await bench.refused("get of a volume that was refused", bench.driver.get(name), NotFound)
        return
    raise DoesNotApply("the driver takes any option")


@KIT.check("volumes can be created, mounted and removed at the same time", says=VolumeDriver.list)
async def at_the_same_time(bench: VolumeBench) -> None:
    names = await asyncio.gather(*(bench.volume() for _ in range(6)))
    points = await asyncio.gather(*(bench.mounted(name) for name in names))
    bench.equal(len(set(points)), len(names), "the number of different mount points")
    missing = set(names) - set(await bench.listed())
    bench.expect(not missing, "list to name all six", f"a list without {sorted(missing)}")


@KIT.check("volumes and their content survive a restart of the daemon", says=VolumeDriver.list)
async def restart(bench: VolumeBench) -> None:
    name, request = await bench.volume(), bench.unique("request")
    await blocking((await bench.mounted(name, request) / "file").write_bytes, b"content")
    await bench.driver.unmount(name, request)
    await bench.restart()
    bench.expect(name in await bench.listed(), f"list to name {name} after a restart", sorted(await bench.listed()))
    again = await bench.mounted(name) / "file"
    bench.expect(await blocking(again.is_file), "its content to be there after a restart", "no such file")

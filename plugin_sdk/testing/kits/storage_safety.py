"""The part of the storage kit that is about hostile archives: nothing outside the layer is touched, nothing is left."""

from __future__ import annotations

import io
import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from kernel.contracts.storage import StorageDriver
from kernel.errors import EngineError, InvalidParameter
from plugin_sdk.streams import Inlet
from plugin_sdk.testing import tars
from plugin_sdk.testing.kit import Broken
from plugin_sdk.testing.kits.storage import KIT, StorageBench
from plugin_sdk.testing.tars import FOLDER, HARD_LINK, SYMBOLIC_LINK, member, whiteout

UP = "../" * 40


def refused(outside: Path) -> Mapping[str, Sequence[bytes]]:
    """Archives that must be refused, by what is wrong with them."""
    return {
        "a path with ..": [member(f"{UP}{outside}/new")],
        "a path with .. inside": [member("a/" + UP + f"{outside}/new")],
        "a hard link to a file outside": [member("h", kind=HARD_LINK, link=f"{outside}/secret"), member("h", b"x")],
        "a hard link to a path with ..": [member("h", kind=HARD_LINK, link=f"{UP}{outside}/secret")],
        "a hard link through a link": [
            member("s", kind=SYMBOLIC_LINK, link=str(outside)),
            member("h", kind=HARD_LINK, link="s/secret"),
        ],
        "links in circles on the way": [
            member("a", kind=SYMBOLIC_LINK, link="b"),
            member("b", kind=SYMBOLIC_LINK, link="a"),
            member("a/f"),
        ],
        "a file used as a folder": [member("f", b"x"), member("f/g")],
        "a name that is too long": [member("n" * 300)],
    }


def contained(outside: Path) -> Mapping[str, Sequence[bytes]]:
    """Archives that may be refused or unpacked, so long as they stay inside."""
    link = str(outside)
    return {
        "files through a link": [member("s", kind=SYMBOLIC_LINK, link=link), member("s/new", b"x"), member("s/d/e")],
        "files through a relative link": [member("s", kind=SYMBOLIC_LINK, link=UP + link), member("s/new", b"x")],
        "an absolute path": [member(f"{outside}/new", b"x")],
        "whiteouts through a link": [
            member("s", kind=SYMBOLIC_LINK, link=link),
            whiteout("s/secret"),
            member("s/.wh..wh..opq"),
        ],
        "whiteouts that climb": [member("a/.wh..."), member(".wh..")],
        "a folder that becomes a link": [
            member("d/", kind=FOLDER),
            member("d/in"),
            member("d", kind=SYMBOLIC_LINK, link=link),
            member("d/new", b"x"),
        ],
        "a file over a link": [member("s", kind=SYMBOLIC_LINK, link=f"{link}/secret"), member("s", b"overwritten")],
        "a folder over a link": [
            member("s", kind=SYMBOLIC_LINK, link=link),
            member("s/", kind=FOLDER, mode=0o777, xattrs={"user.x": b"y"}),
        ],
    }


async def _unpack(
    bench: StorageBench, what: str, members: Sequence[bytes], outside: Path, *, must_refuse: bool
) -> None:
    known = bench.known()
    try:
        await bench.layer("", *members)
    except InvalidParameter:
        bench.equal(bench.known(), known, f"the layers after {what} was refused")
    else:
        bench.expect(not must_refuse, f"{what} to be refused with InvalidParameter", "a layer")
    secret = outside / "secret"
    bench.equal(sorted(os.listdir(outside)), ["secret"], f"the files outside after {what}")
    bench.equal((secret.read_bytes(), secret.stat().st_nlink), (b"untouched", 1), f"the file outside after {what}")
    what_is = outside.stat()
    got = (stat.S_IMODE(what_is.st_mode), what_is.st_uid, os.listxattr(outside))
    bench.equal(got, (0o700, os.getuid(), []), f"the folder outside after {what}")


def _outside(bench: StorageBench) -> Path:
    folder = bench.folder / "outside"
    folder.mkdir(mode=0o700)
    (folder / "secret").write_bytes(b"untouched")
    return folder


@KIT.check("archives that lead out of their layer are refused, and leave nothing", says=StorageDriver.apply)
async def hostile_archives(bench: StorageBench) -> None:
    outside = _outside(bench)
    for what, members in refused(outside).items():
        await _unpack(bench, what, members, outside, must_refuse=True)


@KIT.check("whatever an archive's links say, nothing outside its layer is touched", says=StorageDriver.apply)
async def links_stay_inside(bench: StorageBench) -> None:
    outside = _outside(bench)
    for what, members in contained(outside).items():
        await _unpack(bench, what, members, outside, must_refuse=False)


@KIT.check("what is no tar, or a cut one, is refused and leaves nothing", says=StorageDriver.apply)
async def broken_archives(bench: StorageBench) -> None:
    known = bench.known()
    cut = member("f", b"x" * 5000)[:3000]
    for what, raw in {"junk": b"junk" * 300, "a cut tar": cut, "a damaged header": member("a") + b"\xff" * 512}.items():
        try:
            info = await bench.driver.apply("", io.BytesIO(raw))
        except InvalidParameter:
            bench.equal(bench.known(), known, f"the layers after {what} was refused")
        else:
            await bench.driver.remove_layer(info.chain_id)
            raise Broken(f"{what} to be refused with InvalidParameter", info)


@KIT.check("an upload that breaks off leaves no layer", says=StorageDriver.apply)
async def broken_upload(bench: StorageBench) -> None:
    before, inlet = bench.known(), Inlet()
    inlet.put(member("f", b"x" * 1000)[:700])
    inlet.fail(EngineError("the client has gone"))
    await bench.refused("an upload that breaks off", bench.driver.apply("", inlet), EngineError)  # type: ignore[arg-type]
    bench.equal(bench.known(), before, "the layers")


@KIT.check("a container's links never lead commit, diff or usage to the host's files", says=StorageDriver.commit)
async def container_links(bench: StorageBench) -> None:
    outside = _outside(bench)
    name, root = await bench.root(await bench.stack((member("d/f"),)))
    os.symlink(outside, root / "link")
    shutil.rmtree(root / "d")
    os.symlink(outside, root / "d")
    held = tars.names(await bench.packed(name))
    bench.expect(not any("secret" in each for each in held), "no file of the host in the archive", sorted(held))
    await bench.driver.usage(name)
    found = [each.path for each in await bench.driver.changes(name)]
    bench.expect(not any("secret" in each for each in found), "no file of the host among the changes", found)

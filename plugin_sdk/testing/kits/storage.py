"""The kit of `StorageDriver`: what goes into layers and comes out of them. `storage_safety` has the hostile archives."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import stat
from pathlib import Path

from kernel.contracts.storage import ChangeKind, LayerInfo, StorageDriver
from kernel.errors import Conflict, EngineError, InvalidParameter, NotFound
from plugin_sdk.aio import blocking
from plugin_sdk.testing import tars
from plugin_sdk.testing.kit import Bench, Broken, Kit
from plugin_sdk.testing.tars import FOLDER, HARD_LINK, SYMBOLIC_LINK, member, opaque, whiteout

LAYER_SECONDS = 120.0


class StorageBench(Bench[StorageDriver]):
    """Makes layers and writable layers, and removes them, the uppermost first."""

    async def layer(self, parent: str, *members: bytes, sole: bool = True) -> LayerInfo:
        """A read-only layer. `sole`: with a file of its own, so that no other layer has its digest."""
        mark = [member(f".verify/{self.unique()}")] if sole else []
        info = await self.apply(parent, tars.archive(*members, *mark))
        return info

    async def apply(self, parent: str, raw: bytes, *, expected: str = "") -> LayerInfo:
        """`apply`; the layer is removed later."""
        before = {info.chain_id for info in self.driver.layers()}
        info = await self.driver.apply(parent, io.BytesIO(raw), expected=expected)
        if info.chain_id not in before:
            self.later(f"remove layer {info.chain_id[:19]}", lambda: self.driver.remove_layer(info.chain_id))
        return info

    async def stack(self, *layers: tuple[bytes, ...]) -> str:
        """Layers on each other; gives the chain ID."""
        chain = ""
        for members in layers:
            chain = (await self.layer(chain, *members)).chain_id
        return chain

    async def writable(self, parent: str) -> str:
        """A writable layer; gives its name."""
        name = self.unique()
        self.later(f"remove writable layer {name}", lambda: self.driver.remove(name))
        await self.fine("create", self.driver.create(name, parent))
        return name

    async def root(self, parent: str) -> tuple[str, Path]:
        """A mounted writable layer; gives its name and its root."""
        name = await self.writable(parent)
        root = await self.fine("mount", self.driver.mount(name))
        self.expect(await blocking(root.is_dir), "mount to give a folder", root)
        return name, root

    async def packed(self, name: str) -> bytes:
        """The tar that `diff` writes."""
        out = io.BytesIO()
        await self.fine("diff", self.driver.diff(name, out))
        return out.getvalue()

    async def commit(self, name: str) -> LayerInfo:
        """`commit`; the layer is removed later."""
        info = await self.fine("commit", self.driver.commit(name))
        self.later(f"remove layer {info.chain_id[:19]}", lambda: self.driver.remove_layer(info.chain_id))
        return info

    def known(self) -> set[str]:
        """Chain IDs of all layers."""
        return {info.chain_id for info in self.driver.layers()}

    def holds_file(self, path: Path, content: bytes) -> None:
        """Raises Broken unless the file is there with that content."""
        self.expect(path.is_file(), f"a file {path.name}", "none")
        self.equal(path.read_bytes(), content, f"the content of {path.name}")

    def nothing_at(self, path: Path, why: str) -> None:
        """Raises Broken when something is there."""
        self.expect(not os.path.lexists(path), f"nothing at {path.name}: {why}", "something")


KIT = Kit("StorageDriver", StorageDriver, StorageBench)


@KIT.check("a layer's digest is its tar's, and its chain ID follows the OCI image spec", says=StorageDriver.apply)
async def digests(bench: StorageBench) -> None:
    raw = tars.archive(member("f", b"content"), member(bench.unique()))
    low = await bench.apply("", raw)
    bench.equal(low.diff_id, tars.digest(raw), "diff_id")
    bench.equal((low.chain_id, low.parent), (low.diff_id, ""), "chain_id and parent of the lowest layer")
    bench.expect(low.size >= 7, "size to count the files' bytes (at least 7)", low.size)
    bench.expect(low.tar_size in (0, len(raw)), f"tar_size {len(raw)}, or 0 when unknown", low.tar_size)
    second = tars.archive(member("g"))
    high = await bench.apply(low.chain_id, second)
    above = tars.digest(f"{low.chain_id} {tars.digest(second)}".encode())
    bench.equal((high.chain_id, high.parent), (above, low.chain_id), "chain_id and parent of the second layer")


@KIT.check("a layer is known by its chain ID, an unknown one is NotFound", says=StorageDriver.layer)
async def layers_are_known(bench: StorageBench) -> None:
    info = await bench.layer("", member("f"))
    bench.equal(bench.driver.layer(info.chain_id), info, "layer()")
    bench.expect(info.chain_id in bench.known(), "layers() to name it", "a list without it")
    try:
        found = bench.driver.layer("sha256:" + "0" * 64)
    except NotFound:
        return
    raise Broken("layer() of an unknown chain ID to raise NotFound", found)


@KIT.check("the same layer again is the same layer, at the same time too", says=StorageDriver.apply)
async def same_layer(bench: StorageBench) -> None:
    raw = tars.archive(member("f", b"x"), member(bench.unique()))
    first = await bench.apply("", raw)
    again = await asyncio.gather(*(bench.driver.apply("", io.BytesIO(raw)) for _ in range(3)))
    bench.equal([info.chain_id for info in again], [first.chain_id] * 3, "the chain IDs")


@KIT.check("another digest than expected, or a missing parent, leaves nothing behind", says=StorageDriver.apply)
async def wrong_digest(bench: StorageBench) -> None:
    raw = tars.archive(member(bench.unique()))
    wrong = "sha256:" + "0" * 64
    await bench.refused("another digest", bench.driver.apply("", io.BytesIO(raw), expected=wrong), InvalidParameter)
    await bench.refused("a missing parent", bench.driver.apply(wrong, io.BytesIO(raw)), NotFound)
    bench.expect(tars.digest(raw) not in bench.known(), "no layer to be left", "the refused one")


@KIT.check("all kinds of files come into a container as the tar has them", says=StorageDriver.mount)
async def kinds_of_files(bench: StorageBench) -> None:
    chain = await bench.stack(
        (
            member("d/", kind=FOLDER, mode=0o2750, uid=5, gid=6, mtime=7),
            member("d/f", b"content", mode=0o4755, uid=1000, gid=1001, mtime=8),
            member("hard", kind=HARD_LINK, link="d/f"),
            member("link", kind=SYMBOLIC_LINK, link="/d/../no/such"),
            member("fifo", kind=b"6", mode=0o640),
            member("n" * 255, b"long"),
            member("ünï\ncode", b"u"),
            member("xattr", xattrs={"user.note": b"a=b"}),
        ),
        (member("made/by/itself", b"x"),),
    )
    _, root = await bench.root(chain)
    folder, file = (root / "d").stat(), (root / "d/f").stat()
    got = (stat.S_IMODE(folder.st_mode), folder.st_uid, folder.st_gid, int(folder.st_mtime))
    bench.equal(got, (0o2750, 5, 6, 7), "mode, owner, group and time of the folder d")
    got = (stat.S_IMODE(file.st_mode), file.st_uid, file.st_gid, int(file.st_mtime))
    bench.equal(got, (0o4755, 1000, 1001, 8), "mode, owner, group and time of the file d/f")
    bench.equal((root / "hard").stat().st_ino, file.st_ino, "the inode of a hard link")
    bench.equal(os.readlink(root / "link"), "/d/../no/such", "where the symbolic link leads")
    bench.expect(stat.S_ISFIFO((root / "fifo").stat().st_mode), "a FIFO", oct((root / "fifo").stat().st_mode))
    bench.holds_file(root / ("n" * 255), b"long")
    bench.holds_file(root / "ünï\ncode", b"u")
    bench.holds_file(root / "made/by/itself", b"x")
    bench.equal(os.getxattr(root / "xattr", "user.note"), b"a=b", "an extended attribute")


@KIT.check("an upper layer's file hides the lower one's", says="OCI image spec, layer: a later entry replaces.")
async def upper_hides_lower(bench: StorageBench) -> None:
    chain = await bench.stack(
        (member("a", b"low"), member("d/", kind=FOLDER), member("d/in"), member("f", b"x")),
        (member("a", b"high"), member("d", b"a file now"), member("f/", kind=FOLDER), member("f/in", b"y")),
    )
    _, root = await bench.root(chain)
    bench.holds_file(root / "a", b"high")
    bench.holds_file(root / "d", b"a file now")
    bench.holds_file(root / "f/in", b"y")


@KIT.check("whiteouts hide what is below, and nothing else", says="OCI image spec, layer: whiteouts.")
async def whiteouts(bench: StorageBench) -> None:
    chain = await bench.stack(
        tuple(member(name) for name in ("a", "b", "d/x", "d/y", "e/x", "f/x")),
        (whiteout("a"), whiteout("d/x"), opaque("e"), member("e/new"), whiteout("f"), member("f/again"),
         member("b", b"own"), whiteout("b")),
    )  # fmt: skip
    _, root = await bench.root(chain)
    bench.nothing_at(root / "a", "it is whited out")
    got = [sorted(os.listdir(root / name)) for name in "def"]
    bench.equal(got, [["y"], ["new"], ["again"]], "what d, e and f hold")
    bench.holds_file(root / "b", b"own")


@KIT.check("an opaque root hides all that lies below", says="OCI image spec, layer: opaque whiteouts.")
async def opaque_root(bench: StorageBench) -> None:
    _, root = await bench.root(await bench.stack((member("a"), member("d/x")), (opaque(""), member("d/y"))))
    bench.nothing_at(root / "a", "the root is opaque")
    bench.equal(os.listdir(root / "d"), ["y"], "what d holds")


@KIT.check("folders that an archive does not name are made, or stay as they are below", says=StorageDriver.apply)
async def missing_parents(bench: StorageBench) -> None:
    low = (member("d/", kind=FOLDER, mode=0o2750, uid=5, gid=6, mtime=7),)
    _, root = await bench.root(await bench.stack(low, (member("d/f"), member("n/f"))))
    what = (root / "d").stat()
    bench.equal((stat.S_IMODE(what.st_mode), what.st_uid, what.st_gid), (0o2750, 5, 6), "mode, owner and group of d")
    bench.equal(stat.S_IMODE((root / "n").stat().st_mode), 0o755, "the mode of n, which no archive names")


@KIT.check("containers do not see each other's changes, nor does the layer below", says=StorageDriver.create)
async def containers_are_apart(bench: StorageBench) -> None:
    chain = await bench.stack((member("f", b"low"),))
    (_, one), (_, two) = await bench.root(chain), await bench.root(chain)
    (one / "f").write_bytes(b"changed")
    (one / "new").write_bytes(b"n")
    bench.holds_file(two / "f", b"low")
    bench.nothing_at(two / "new", "another container wrote it")
    _, three = await bench.root(chain)
    bench.holds_file(three / "f", b"low")


@KIT.check("an empty root can be had too", says=StorageDriver.create)
async def no_parent(bench: StorageBench) -> None:
    name, root = await bench.root("")
    (root / "f").write_bytes(b"x")
    bench.equal(bench.driver.writable().get(name), "", "the parent that writable() tells")


@KIT.check("mount, unmount and remove may be repeated; what was written stays until remove", says=StorageDriver.mount)
async def repeated(bench: StorageBench) -> None:
    chain = await bench.stack((member("f"),))
    name, root = await bench.root(chain)
    bench.equal(await bench.driver.mount(name), root, "the path of the second mount")
    (root / "kept").write_bytes(b"k")
    await bench.twice("unmount", lambda: bench.driver.unmount(name))
    bench.holds_file(await bench.driver.mount(name) / "kept", b"k")
    bench.equal(bench.driver.writable().get(name), chain, "the parent that writable() tells")
    await bench.twice("remove", lambda: bench.driver.remove(name))
    bench.expect(name not in bench.driver.writable(), "writable() to leave it out", name)
    await bench.refused("mount of a removed one", bench.driver.mount(name), NotFound)
    await bench.fine("unmount of one that never was", bench.driver.unmount(bench.unique()))


@KIT.check("a name is taken once", says=StorageDriver.create)
async def name_is_taken(bench: StorageBench) -> None:
    name = await bench.writable("")
    await bench.refused("creating it again", bench.driver.create(name, ""), Conflict)
    for bad in ("", "../x", "a/b", "."):
        await bench.refused(f"the name {bad!r}", bench.driver.create(bad, ""), EngineError)
    await bench.refused("a missing parent", bench.driver.create(bench.unique(), "sha256:" + "1" * 64), EngineError)


@KIT.check("a bare layer shows the stack's own files and nothing else", says=StorageDriver.create)
async def bare(bench: StorageBench) -> None:
    layer = await bench.layer("", member("only", b"x"))
    name = bench.unique()
    bench.later(f"remove writable layer {name}", lambda: bench.driver.remove(name))
    await bench.driver.create(name, layer.chain_id, bare=True)
    root = await bench.driver.mount(name)
    own = {path.name for path in root.iterdir()} - {".verify"}  # what makes the bench's layers unique
    bench.equal(own, {"only"}, "what is in it")


@KIT.check("an unknown option is refused and leaves nothing", says=StorageDriver.create)
async def unknown_option(bench: StorageBench) -> None:
    name = bench.unique()
    bench.later(f"remove writable layer {name}", lambda: bench.driver.remove(name))
    option = {"no-such-option-of-any-driver": "1"}
    await bench.refused("an unknown option", bench.driver.create(name, "", options=option), EngineError)
    bench.expect(name not in bench.driver.writable(), "nothing to be left", name)


@KIT.check("a layer goes only when nothing lies on it; removing it again is fine", says=StorageDriver.remove_layer)
async def remove_layer(bench: StorageBench) -> None:
    low = await bench.layer("", member("f"))
    high = await bench.layer(low.chain_id, member("g"))
    await bench.refused("removing a layer below another", bench.driver.remove_layer(low.chain_id), Conflict)
    name = await bench.writable(high.chain_id)
    await bench.refused("removing a layer below a container", bench.driver.remove_layer(high.chain_id), Conflict)
    await bench.driver.remove(name)
    await bench.twice("remove_layer", lambda: bench.driver.remove_layer(high.chain_id))
    await bench.fine("remove_layer", bench.driver.remove_layer(low.chain_id))
    bench.expect(not {low.chain_id, high.chain_id} & bench.known(), "both to be gone", "one is still listed")


@KIT.check("a busy mount is let go, and its open files stay readable", says=StorageDriver.unmount)
async def busy(bench: StorageBench) -> None:
    name, root = await bench.root(await bench.stack((member("f", b"held"),)))
    with (root / "f").open("rb") as held:
        await bench.fine("remove of a busy one", bench.driver.remove(name))
        bench.equal(held.read(), b"held", "what an open file still gives")
    bench.expect(name not in bench.driver.writable(), "it to be gone", name)


@KIT.check("a layer's archive comes back, the very one or one of the same content", says=StorageDriver.diff)
async def archive_comes_back(bench: StorageBench) -> None:
    raw = tars.archive(member("d/", kind=FOLDER), member("d/f", b"content"), whiteout("gone"), member(bench.unique()))
    low = await bench.layer("", member("gone"), member("d/kept"))
    packed = await bench.packed((await bench.apply(low.chain_id, raw)).chain_id)
    if packed != raw:
        bench.equal(sorted(tars.names(packed)), sorted(tars.names(raw)), "what the archive holds")
    again = await bench.apply(low.chain_id, packed)
    _, root = await bench.root(again.chain_id)
    bench.nothing_at(root / "gone", "the layer hides it")
    bench.holds_file(root / "d/f", b"content")


@KIT.check("commit makes a layer of what a container holds, deletions too", says=StorageDriver.commit)
async def commit(bench: StorageBench) -> None:
    base = await bench.stack((member("old", b"1"), member("gone", b"2"), member("dir/in"), member("again/x")))
    name, root = await bench.root(base)
    (root / "gone").unlink()
    shutil.rmtree(root / "dir")
    shutil.rmtree(root / "again")
    (root / "again").mkdir()
    (root / "again/y").write_bytes(b"y")
    (root / "new").write_bytes(bench.unique().encode())
    os.link(root / "new", root / "hard")
    os.chmod(root / "old", 0o600)
    info = await bench.commit(name)
    bench.equal(info.parent, base, "the parent of the new layer")
    bench.equal(tars.digest(await bench.packed(info.chain_id)), info.diff_id, "the digest of its archive")
    _, other = await bench.root(info.chain_id)
    for path in ("gone", "dir", "again/x"):
        bench.nothing_at(other / path, "the container had removed it")
    bench.holds_file(other / "again/y", b"y")
    bench.equal((other / "hard").stat().st_ino, (other / "new").stat().st_ino, "the inode of a hard link")
    bench.holds_file(other / "old", b"1")
    bench.equal(stat.S_IMODE((other / "old").stat().st_mode), 0o600, "the mode that the container gave")


@KIT.check("diff of a container gives its changes as a layer", says=StorageDriver.diff)
async def diff_of_a_container(bench: StorageBench) -> None:
    base = await bench.stack((member("a"), member("b")))
    name, root = await bench.root(base)
    (root / "a").unlink()
    (root / "c").write_bytes(b"c")
    held = tars.names(await bench.packed(name))
    bench.expect({".wh.a", "c"} <= held, "c and a whiteout of a", sorted(held))
    bench.expect("b" not in held, "b, which did not change, to be left out", sorted(held))


@KIT.check("changes tells what was added, modified and deleted, sorted", says=StorageDriver.changes)
async def changes(bench: StorageBench) -> None:
    files = ("etc/passwd", "gone", "d/x", "d/y", "same", "touched", "o/p")
    name, root = await bench.root(await bench.stack(tuple(member(each, b"12345") for each in files)))
    bench.equal(await bench.driver.changes(name), [], "changes of a container that did nothing")
    (root / "etc/passwd").write_bytes(b"new")
    (root / "gone").unlink()
    (root / "d/x").unlink()
    (root / "new").mkdir()
    (root / "new/f").write_bytes(b"12")
    shutil.rmtree(root / "o")
    (root / "o").mkdir()
    os.chmod(root / "touched", 0o600)
    found = await bench.driver.changes(name)
    bench.equal([each.path for each in found], sorted(each.path for each in found), "the order of the paths")
    wanted = {
        "/etc": ChangeKind.MODIFIED,
        "/etc/passwd": ChangeKind.MODIFIED,
        "/gone": ChangeKind.DELETED,
        "/d": ChangeKind.MODIFIED,
        "/d/x": ChangeKind.DELETED,
        "/new": ChangeKind.ADDED,
        "/new/f": ChangeKind.ADDED,
        "/o": ChangeKind.MODIFIED,
        "/o/p": ChangeKind.DELETED,
        "/touched": ChangeKind.MODIFIED,
    }
    bench.equal({each.path: each.kind for each in found}, wanted, "changes")


@KIT.check("usage grows with what a container writes", says=StorageDriver.usage)
async def usage(bench: StorageBench) -> None:
    name, root = await bench.root(await bench.stack((member("f", b"x" * 5000),)))
    before = await bench.driver.usage(name)
    (root / "new").write_bytes(b"y" * 100_000)
    grown = await bench.driver.usage(name) - before
    bench.expect(100_000 <= grown < 200_000, "about 100000 bytes more", grown)


@KIT.check("metadata and status are told for people", says=StorageDriver.metadata)
async def described(bench: StorageBench) -> None:
    info = await bench.layer("", member("f"))
    name = await bench.writable(info.chain_id)
    for ref in (info.chain_id, name):
        told = bench.driver.metadata(ref)
        bench.expect(all(isinstance(value, str) for value in told.values()), "metadata of texts", told)
    bench.expect(all(len(pair) == 2 for pair in bench.driver.status()), "status as pairs", bench.driver.status())


@KIT.check("all is known again after a restart of the daemon", says=StorageDriver)
async def restart(bench: StorageBench) -> None:
    chain = await bench.stack((member("f"),), (member("g"),))
    name, root = await bench.root(chain)
    (root / "written").write_bytes(b"w")
    idle = await bench.writable("")
    known = bench.known()
    await bench.restart()
    bench.equal(bench.known(), known, "the layers after a restart")
    bench.equal(bench.driver.writable(), {name: chain, idle: ""}, "the writable layers after a restart")
    bench.holds_file(await bench.driver.mount(name) / "written", b"w")


@KIT.check("a tower of many layers can be mounted", says=StorageDriver.mount, deadline=LAYER_SECONDS)
async def many_layers(bench: StorageBench) -> None:
    chain = await bench.stack(*((member(f"f{number}"),) for number in range(60)))
    _, root = await bench.root(chain)
    bench.equal(len([name for name in os.listdir(root) if name.startswith("f")]), 60, "the number of files seen")

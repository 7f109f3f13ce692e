"""What is overlay2's own, with real overlays; what every storage driver must do is in the kit (`test_storage_kit.py`)."""

import asyncio
import errno
import hashlib
import io
import os
import shutil
import stat
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from plugin_sdk import EngineError, InvalidParameter
from plugins.storage_overlay2.driver import Overlay2
from plugins.storage_overlay2.tarwrite import header

pytestmark = pytest.mark.real

END = bytes(1024)
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service=ep


def make_driver(root: Path) -> Overlay2:
    import logging

    made = Overlay2(root, logging.getLogger("test"), lambda work, name: asyncio.ensure_future(work))
    made.open()
    return made


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[Overlay2]:
    root = tmp_path / "storage"
    root.mkdir()
    made = make_driver(root)
    yield made
    for name in made.writable():
        await made.remove(name)
    assert str(root) not in Path("/proc/self/mounts").read_text()


def member(name: str, content: bytes = b"", kind: bytes = b"0", **more: Any) -> bytes:
    raw = header(name.encode(), kind, more.pop("mode", 0o755 if kind == b"5" else 0o644), size=len(content), **more)
    return raw + content + bytes(-len(content) % 512)


def tar(*parts: bytes) -> io.BytesIO:
    return io.BytesIO(b"".join(parts) + END)


async def stacked(driver: Overlay2, *layers: io.BytesIO) -> str:
    chain = ""
    for layer in layers:
        chain = (await driver.apply(chain, layer)).chain_id
    return chain


async def mounted(driver: Overlay2, chain: str, name: str = "c") -> Path:
    await driver.create(name, chain)
    return await driver.mount(name)


async def diff(driver: Overlay2, name: str) -> bytes:
    out = io.BytesIO()
    await driver.diff(name, out)
    return out.getvalue()


def facts(root: Path) -> dict[str, Any]:
    """All that matters of a tree, by path; device and inode numbers left out, hard links by their first name."""
    found: dict[str, Any] = {}
    first: dict[int, str] = {}
    for folder, folders, files in os.walk(root):
        for name in sorted([*folders, *files]):
            path = Path(folder, name)
            what = path.lstat()
            key = str(path.relative_to(root))
            kind = stat.S_IFMT(what.st_mode)
            content: Any = None
            if stat.S_ISREG(kind):
                content = hashlib.sha256(path.read_bytes()).hexdigest(), what.st_size
            elif stat.S_ISLNK(kind):
                content = os.readlink(path)
            names = os.listxattr(path, follow_symlinks=False)
            xattrs = {each: os.getxattr(path, each, follow_symlinks=False) for each in names if ".overlay." not in each}
            same = first.setdefault(what.st_ino, key) if what.st_nlink > 1 and not stat.S_ISDIR(kind) else key
            found[key] = (what.st_mode, what.st_uid, what.st_gid, what.st_rdev, what.st_mtime_ns, content, xattrs, same)
    return found


def run(*argv: Any, input: bytes | None = None) -> bytes:
    return subprocess.run(argv, input=input, capture_output=True, check=True).stdout


@pytest.fixture
def rich_tree(tmp_path: Path) -> Path:
    """A tree with one of everything that a file system can hold."""
    root = tmp_path / "rich"
    (root / "dir/sub").mkdir(parents=True)
    (root / "dir/file").write_bytes(b"content" * 1000)
    (root / "empty").touch()
    os.link(root / "dir/file", root / "hard")
    os.link(root / "dir/file", root / "dir/sub/hard2")
    (root / "link").symlink_to("dir/file")
    (root / "dangling").symlink_to("/no/such/../where")
    (root / "sticky").mkdir()
    (root / "sticky").chmod(0o1777)
    (root / "setuid").write_bytes(b"#!")
    os.chown(root / "setuid", 1000, 3_000_000)
    (root / "setuid").chmod(0o4755)
    (root / "capable").write_bytes(b"x")
    os.setxattr(root / "capable", "security.capability", CAPABILITY)
    os.setxattr(root / "dir", "user.note", b"a\n=b\0")
    with (root / "sparse").open("wb") as file:
        file.write(b"start")
        file.seek(20 << 20)
        file.write(b"end")
        file.truncate(30 << 20)
    os.mkfifo(root / "fifo", 0o640)
    os.mknod(root / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(root / "disk", 0o660 | stat.S_IFBLK, os.makedev(8, 300))
    (root / ("n" * 255)).write_bytes(b"long")
    deep = root / "/".join(["p" * 200] * 5).lstrip("/")
    deep.mkdir(parents=True)
    (deep / "leaf").symlink_to("t" * 3000)
    (root / "ünï\ncode").write_bytes(b"u")
    (root.__str__().encode() and root / os.fsdecode(b"bad\xff")).write_bytes(b"b")
    inside = [Path(folder, name) for folder, folders, names in os.walk(root) for name in (*folders, *names)]
    for number, path in enumerate(sorted(inside, key=lambda path: -len(path.parts))):
        os.utime(path, ns=(1, 1_600_000_000_123_456_789 + number), follow_symlinks=False)
    os.utime(root / "empty", ns=(0, -5_000_000_001))
    return root


PAX = ["--xattrs", "--xattrs-include=*", "--format=pax"]
GNU_TAR = {
    "pax": PAX,
    "pax-sparse-1.0": [*PAX, "--sparse", "--sparse-version=1.0"],
    "pax-sparse-0.1": [*PAX, "--sparse", "--sparse-version=0.1"],
    "pax-sparse-0.0": [*PAX, "--sparse", "--sparse-version=0.0"],
    "gnu": ["--format=gnu"],
    "gnu-sparse": ["--format=gnu", "--sparse"],
    "oldgnu-sparse": ["--format=oldgnu", "--sparse"],
}


@pytest.mark.parametrize("form", GNU_TAR)
async def test_everything_survives_and_the_archive_comes_back(driver: Overlay2, rich_tree: Path, form: str) -> None:
    packed = run("tar", *GNU_TAR[form], "-C", rich_tree, "-cf", "-", ".")
    layer = await driver.apply("", io.BytesIO(packed))
    assert layer.diff_id == "sha256:" + hashlib.sha256(packed).hexdigest()
    assert layer.tar_size == len(packed)
    assert await diff(driver, layer.chain_id) == packed
    root = await mounted(driver, layer.chain_id)
    wanted, got = facts(rich_tree), facts(root)
    for name in ("proc", "sys", "dev", "dev/pts", "dev/shm", "dev/console", "etc", ".dockerenv"):
        got.pop(name)
    got = {name: value for name, value in got.items() if not name.startswith("etc/")}
    if not form.startswith("pax"):  # these formats have whole seconds, and no extended attributes
        wanted, got = ({k: (*v[:4], v[4] // 10**9, v[5], v[7]) for k, v in each.items()} for each in (wanted, got))
    assert got == wanted
    assert (root / "sparse").stat().st_blocks * 512 < 1 << 20


async def test_a_container_becomes_a_layer_with_all_that_it_holds(driver: Overlay2, rich_tree: Path) -> None:
    base = await stacked(
        driver, tar(member("old", b"1"), member("gone", b"2"), member("dir/", kind=b"5"), member("dir/in"))
    )
    root = await mounted(driver, base)
    (root / "gone").unlink()
    shutil.rmtree(root / "dir")
    run("cp", "-a", f"{rich_tree}/.", root)
    wanted = facts(root)
    layer = await driver.commit("c")
    assert layer.parent == base and layer.size > 30 << 20
    again = await mounted(driver, layer.chain_id, "d")
    assert facts(again) == wanted
    assert not (again / "gone").exists() and not (again / "dir/in").exists()
    packed = await diff(driver, "c")
    assert layer.diff_id == "sha256:" + hashlib.sha256(packed).hexdigest()
    assert await diff(driver, layer.chain_id) == packed
    listing = run("tar", "-tf", "-", input=packed).decode()
    assert ".wh.gone\n" in listing and "dir/.wh..wh..opq\n" in listing and "etc/hosts" not in listing


async def test_the_roots_attributes_reach_the_container(driver: Overlay2) -> None:
    chain = await stacked(driver, tar(member("./", kind=b"5", mode=0o711, uid=3, gid=4)), tar(member("f")))
    what = (await mounted(driver, chain)).stat()
    assert (stat.S_IMODE(what.st_mode), what.st_uid, what.st_gid) == (0o711, 3, 4)


@pytest.mark.parametrize(
    "parts",
    [
        [member("f", b"one"), member("f", b"two")],
        [member("f", b"one"), member("h", kind=b"1", link=b"f"), member("f", b"two")],
        [member("d/", kind=b"5"), member("d/in", b"lost"), member("d", b"a file now")],
        [member("s", kind=b"2", link=b"d"), member("d/", kind=b"5"), member("s/in", b"x"), member("s", b"file")],
        [member("f", b"one"), member("f/", kind=b"5"), member("f/in", b"y")],
        [member("f", b"one"), member("f", kind=b"2", link=b"g"), member("f", b"three")],
        [member("p", kind=b"6"), member("p", kind=b"3", device=os.makedev(1, 3)), member("p", b"last")],
        [member("f", b"x"), bytes(512), b"no second block of zeros, and then this"],
        [member("f", b"x"), bytes(20480)],
    ],
)
async def test_odd_archives_come_back_too(driver: Overlay2, parts: list[bytes]) -> None:
    packed = b"".join(parts) + END
    layer = await driver.apply("", io.BytesIO(packed))
    assert await diff(driver, layer.chain_id) == packed
    assert layer.diff_id == "sha256:" + hashlib.sha256(packed).hexdigest()


async def test_the_last_of_several_members_wins(driver: Overlay2) -> None:
    chain = await stacked(driver, tar(member("f", b"one"), member("h", kind=b"1", link=b"f"), member("f", b"two")))
    root = await mounted(driver, chain)
    assert ((root / "f").read_bytes(), (root / "h").read_bytes()) == (b"two", b"one")


def hostile() -> dict[str, list[bytes]]:
    """Archives that must be refused, beyond those of the kit."""
    return {
        "hard link to a folder": [member("d/", kind=b"5"), member("h", kind=b"1", link=b"d")],
        "whiteout of the parent": [member(".wh..")],
        "whiteout of the folder": [member("a/.wh..")],
        "whiteout of its parent": [member("a/.wh...")],
        "whiteout without a name": [member(".wh.")],
        "root as a file": [member("./", b"x")],
        "zero byte": [member("a\0b" + "c" * 200)],
        "owner": [member("f", uid=2**40)],
        "type": [member("f", kind=b"Q")],
    }


@pytest.mark.parametrize("case", hostile())
async def test_hostile_archives_are_refused(driver: Overlay2, tmp_path: Path, case: str) -> None:
    with pytest.raises(InvalidParameter):
        await driver.apply("", tar(*hostile()[case]))
    assert not driver.layers() and not os.listdir(tmp_path / "storage/tmp")


async def test_overlayfs_marks_in_an_archive_are_not_believed(driver: Overlay2) -> None:
    chain = await stacked(
        driver,
        tar(member("secret/f", b"s")),
        tar(member("d/", kind=b"5", xattrs={b"trusted.overlay.redirect": b"/secret", b"trusted.overlay.opaque": b"y"})),
    )
    root = await mounted(driver, chain)
    assert os.listdir(root / "d") == []
    assert "trusted.overlay.redirect" not in os.listxattr(Path(driver.metadata(chain)["UpperDir"]) / "d")


async def test_a_cancelled_apply_leaves_nothing(driver: Overlay2, tmp_path: Path) -> None:
    from plugin_sdk.streams import Inlet

    inlet = Inlet()
    inlet.put(member("f", b"x" * 1000))
    task = asyncio.create_task(driver.apply("", inlet))  # type: ignore[arg-type]
    await asyncio.sleep(0.1)
    task.cancel()
    inlet.fail(EngineError("the client has gone"))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not driver.layers() and not os.listdir(tmp_path / "storage/tmp")


async def test_many_layers_and_a_difficult_data_root(tmp_path: Path) -> None:
    root = tmp_path / "a:b,c\\d" / ("x" * 100)
    root.mkdir(parents=True)
    driver = make_driver(root)
    chain = await stacked(driver, *(tar(member(f"f{number}")) for number in range(127)))
    top = await mounted(driver, chain)
    try:
        assert len([name for name in os.listdir(top) if name.startswith("f")]) == 127
        assert Path.cwd() != root
    finally:
        await driver.remove("c")


async def test_usage_counts_what_was_written_and_copied_up(driver: Overlay2) -> None:
    chain = await stacked(driver, tar(*(member(name, b"12345") for name in ("replaced", "touched", "same"))))
    root = await mounted(driver, chain)
    (root / "replaced").write_bytes(b"new")
    (root / "new").write_bytes(b"12")
    os.chmod(root / "touched", 0o600)
    assert await driver.usage("c") == len("new") + 2 + 5


async def test_one_who_mounts_while_another_unmounts(driver: Overlay2) -> None:
    chain = await stacked(driver, tar(member("file", b"x")))
    await mounted(driver, chain)
    for _ in range(300):
        await asyncio.gather(driver.unmount("c"), driver.mount("c"))
    assert (await driver.mount("c") / "file").read_bytes() == b"x"


async def test_a_fresh_container_has_mount_points_and_no_changes(driver: Overlay2) -> None:
    chain = await stacked(
        driver, tar(member("etc", kind=b"2", link=b"conf"), member("conf/hosts", b"mine"), member("dev/", kind=b"5"))
    )
    for number, parent in enumerate((chain, "")):
        root = await mounted(driver, parent, f"c{number}")
        assert (root / "proc").is_dir() and (root / "dev/pts").is_dir() and (root / "dev/console").is_file()
        assert await driver.changes(f"c{number}") == [] and await driver.usage(f"c{number}") == 0
    assert os.readlink(Path(driver.metadata("c0")["MergedDir"]) / "etc") == "conf"
    assert (root / "etc/resolv.conf").is_file() and os.readlink(root / "etc/mtab") == "/proc/mounts"


async def test_options_that_cannot_be_kept_are_refused(driver: Overlay2) -> None:
    for size, said in [("much", "invalid size: 'much'"), ("1m", "the least is")]:
        with pytest.raises(InvalidParameter, match=said):
            await driver.create("c", "", options={"size": size})
    with pytest.raises(InvalidParameter, match="Unknown option"):
        await driver.create("c", "", options={"foo": "1"})
    assert driver.writable() == {}
    for name in ("", "../x", "a/b", "."):
        with pytest.raises(InvalidParameter):
            await driver.create(name, "")


HALF = """
import asyncio, io, logging, sys, time
from pathlib import Path
from plugins.storage_overlay2.driver import Overlay2
from plugins.storage_overlay2.tarwrite import header
class Slow:
    sent = False
    def read(self, size):
        if self.sent:
            print("half", flush=True); time.sleep(60)
        self.sent = True
        return header(b"f", b"0", 0o644, size=100000) + bytes(50000)
d = Overlay2(Path(sys.argv[1]), logging.getLogger(), lambda work, name: None)
d.open()
asyncio.run(d.apply("", Slow()))
"""


def kill_half_way(root: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HALF, root], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == b"half\n"
        child.kill()


async def test_a_kill_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "storage"
    root.mkdir()
    kill_half_way(root)
    assert os.listdir(root / "tmp")
    driver = make_driver(root)
    await driver.recover()
    assert not driver.layers() and not os.listdir(root / "tmp")


async def test_a_power_cut_is_noticed(driver: Overlay2, tmp_path: Path) -> None:
    import json

    sound, damaged = await driver.apply("", tar(member("a", b"1"))), await driver.apply("", tar(member("b", b"2")))
    on_top = await driver.apply(damaged.chain_id, tar(member("c", b"3")))
    for meta in (tmp_path / "storage/layers").glob("*/layer.json"):
        meta.write_text(json.dumps(json.loads(meta.read_text()) | {"boot": "another"}))
    (Path(driver.metadata(damaged.chain_id)["UpperDir"]) / "b").write_bytes(b"")
    second = make_driver(tmp_path / "storage")
    await second.recover()
    assert [each.chain_id for each in second.layers()] == [sound.chain_id]
    assert on_top.chain_id not in [each.chain_id for each in second.layers()]
    metas = list((tmp_path / "storage/layers").glob("*/layer.json"))
    assert [json.loads(meta.read_text())["boot"] for meta in metas] == [""]


async def test_one_unreadable_layer_does_not_stop_the_others(driver: Overlay2, tmp_path: Path) -> None:
    good = await driver.apply("", tar(member("a", b"1")))
    (tmp_path / "storage/layers/rubbish").mkdir()
    (tmp_path / "storage/layers/rubbish/layer.json").write_text("{")
    assert [each.chain_id for each in make_driver(tmp_path / "storage").layers()] == [good.chain_id]


@pytest.fixture
def loop_mount(tmp_path: Path) -> AsyncIterator[Callable[..., Path]]:
    mounts: list[Path] = []

    def mount(*mkfs: str) -> Path:
        image, target = tmp_path / "image", tmp_path / "loop"
        with image.open("wb") as file:
            file.truncate(64 << 20)
        subprocess.run([*mkfs, image], check=True, capture_output=True)
        target.mkdir()
        subprocess.run(["mount", "-o", "loop", image, target], check=True)
        mounts.append(target)
        return target

    yield mount  # type: ignore[misc]
    for target in mounts:
        subprocess.run(["umount", target], check=True)


def test_a_file_system_without_d_type_is_refused(loop_mount: Callable[..., Path]) -> None:
    root = loop_mount("mkfs.ext4", "-q", "-O", "^filetype,^metadata_csum")
    with pytest.raises(EngineError, match="d_type.*extfs.*--data-root"):
        make_driver(root)
    assert [name for name in os.listdir(root) if name != "lost+found"] == []


async def test_overlay_on_overlay_is_refused(driver: Overlay2) -> None:
    root = await mounted(driver, "")
    with pytest.raises(EngineError, match="overlayfs itself.*--data-root"):
        make_driver(root)


async def test_a_full_disk_is_told_in_plain_words(loop_mount: Callable[..., Path]) -> None:
    root = loop_mount("mkfs.ext4", "-q", "-m", "0")
    driver = make_driver(root)
    with pytest.raises(EngineError, match=os.strerror(errno.ENOSPC)) as failed:
        await driver.apply("", tar(member("f", os.urandom(80 << 20))))
    assert not isinstance(failed.value, InvalidParameter)
    assert not driver.layers() and not os.listdir(root / "tmp")

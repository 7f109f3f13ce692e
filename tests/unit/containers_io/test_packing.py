"""Tars of folders, and folders from tars, with names and links that want out."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugin_sdk import InvalidParameter
from plugins.containers import unpacking
from plugins.containers.packing import CHUNK, Packer
from plugins.containers.rootview import resolve
from plugins.containers.unpacking import Unpacker

ME = (os.getuid(), os.getgid())


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A host with a container's root in it."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("host")
    (tmp_path / "root/d").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def root(world: Path) -> Iterator[int]:
    descriptor = os.open(world / "root", os.O_PATH | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for info, content in members:
            info.size = len(content)
            info.uid, info.gid = ME
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def entry(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", content: bytes = b"", mode: int = 0o644
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.mtime = kind, link, mode, 1_000_000_000
    return info, content


def unpack(root: int, data: bytes, folder: str = "/d", **options: bool) -> None:
    Unpacker(root, folder, **options).unpack(io.BytesIO(data))


def pack(root: int, path: str, name: str, **options: bool) -> tarfile.TarFile:
    out = io.BytesIO()
    Packer(root, out).pack(path, name, **options)
    out.seek(0)
    return tarfile.TarFile(fileobj=out)


def test_round_trip(world: Path, root: int) -> None:
    made = world / "root/d"
    (made / "sub").mkdir(mode=0o750)
    (made / "sub/f").write_bytes(b"x" * 100_000)
    (made / "sub/f").chmod(0o4711)
    os.link(made / "sub/f", made / "hard")
    (made / "soft").symlink_to("../../nowhere")
    os.mkfifo(made / "pipe")
    os.utime(made / "sub", (5, 5))
    archive = pack(root, "/d", "d")
    assert archive.getnames() == ["d", "d/hard", "d/pipe", "d/soft", "d/sub", "d/sub/f"]
    (world / "root/copy").mkdir()
    assert archive.fileobj is not None
    archive.fileobj.seek(0)
    Unpacker(root, "/copy").unpack(archive.fileobj)
    copy = world / "root/copy/d"
    assert (copy / "sub/f").read_bytes() == b"x" * 100_000
    assert (copy / "sub/f").stat().st_mode == (made / "sub/f").stat().st_mode
    assert (copy / "sub/f").samefile(copy / "hard")
    assert os.readlink(copy / "soft") == "../../nowhere"
    assert stat.S_ISFIFO((copy / "pipe").stat().st_mode)
    assert (copy / "sub").stat().st_mtime == 5
    assert stat.S_IMODE((copy / "sub").stat().st_mode) == 0o750


def test_names_as_docker_has_them(world: Path, root: int) -> None:
    (world / "root/d/f").write_text("x")
    assert pack(root, "/d", ".").getnames() == [".", "./f"]
    assert pack(root, "/d/f", "f").getnames() == ["f"]
    assert pack(root, "/", "", itself=False).getnames() == ["d", "d/f"]


def test_sparse_files_stay_sparse(world: Path, root: int) -> None:
    with (world / "root/d/sparse").open("wb") as file:
        file.truncate(64 * CHUNK)
        file.seek(40 * CHUNK + 7)
        file.write(b"data")
    archive = pack(root, "/d/sparse", "sparse")
    assert archive.fileobj is not None
    archive.fileobj.seek(0)
    Unpacker(root, "/").unpack(archive.fileobj)
    copy = world / "root/sparse"
    assert copy.stat().st_size == 64 * CHUNK
    assert copy.stat().st_blocks * 512 <= 2 * CHUNK
    assert copy.read_bytes() == (world / "root/d/sparse").read_bytes()


def test_a_file_that_shrinks_while_it_is_packed_keeps_the_archive_whole(world: Path, root: int) -> None:
    (world / "root/d/big").write_bytes(b"y" * (3 * CHUNK))

    class Shrinking(io.BytesIO):
        def write(self, data: bytes) -> int:  # type: ignore[override]
            if len(data) == CHUNK:
                os.truncate(world / "root/d/big", CHUNK)
            return super().write(data)

    out = Shrinking()
    Packer(root, out).pack("/d", "d")
    out.seek(0)
    archive = tarfile.TarFile(fileobj=out)
    assert archive.getmember("d/big").size == 3 * CHUNK
    assert archive.extractfile("d/big").read() == b"y" * CHUNK + bytes(2 * CHUNK)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "member",
    [
        entry("../../esc", content=b"x"),
        entry("a/../../esc", content=b"x"),
        entry("l", tarfile.LNKTYPE, "../../outside/secret"),
    ],
)
def test_names_that_lead_out_are_refused(world: Path, root: int, member: tuple[tarfile.TarInfo, bytes]) -> None:
    with pytest.raises(InvalidParameter, match="is outside of"):
        unpack(root, tar_of(member))
    assert not list(world.glob("esc*"))


@pytest.mark.parametrize("target", ["../../../../../outside", "/outside"])
def test_links_are_followed_within_the_root(world: Path, root: int, target: str) -> None:
    unpack(root, tar_of(entry("l", tarfile.SYMTYPE, target), entry("l/planted", content=b"x")))
    assert not (world / "outside/planted").exists()
    assert (world / "root/outside/planted").read_bytes() == b"x"


def test_a_link_is_replaced_not_written_through(world: Path, root: int) -> None:
    (world / "root/d/f").symlink_to(world / "outside/secret")
    unpack(root, tar_of(entry("f", content=b"mine")))
    assert (world / "outside/secret").read_text() == "host"
    assert (world / "root/d/f").read_bytes() == b"mine"


def test_a_hard_link_does_not_reach_the_host(world: Path, root: int) -> None:
    with pytest.raises(FileNotFoundError):
        unpack(root, tar_of(entry("h", tarfile.LNKTYPE, str(world / "outside/secret"))))


def test_keep_kind(world: Path, root: int) -> None:
    (world / "root/d/sub").mkdir()
    (world / "root/d/f").write_text("x")
    with pytest.raises(InvalidParameter, match='cannot overwrite directory "/d/sub" with non-directory "/d"'):
        unpack(root, tar_of(entry("sub", content=b"x")), keep_kind=True)
    with pytest.raises(InvalidParameter, match='cannot overwrite non-directory "/d/f" with directory "/d"'):
        unpack(root, tar_of(entry("f", tarfile.DIRTYPE, mode=0o755)), keep_kind=True)
    unpack(root, tar_of(entry("sub", content=b"x")))
    assert (world / "root/d/sub").read_bytes() == b"x"


def test_missing_folders_are_made_and_times_kept(world: Path, root: int) -> None:
    unpack(root, tar_of(entry("new", tarfile.DIRTYPE, mode=0o700), entry("new/deep/f", content=b"x")))
    assert (world / "root/d/new/deep/f").stat().st_mtime == 1_000_000_000
    assert (world / "root/d/new").stat().st_mtime == 1_000_000_000
    assert stat.S_IMODE((world / "root/d/new").stat().st_mode) == 0o700


@pytest.mark.parametrize("data", [b"garbage", b"x" * 5000, tar_of(entry("f", content=b"x" * 5000))[:2000]])
def test_broken_archives(root: int, data: bytes) -> None:
    with pytest.raises(InvalidParameter, match="archive"):
        unpack(root, data)


def test_nothing_is_fine_and_so_is_gzip(world: Path, root: int) -> None:
    unpack(root, b"")
    unpack(root, gzip.compress(tar_of(entry("z", content=b"zipped"))))
    assert (world / "root/d/z").read_bytes() == b"zipped"


def test_resolve(world: Path, root: int) -> None:
    inner = world / "root"
    (inner / "up").symlink_to("../../../../etc/passwd")
    (inner / "abs").symlink_to("/d/")
    (inner / "loop").symlink_to("/loop")
    assert resolve(root, "/up") == "/etc/passwd"
    assert resolve(root, "/abs/x/../y") == "/d/y"
    assert resolve(root, "/abs", last=False) == "/abs"
    assert resolve(root, "../../d/.") == "/d"
    with pytest.raises(OSError, match="Too many levels"):
        resolve(root, "/loop")


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("981173106.123456789", 981173106_123456789),
        ("981173106", 981173106_000000000),
        ("1.5", 1_500000000),
        ("-1.25", -1_250000000),
        ("7.1234567891", 7_123456789),
    ],
)
def test_times_are_exact(text: str, nanoseconds: int) -> None:
    member = tarfile.TarInfo("f")
    member.mtime = 5
    member.pax_headers = {"mtime": text}
    assert unpacking._mtime(member) == nanoseconds

"""Reading and writing tar headers, the journal, and paths: pure logic, no root needed."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from plugin_sdk import EngineError, InvalidParameter
from plugins.storage_overlay2 import journal
from plugins.storage_overlay2.extract import clean
from plugins.storage_overlay2.plugin import default_size
from plugins.storage_overlay2.source import Source
from plugins.storage_overlay2.tarread import Member, TarReader
from plugins.storage_overlay2.tarwrite import header


def members(raw: bytes) -> tuple[list[Member], bytes]:
    """All members, and the bytes of the archive besides payloads."""
    rest = bytearray()
    source = Source(io.BytesIO(raw))
    reader = TarReader(source, rest.extend)
    found = []
    while (member := reader.next()) is not None:
        found.append(member)
        list(source.pieces(member.stored))
        reader.padding(member)
    return found, bytes(rest)


def one(raw: bytes) -> Member:
    return members(raw + bytes(1024))[0][0]


@pytest.mark.parametrize(
    "name", [b"a", b"d/" + b"n" * 98, b"p" * 120 + b"/" + b"n" * 90, b"x" * 300, "ü".encode() * 80]
)
@pytest.mark.parametrize("link", [b"", b"l" * 150])
def test_a_header_says_the_same_to_us_and_to_others(name: bytes, link: bytes) -> None:
    raw = header(
        name, b"2" if link else b"0", 0o4755, uid=3_000_000, gid=5, mtime=-1_500_000_000, link=link,
        xattrs={b"user.x": b"a=\n\0b"},
    )  # fmt: skip
    ours = one(raw)
    assert (ours.name, ours.link, ours.mode, ours.uid, ours.gid) == (name, link, 0o4755, 3_000_000, 5)
    assert ours.mtime == -1_500_000_000
    assert ours.xattrs == {b"user.x": b"a=\n\0b"}
    with tarfile.open(fileobj=io.BytesIO(raw + bytes(1024))) as tar:
        theirs = tar.next()
    assert theirs is not None
    assert (os.fsencode(theirs.name), os.fsencode(theirs.linkname), theirs.uid) == (name, link, 3_000_000)
    assert theirs.mtime == -1.5


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archives_of_others(form: int) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        info = tarfile.TarInfo("d/" * 60 + "f")
        info.size, info.mode, info.uid, info.gid, info.mtime = 700, 0o640, 7, 8, 1234567890
        tar.addfile(info, io.BytesIO(b"z" * 700))
        device = tarfile.TarInfo("dev/null")
        device.type, device.devmajor, device.devminor = tarfile.CHRTYPE, 1, 3
        tar.addfile(device)
    found, rest = members(out.getvalue())
    assert [(m.name, m.size, m.mode, m.uid, m.gid, m.mtime) for m in found[:1]] == [
        (b"d/" * 60 + b"f", 700, 0o640, 7, 8, 1234567890 * 10**9)
    ]
    assert (found[1].type, found[1].major, found[1].minor) == (b"3", 1, 3)
    assert len(rest) == len(out.getvalue()) - 700


def test_numbers_in_base_256() -> None:
    raw = bytearray(header(b"big", b"0", 0o600))
    raw[124:136] = b"\x80" + (0).to_bytes(11, "big")
    raw[136:148] = (-5 % 2**96).to_bytes(12, "big")
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    assert one(bytes(raw)).mtime == -5 * 10**9


@pytest.mark.parametrize(
    "raw",
    [
        b"junk" * 200,
        header(b"f", b"0", 0o600, size=600) + b"x" * 100,
        header(b"f", b"0", 0o600)[:300],
        b"\xff" * 512,
        header(b"f", b"V", 0o600),
        header(b"h", b"x", 0o600, size=9 << 20),
        header(b"h", b"x", 0o600, size=20) + b"99 path=x\n".ljust(512, b"\0"),
        header(b"h", b"x", 0o600, size=20) + b"-1 path=x\n".ljust(512, b"\0"),
        header(b"h", b"x", 0o600, size=11) + b"11 uid=abc\n".ljust(512, b"\0") + header(b"f", b"0", 0),
    ],
)
def test_what_is_no_tar_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidParameter):
        members(raw)


def test_an_archive_may_lack_its_end() -> None:
    assert len(members(header(b"f", b"0", 0o600))[0]) == 1
    assert members(b"") == ([], b"")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (b"a/b", b"a/b"),
        (b"./a/b/", b"a/b"),
        (b"/etc/passwd", b"etc/passwd"),
        (b"a//b/./c", b"a/b/c"),
        (b"a/../b", b"b"),
        (b".", b""),
        (b"./", b""),
        (b".hidden", b".hidden"),
        (b"a/.b", b"a/.b"),
        (b"..a", b"..a"),
    ],
)
def test_clean(name: bytes, path: bytes) -> None:
    assert clean(name) == path


@pytest.mark.parametrize("name", [b"..", b"../a", b"a/../../b", b"/../a", b"./../a"])
def test_clean_refuses_to_leave(name: bytes) -> None:
    with pytest.raises(InvalidParameter, match="leads out of the layer"):
        clean(name)


def test_journal_gives_back_what_it_was_told(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(range(256)) * 10)
    writer = journal.JournalWriter(tmp_path / "journal")
    writer.raw(b"head")
    writer.file(b"f", [(0, 2560)])
    writer.raw(b"x" * 1_000_000)
    writer.file(b"f", [(1, 2), (256, 3)])
    writer.close()
    out = io.BytesIO()
    journal.replay(tmp_path / "journal", lambda number, path: os.open(tmp_path / os.fsdecode(path), os.O_RDONLY), out)
    assert out.getvalue() == b"head" + bytes(range(256)) * 10 + b"x" * 1_000_000 + b"\x01\x02\x00\x01\x02"
    assert (tmp_path / "journal").stat().st_size < 10_000


def test_a_shortened_file_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    writer = journal.JournalWriter(tmp_path / "journal")
    writer.file(b"f", [(0, 4)])
    writer.close()
    with pytest.raises(EngineError, match="damaged"):
        journal.replay(tmp_path / "journal", lambda *_: os.open(tmp_path / "f", os.O_RDONLY), io.BytesIO())


def test_storage_options() -> None:
    assert default_size(["overlay2.override_kernel_check=true", "btrfs.min_space=1G"]) == 0
    assert default_size(["overlay2.size=1.5G"]) == default_size(["size=1536m"]) == 3 << 29
    for option, said in [
        ("overlay2.size=big", "invalid size: 'big'"),
        ("what=1", "unknown option"),
        ("size", "KEY=VALUE"),
    ]:
        with pytest.raises(InvalidParameter, match=said):
            default_size([option])

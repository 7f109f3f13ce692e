"""`docker cp`: its rules for paths, and what of a file arrives. The expectations are what dockerd 26.1 does."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Client, eventually

pytestmark = pytest.mark.real

PREPARE = (
    "mkdir -p /d/sub /other; echo one > /d/file; echo two > /d/sub/f2; ln -s file /d/link; ln -s sub /d/dlink;"
    " ln -s nowhere /d/broken; ln -s /d/sub /abs; echo x > /plain; touch /ready; sleep 600"
)


@pytest.fixture(scope="module")
def base(engine: Client) -> Iterator[str]:
    """An image with a tree to copy from and into."""
    name = engine.name()
    engine.docker("run", "-d", "--name", name, "--network", "none", engine.image, "sh", "-c", PREPARE)
    eventually(lambda: engine.docker("exec", name, "test", "-e", "/ready", check=False).returncode == 0)
    engine.docker("commit", "-c", 'CMD ["sleep", "600"]', name, name)
    engine.docker("rm", "-f", name)
    yield name
    engine.docker("rmi", "-f", name)


@pytest.fixture(params=["running", "stopped"])
def box(engine: Client, base: str, request: pytest.FixtureRequest) -> Iterator[str]:
    name = engine.name()
    verb = ["run", "-d"] if request.param == "running" else ["create"]
    engine.docker(*verb, "--name", name, "--network", "none", base)
    yield name
    engine.docker("rm", "-fv", name)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    here = tmp_path / "src"
    (here / "dir/sub").mkdir(parents=True)
    (here / "file").write_text("new\n")
    (here / "dir/f2").write_text("second\n")
    (here / "link").symlink_to("file")
    (here / "dlink").symlink_to("dir")
    return here


@pytest.mark.parametrize(
    ("what", "where", "there", "refusal"),
    [
        ("file", "/other", "/other/file", ""),
        ("file", "/other/", "/other/file", ""),
        ("file", "/other/new", "/other/new", ""),
        ("file", "/d/file", "/d/file", ""),
        ("file", "/", "/file", ""),
        ("file", "other", "/other/file", ""),
        ("file", "", "", "no such directory"),
        ("file", "/abs", "/d/sub/file", ""),
        ("file", "/d/link", "/d/file", ""),
        ("file", "/d/broken", "/d/nowhere", ""),
        ("file", "/missing/new", "", "could not find the file /missing in container"),
        ("file", "/missing/", "", "no such directory"),
        ("file", "/plain/", "", "no such directory"),
        ("nothere", "/other", "", "no such file or directory"),
        ("dir", "/other", "/other/dir/f2", ""),
        ("dir", "/new", "/new/f2", ""),
        ("dir/", "/new/", "/new/f2", ""),
        ("dir/.", "/other", "/other/f2", ""),
        ("dir/.", "/new", "/new/f2", ""),
        ("dir", "/abs/", "/d/sub/dir/f2", ""),
        ("dir", "/plain", "", "cannot copy directory"),
        ("dir/.", "/plain", "", "cannot copy directory"),
        ("dir", "/missing/new", "", "could not find the file /missing in container"),
        ("dlink/", "/new", "/new/f2", ""),
    ],
)
def test_in(engine: Client, box: str, source: Path, what: str, where: str, there: str, refusal: str) -> None:
    done = engine.docker("cp", f"{source}/{what}", f"{box}:{where}", check=False)
    if refusal:
        assert done.returncode == 1
        assert refusal in done.stderr.lower()
        return
    assert done.returncode == 0, done.stderr
    shown = subprocess.run(["docker", "cp", f"{box}:{there}", "-"], env=engine.env(), capture_output=True, check=True)
    assert (b"second\n" if there.endswith("f2") else b"new\n") in shown.stdout


@pytest.fixture(scope="module", params=["running", "stopped"])
def source_box(engine: Client, base: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """One that is only read."""
    name = engine.name()
    verb = ["run", "-d"] if request.param == "running" else ["create"]
    engine.docker(*verb, "--name", name, "--network", "none", base)
    yield name
    engine.docker("rm", "-fv", name)


@pytest.mark.parametrize(
    ("what", "where", "there", "refusal"),
    [
        ("/d/file", "", "file", ""),
        ("d/file", "as", "as", ""),
        ("/d/../d/./file", "as", "as", ""),
        ("/d", "", "d/file", ""),
        ("/d/", "as", "as/file", ""),
        ("/d/.", "", "file", ""),
        ("/d/.", "as", "as/file", ""),
        ("/d/dlink/", "as", "as/f2", ""),
        ("/d/dlink/.", "as", "as/f2", ""),
        ("/abs/f2", "as", "as", ""),
        ("/d/file", "missing/as", "", "invalid output path"),
        ("/d/file", "missing/", "", "no such directory"),
        ("/d/nothere", "", "", "could not find the file /d/nothere in container"),
        ("/d/file/", "", "", "not a directory"),
    ],
)
def test_out(engine: Client, source_box: str, tmp_path: Path, what: str, where: str, there: str, refusal: str) -> None:
    target = tmp_path / "out"
    target.mkdir()
    done = engine.docker("cp", f"{source_box}:{what}", f"{target}/{where}", check=False)
    if refusal:
        assert done.returncode == 1
        assert refusal in done.stderr.lower()
        assert list(target.iterdir()) == []
    else:
        assert done.returncode == 0, done.stderr
        assert (target / there).read_text() == ("two\n" if there.endswith("f2") or "f2" in what else "one\n")


def test_links_are_followed_only_when_asked(engine: Client, box: str, source: Path, tmp_path: Path) -> None:
    for option, is_link in (([], True), (["-L"], False)):
        target = tmp_path / f"out{len(option)}"
        engine.docker("cp", *option, f"{box}:/d/link", target)
        assert target.is_symlink() is is_link
        engine.docker("cp", *option, source / "link", f"{box}:/other/back{len(option)}")
        engine.docker("cp", f"{box}:/other/back{len(option)}", tmp_path / f"back{len(option)}")
        assert (tmp_path / f"back{len(option)}").is_symlink() is is_link
    assert (tmp_path / "out1").read_text() == "one\n"


def test_a_file_and_a_folder_do_not_replace_each_other(engine: Client, box: str, source: Path) -> None:
    (source / "dir/file").mkdir()
    refused = engine.docker("cp", f"{source}/dir/.", f"{box}:/d", check=False)
    assert (refused.returncode, "cannot overwrite non-directory" in refused.stderr) == (1, True)
    (source / "sub").write_text("a file")
    refused = engine.docker("cp", source / "sub", f"{box}:/d", check=False)
    assert refused.returncode == 1
    assert 'cannot overwrite directory "/d/sub" with non-directory' in refused.stderr


def test_a_folder_in_which_nothing_can_be_made(engine: Client, base: str, source: Path) -> None:
    name = engine.name()
    engine.docker("run", "-d", "--name", name, "--network", "none", base)
    try:
        refused = engine.docker("cp", source / "file", f"{name}:/proc", check=False)
        assert refused.returncode == 1
        assert f"/proc in container {name} cannot take 'file': no such file or directory" in refused.stderr
        assert engine.docker("cp", f"{name}:/proc/1/comm", "-").stdout.endswith("\0")
    finally:
        engine.docker("rm", "-f", name)


def test_all_of_a_file_arrives(engine: Client, base: str, tmp_path: Path) -> None:
    """There and back: nanoseconds, holes, hard links, devices, pipes, users' attributes, capabilities, long names."""
    source = tmp_path / "src"
    source.mkdir()
    (source / "file").write_text("text")
    os.chmod(source / "file", 0o4711)
    os.link(source / "file", source / "hard")
    (source / ("n" * 255)).write_text("long")
    deep = source / "/".join(["d" * 200] * 5)
    deep.mkdir(parents=True)
    (deep / "bottom").write_text("deep")
    os.mkfifo(source / "pipe")
    os.mknod(source / "null", 0o20666, os.makedev(1, 3))
    with (source / "sparse").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"island")
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr(source / "hard", "security.capability", capability)
    os.setxattr(source / "file", "user.note", b"\x00\xffbytes")
    os.chown(deep, 12, 34)
    # What has a capability may have no owner changed afterwards; times come last.
    for path in (source / "file", deep, source):
        os.utime(path, ns=(981173106_123456789, 981173106_123456789))
    (source / "soft").symlink_to("file")
    os.utime(source / "soft", ns=(5_500000001, 5_500000001), follow_symlinks=False)
    name = engine.name()
    engine.docker("run", "-d", "--name", name, "--network", "none", "-v", "/vol", base)
    try:
        for place in ("/plain-folder", "/vol/copy"):
            engine.docker("cp", source, f"{name}:{place}")
            back = tmp_path / place.replace("/", "_")
            raw = subprocess.run(
                ["docker", "cp", f"{name}:{place}", "-"], env=engine.env(), capture_output=True, check=True
            )
            back.mkdir()
            # GNU tar keeps what the docker CLI leaves out when it unpacks.
            unpack = [
                "tar",
                "-xpf",
                "-",
                "-C",
                back,
                "--xattrs",
                "--xattrs-include=*",
                "--strip-components=1",
                "--sparse",
            ]
            subprocess.run(unpack, input=raw.stdout, check=True)
            assert tree(back) == tree(source)
            assert os.getxattr(back / "file", "security.capability") == capability
            used = engine.docker("exec", name, "du", "-k", f"{place}/sparse").stdout.split()[0]
            assert int(used) < 4096
    finally:
        engine.docker("rm", "-fv", name)


def tree(root: Path) -> dict[str, tuple[object, ...]]:
    """What a copy keeps by the CLI, which sends whole seconds and no users' attributes."""
    found = {}
    for path in sorted(root.rglob("*")):
        facts = path.lstat()
        link = path.readlink() if path.is_symlink() else ""
        size = 0 if path.is_dir() else facts.st_size
        same = facts.st_nlink if path.is_file() else 0
        found[str(path.relative_to(root))] = (
            facts.st_mode, facts.st_uid, facts.st_gid, size, facts.st_rdev, same, facts.st_mtime_ns // 10**9, link,
        )  # fmt: skip
    return found


def test_zstd(engine: Client, base: str, tmp_path: Path) -> None:
    import zstandard

    (tmp_path / "file").write_text("packed")
    data = subprocess.run(["tar", "-C", tmp_path, "-cf", "-", "file"], capture_output=True, check=True).stdout
    name = engine.name()
    engine.docker("create", "--name", name, base)
    try:
        engine.docker("cp", "-", f"{name}:/other", input=zstandard.compress(data))
        engine.docker("cp", f"{name}:/other/file", tmp_path / "back")
        assert (tmp_path / "back").read_text() == "packed"
    finally:
        engine.docker("rm", name)

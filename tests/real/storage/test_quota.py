"""Containers of limited size: who writes past it is stopped, the neighbours are not, and nothing is left."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Engine, eventually

pytestmark = pytest.mark.real

BACKENDS = {"ext4": "disk image", "btrfs": "btrfs quota group"}
FILL = "dd if=/dev/zero of=/big bs=1M count={count}; echo code $?"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a new file system of a kind."""
    mounted: list[Path] = []

    def make(kind: str) -> Path:
        program = f"mkfs.{kind}"
        if shutil.which(program) is None:
            pytest.fail(
                f"missing Debian package (make setup installs it): {'btrfs-progs' if kind == 'btrfs' else 'e2fsprogs'}"
            )
        image, target = tmp_path / "image", tmp_path / "disk"
        with image.open("wb") as file:
            file.truncate(600 << 20)
        subprocess.run([program, "-q", image], check=True, capture_output=True)
        target.mkdir()
        subprocess.run(["mount", "-o", "loop", image, target], check=True)
        mounted.append(target)
        return target

    yield make
    for target in mounted:
        subprocess.run(["umount", target], check=True)


def loops(root: Path) -> int:
    """Loop devices that have a file below a folder."""
    shown = subprocess.run(
        ["losetup", "--noheadings", "--output", "BACK-FILE"], capture_output=True, text=True, check=True
    )
    return sum(line.strip().startswith(f"{root}/") for line in shown.stdout.splitlines())


def write(engine: Engine, name: str, count: int) -> tuple[str, str]:
    """(exit code, message) of a writer of so many MiB."""
    done = engine.docker("exec", name, "sh", "-c", FILL.format(count=count))
    return done.stdout.strip(), done.stderr


@pytest.mark.parametrize("kind", BACKENDS)
def test_a_container_that_writes_past_its_size(
    disk: Callable[[str], Path], own_engine: Callable[..., Engine], kind: str
) -> None:
    data = disk(kind)
    engine = own_engine("--data-root", str(data / "engine"))
    for name, options in (("limited", ["--storage-opt", "size=40m"]), ("free", [])):
        engine.docker("run", "-d", "--name", name, "--network", "none", *options, engine.image, "sleep", "600")
    code, message = write(engine, "limited", 60)
    assert code == "code 1" and ("No space left" in message or "quota exceeded" in message)
    written = int(engine.docker("exec", "limited", "stat", "-c", "%s", "/big").stdout)
    assert 28 << 20 < written <= 40 << 20
    assert write(engine, "free", 60)[0] == "code 0"
    info = engine.http("GET", "/info").json()
    assert ["Size limits", BACKENDS[kind]] in info["DriverStatus"]
    inspected = engine.inspect("limited")
    assert inspected["HostConfig"]["StorageOpt"] == {"size": "40m"}
    assert "/merged" in inspected["GraphDriver"]["Data"]["MergedDir"]

    engine.docker("exec", "limited", "sh", "-c", "rm /big; echo kept > /kept; rm /bin/wget")
    engine.docker("kill", "limited")
    engine.docker("cp", "limited:/kept", data / "copied")
    assert (data / "copied").read_text() == "kept\n"
    assert {"A /kept", "D /bin/wget"} <= set(engine.docker("diff", "limited").stdout.splitlines())
    assert (
        b"kept"
        in subprocess.run(["docker", "export", "limited"], env=engine.env(), capture_output=True, check=True).stdout
    )
    engine.docker("commit", "limited", "of-limited")
    assert engine.docker("run", "--rm", "--network", "none", "of-limited", "cat", "/kept").stdout == "kept\n"
    sizes = engine.docker("ps", "-as", "--filter", "name=limited", "--format", "{{.Size}}").stdout
    assert sizes.startswith("5B")
    eventually(lambda: loops(data) == 0)

    engine.docker("start", "limited")
    engine.kill9()
    engine.start()
    assert engine.docker("exec", "limited", "cat", "/kept").stdout == "kept\n"
    assert write(engine, "limited", 60)[0] == "code 1"
    engine.docker("rm", "-f", "limited", "free")
    engine.docker("rmi", "of-limited")
    eventually(lambda: loops(data) == 0 and not any((data / "engine").glob("*/writable/*")))
    eventually(lambda: not any((data / "engine").glob("*/tmp/*")))
    if kind == "btrfs":
        shown = subprocess.run(["btrfs", "qgroup", "show", data], capture_output=True, text=True, check=True)
        eventually(lambda: "0/25" not in shown.stdout.replace("0/5 ", ""))


def test_a_size_for_all(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine("--storage-opt", "overlay2.size=30m")
    engine.docker("run", "-d", "--name", "limited", "--network", "none", engine.image, "sleep", "600")
    assert write(engine, "limited", 50)[0] == "code 1"
    engine.docker(
        "run", "-d", "--name", "more", "--storage-opt", "size=90m", "--network", "none", engine.image, "sleep", "600"
    )
    assert write(engine, "more", 50)[0] == "code 0"
    engine.docker(
        "run", "-d", "--name", "all", "--storage-opt", "size=0", "--network", "none", engine.image, "sleep", "600"
    )
    assert write(engine, "all", 50)[0] == "code 0"
    assert loops(engine.root) == 2
    for value, said in (("much", "invalid size: 'much'"), ("1m", "the least is 8 MiB")):
        failed = engine.docker("create", "--storage-opt", f"size={value}", engine.image, check=False)
        assert failed.returncode == 1 and said in failed.stderr
    failed = engine.docker("create", "--storage-opt", "odd=1", engine.image, check=False)
    assert "Unknown option odd" in failed.stderr


def test_a_kill_while_limited_layers_are_made(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine()
    creators = [engine.popen("create", "--storage-opt", "size=64m", engine.image) for _ in range(6)]
    # Without a pause: an image is in the making for some milliseconds only.
    while not any(engine.root.glob("data/*/tmp/*/disk.img")) and any(creator.poll() is None for creator in creators):
        pass
    engine.kill9()
    for creator in creators:
        creator.communicate(timeout=30)
    engine.start()
    known = set(engine.docker("ps", "-aq", "--no-trunc").stdout.split())
    eventually(lambda: {path.name for path in engine.root.glob("data/*/writable/*")} == known)
    eventually(lambda: not any(engine.root.glob("data/*/tmp/*")) and loops(engine.root) == 0)


def test_where_no_back_end_is_possible(own_engine: Callable[..., Engine], tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for folder in os.environ["PATH"].split(os.pathsep):
        for path in Path(folder).glob("*") if Path(folder).is_dir() else ():
            if not path.name.startswith("mkfs") and not (programs / path.name).exists():
                (programs / path.name).symlink_to(path)
    engine = own_engine(environment={"PATH": str(programs)})
    failed = engine.docker("create", "--storage-opt", "size=64m", engine.image, check=False)
    assert failed.returncode == 1
    for part in ("cannot be limited on extfs here", "prjquota", "install e2fsprogs"):
        assert part in failed.stderr, failed.stderr
    assert ["Size limits", "none"] in engine.http("GET", "/info").json()["DriverStatus"]

    # Rather no daemon than one whose containers are not limited as it was told.
    engine.stop()
    mark = engine.mark()
    engine.flags += ["--storage-opt", "overlay2.size=64m"]
    engine.spawn()
    eventually(lambda: not engine.running, timeout=30)
    assert "cannot be limited on extfs here" in engine.log(mark)
    del engine.flags[-2:]

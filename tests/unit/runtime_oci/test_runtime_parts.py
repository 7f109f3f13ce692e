"""Small parts: watched folders, output within bounds, cgroups, programs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from plugin_sdk import InvalidParameter, NotSupported, SkipPlugin
from plugins.runtime_oci import cgroups, inits, output, runtimes
from plugins.runtime_oci.binary import CRUN, OTHER, RUNC, Binary, parse_version
from plugins.runtime_oci.settings import RuntimeSettings, read_profile
from plugins.runtime_oci.starting import by_fifo
from plugins.runtime_oci.watch import FileWatch


async def test_a_watched_file_is_told_once(tmp_path: Path) -> None:
    watch = FileWatch(tmp_path / "w")
    watch.open()
    told: list[str] = []
    try:
        (watch.folder / "early").write_text("3")
        for name in ("early", "late", "renamed", "never"):
            watch.expect(name, lambda name=name: told.append(name))
        (watch.folder / "late").write_text("4")
        (watch.folder / "late").write_text("5")
        (watch.folder / "tmp").write_text("6")
        (watch.folder / "tmp").rename(watch.folder / "renamed")
        watch.forget("never")
        (watch.folder / "never").write_text("7")
        await asyncio.sleep(0.1)
        assert sorted(told) == ["early", "late", "renamed"]
        found = watch.read("renamed")
        assert found is not None
        assert found[0] == 6
        assert watch.read("absent") is None
        watch.remove("renamed")
        watch.remove("renamed")
        assert watch.read("renamed") is None
    finally:
        watch.close()


def _pipe(into: output.Output, stream: int) -> int:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)

    def receive() -> output.Chunk | None:
        data = os.read(reading, 65536)
        return (stream, data) if data else None

    into.watch(reading, receive)
    return writing


async def test_output_joins_pieces_and_ends() -> None:
    queue = output.Output()
    one, two = _pipe(queue, 1), _pipe(queue, 2)
    os.write(one, b"a")
    await asyncio.sleep(0.01)
    os.write(one, b"b")
    await asyncio.sleep(0.01)
    os.write(two, b"c")
    os.close(one)
    os.close(two)
    await asyncio.sleep(0.01)
    assert [await queue.read(), await queue.read(), await queue.read()] == [(1, b"ab"), (2, b"c"), None]


async def test_output_stops_reading_for_a_slow_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "LIMIT", 100_000)
    queue = output.Output()
    writing = _pipe(queue, 1)
    written = 0
    for _ in range(50):
        try:
            written += os.write(writing, b"x" * 65536)
        except BlockingIOError:
            await asyncio.sleep(0.002)
    assert queue.full
    assert written < 500_000
    os.close(writing)
    got = 0
    while (chunk := await queue.read()) is not None:
        got += len(chunk[1])
    assert got == written


async def test_discarded_output_holds_nobody_up() -> None:
    queue = output.Output()
    writing = _pipe(queue, 1)
    queue.discard()
    written = 0
    for _ in range(200):
        try:
            written += os.write(writing, b"x" * 65536)
        except BlockingIOError:
            await asyncio.sleep(0.001)
    assert written > output.LIMIT
    assert not queue.full
    os.close(writing)
    assert await queue.read() is None


V1 = """\
30 29 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
34 30 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
"""
V2 = "30 29 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


def test_hierarchies() -> None:
    hybrid = cgroups.detect(V1)
    assert not hybrid.v2
    assert hybrid.mounts["cpu"] == Path("/sys/fs/cgroup/cpu,cpuacct")
    assert hybrid.controllers == {"cpu", "cpuacct", "memory"}
    assert cgroups.detect(V2).v2


def test_killed_for_memory(tmp_path: Path) -> None:
    (tmp_path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 0\n")
    (tmp_path / "memory.events").write_text("low 0\noom 1\noom_kill 1\noom_group_kill 0\n")
    assert not cgroups.oom_killed(tmp_path, v2=False)
    assert cgroups.oom_killed(tmp_path, v2=True)
    assert not cgroups.oom_killed(tmp_path / "gone", v2=True)


def test_processes_below_count_too(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "cgroup.procs").write_text("1\n2\n")
    (tmp_path / "inner/cgroup.procs").write_text("3\n")
    assert sorted(cgroups.processes(tmp_path)) == [1, 2, 3]


def test_versions() -> None:
    crun = parse_version("crun version 1.8.1\ncommit: abc\nrundir: /run/crun\n")
    assert (crun.kind, crun.version, crun.commit) == (CRUN, "1.8.1", "abc")
    assert parse_version("runc version 1.1.5+ds1\ncommit: 1-2\n").kind == RUNC
    assert parse_version("runsc version release-1\nspec: 1.1\n").kind == OTHER
    assert parse_version("").kind == OTHER


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotSupported, match="/nosuch/runtime"):
        Binary("/nosuch/runtime", tmp_path).program()


def test_an_unknown_runtime_runs_from_its_own_file(tmp_path: Path) -> None:
    binary = Binary("/bin/true", tmp_path, ["--debug"])
    assert binary.program() == "/bin/true"
    assert binary.options(systemd=True) == ["--debug", "--root", str(tmp_path), "--systemd-cgroup"]


def test_a_known_runtime_runs_from_a_copy_that_nobody_can_write(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(Path("/bin/true").read_bytes())
    program.chmod(0o755)
    binary = Binary(str(program), tmp_path)
    binary.known = parse_version("crun version 1\n")
    copy = binary.program()
    try:
        assert copy.startswith(f"/proc/{os.getpid()}/fd/")
        assert binary.program() == copy
        with pytest.raises(OSError), open(copy, "r+b") as file:
            file.write(b"x")
        program.write_bytes(Path("/bin/false").read_bytes() + b"\0")
        binary.program()
        assert binary.run([]).code == 1, "a replaced program is taken up"
    finally:
        binary.close()


def fake_path(monkeypatch: pytest.MonkeyPatch, folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.parametrize(
    ("installed", "settings", "names"),
    [
        (("crun", "runc"), {}, ["crun", "runc"]),
        (("crun", "runc"), {"default_runtime": "runc"}, ["runc", "crun"]),
        (("crun",), {}, ["crun", "runc"]),
        (("runc",), {}, ["runc"]),
        (("crun",), {"runtimes": {"mine": "/x"}, "default_runtime": "mine"}, ["mine", "crun", "runc"]),
        (("crun", "runc"), {"default_runtime": "io.containerd.runc.v2"}, ["runc", "crun"]),
    ],
)
def test_which_runtimes_there_are(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    installed: tuple[str, ...],
    settings: dict[str, object],
    names: list[str],
) -> None:
    fake_path(monkeypatch, tmp_path, *installed)
    assert list(runtimes.binaries(RuntimeSettings.model_validate(settings), tmp_path)) == names


def test_runtimes_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_path(monkeypatch, tmp_path)
    with pytest.raises(SkipPlugin, match="install the package crun"):
        runtimes.binaries(RuntimeSettings(), tmp_path)
    fake_path(monkeypatch, tmp_path, "crun")
    with pytest.raises(InvalidParameter, match="specified default runtime 'x' does not exist"):
        runtimes.binaries(RuntimeSettings(default_runtime="x"), tmp_path)
    with pytest.raises(InvalidParameter, match="reserved"):
        runtimes.binaries(RuntimeSettings.model_validate({"runtimes": {"io.containerd.x": "/x"}}), tmp_path)


def test_an_init_must_need_no_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_path(monkeypatch, tmp_path)
    with pytest.raises(NotSupported, match="install the package tini"):
        inits.find_init("", ["nothing-like-it"])
    with pytest.raises(NotSupported, match=r"'/nosuch' of --init-path is not there"):
        inits.find_init("/nosuch")
    with pytest.raises(NotSupported, match="needs shared libraries"):
        inits.find_init("/bin/ls")


def test_profiles_from_files(tmp_path: Path) -> None:
    assert read_profile("builtin") is None
    assert read_profile("unconfined") == {}
    (tmp_path / "p").write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    assert read_profile(str(tmp_path / "p")) == {"defaultAction": "SCMP_ACT_ALLOW"}
    (tmp_path / "p").write_text("[]")
    for wrong in (str(tmp_path / "p"), str(tmp_path / "absent")):
        with pytest.raises(InvalidParameter, match="seccomp profile"):
            read_profile(wrong)


@pytest.mark.parametrize("prepare", [lambda path: None, lambda path: path.write_text(""), os.mkfifo])
def test_only_a_fifo_with_a_reader_starts_a_container(tmp_path: Path, prepare: Callable[[Path], None]) -> None:
    (tmp_path / "id").mkdir()
    prepare(tmp_path / "id/exec.fifo")
    assert not by_fifo(CRUN, tmp_path, "id")


def test_starting_by_the_fifo(tmp_path: Path) -> None:
    (tmp_path / "id").mkdir()
    path = tmp_path / "id/exec.fifo"
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert not by_fifo(RUNC, tmp_path, "id")
        assert by_fifo(CRUN, tmp_path, "id")
        assert os.read(reading, 10) == b"\0"
        assert not path.exists()
    finally:
        os.close(reading)

"""The runtime's driver alone: real conmon, real crun and runc, no daemon."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from plugin_sdk import Conflict, EngineError, InvalidParameter, Unavailable
from plugin_sdk.containers import ContainerConfig, ContainerRecord, ExecSpec, HostConfig, Preparation, Resources
from plugin_sdk.runtime import STDERR, STDOUT, Exit, Launch, LogTarget, ProcessIO, Running
from plugins.runtime_oci import attach, cgroups, host, monitor, output
from plugins.runtime_oci.binary import Binary
from plugins.runtime_oci.driver import OciRuntime, Shared
from plugins.runtime_oci.execs import ExecLauncher
from plugins.runtime_oci.migration import Readiness, own_procs
from plugins.runtime_oci.spec import SpecDefaults
from plugins.runtime_oci.watch import FileWatch

pytestmark = pytest.mark.real

WAIT = 20.0


class Bench:
    """A driver with folders of its own, and what its containers told of their ends."""

    def __init__(self, folder: Path, rootfs: Path, name: str) -> None:
        self.folder, self.rootfs, self.name = folder, rootfs, name
        self.ends: dict[str, list[Exit]] = {}
        self.told = asyncio.Event()
        self.records: dict[str, ContainerRecord] = {}

    async def open(self) -> None:
        exits, execs = FileWatch(self.folder / "exits"), ExecLauncher(self.folder / "execs")
        exits.open()
        execs.open()
        binary = Binary(shutil.which(self.name) or self.name, self.folder / "state")
        binary.root.mkdir(exist_ok=True)
        groups = cgroups.detect()
        defaults = SpecDefaults(cgroup_parent="/engine-tests")
        self.shared = Shared(
            "", exits, execs, defaults, self.records.__getitem__, groups, host.look(groups), Readiness(own_procs())
        )
        self.driver = OciRuntime(self.name, binary, self.shared)
        await binary.identify()

    def let_go(self) -> None:
        """As a killed daemon does."""
        self.driver.release()
        self.shared.exits.close()
        self.shared.execs.close()

    async def close(self) -> None:
        for container_id in self.records:
            await self.driver.delete(container_id)
        self.let_go()

    def bundle(self, container_id: str) -> Path:
        return self.folder / container_id

    async def on_exit(self, container_id: str, end: Exit) -> None:
        self.ends.setdefault(container_id, []).append(end)
        self.told.set()
        self.told = asyncio.Event()

    async def end(self, container_id: str) -> Exit:
        async with asyncio.timeout(WAIT):
            while container_id not in self.ends:
                await self.told.wait()
        return self.ends[container_id][0]

    async def create(
        self, *command: str, host_config: dict[str, Any] | None = None, log: LogTarget | None = None, **config: Any
    ) -> str:
        container = ContainerRecord(
            Id=secrets.token_hex(32),
            Name="t",
            Created="",
            ImageID="",
            ImageRef="",
            Driver="x",
            Runtime=self.name,
            Path=command[0],
            Args=list(command[1:]),
            Config=ContainerConfig(**config),
            HostConfig=HostConfig(**{"CgroupnsMode": "host", "IpcMode": "private", **(host_config or {})}),
        )
        self.records[container.Id] = container
        bundle = self.bundle(container.Id)
        bundle.mkdir()
        spec = await self.driver.spec(container, Preparation(bundle, self.rootfs))
        spec["linux"]["namespaces"].append({"type": "network"})
        launch = Launch(
            container.Id,
            bundle,
            spec,
            tty=container.Config.Tty,
            stdin=container.Config.OpenStdin,
            stdin_once=container.Config.StdinOnce,
            log=log,
        )
        await self.driver.create(launch, self.on_exit)
        return container.Id

    async def run(self, *command: str, **options: Any) -> tuple[Exit, dict[int, bytes]]:
        container_id = await self.create(*command, **options)
        streams = await self.driver.attach(container_id)
        await self.driver.start(container_id)
        found = await read_all(streams)
        end = await self.end(container_id)
        await self.driver.delete(container_id)
        return end, found

    async def running(self, *command: str, **options: Any) -> str:
        container_id = await self.create(*command, **options)
        await self.driver.start(container_id)
        return container_id

    async def exec(self, container_id: str, *argv: str, **options: Any) -> Any:
        spec = ExecSpec(argv, **options)
        return await self.driver.exec(container_id, secrets.token_hex(32), spec, self.records[container_id])


async def read_all(streams: ProcessIO) -> dict[int, bytes]:
    found: dict[int, bytes] = {STDOUT: b"", STDERR: b""}
    async with asyncio.timeout(WAIT):
        while (chunk := await streams.read()) is not None:
            found[chunk[0]] += chunk[1]
    return found


@pytest.fixture(scope="module")
def rootfs(busybox_tar: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rootfs")
    with tarfile.open(busybox_tar) as tar:
        # As an attribute: Python 3.11.2 has no argument for it.
        tar.extraction_filter = lambda member, path: member
        tar.extractall(folder)
    return folder


@pytest.fixture(params=["crun", "runc"])
async def bench(request: pytest.FixtureRequest, rootfs: Path) -> AsyncIterator[Bench]:
    # A long path: sockets below it do not fit into the 108 bytes of an address.
    with tempfile.TemporaryDirectory(prefix="engine-runtime-" + "x" * 60) as folder:
        made = Bench(Path(folder), rootfs, request.param)
        await made.open()
        try:
            yield made
        finally:
            await made.close()


@pytest.fixture
async def crun(rootfs: Path) -> AsyncIterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="engine-runtime-") as folder:
        made = Bench(Path(folder), rootfs, "crun")
        await made.open()
        try:
            yield made
        finally:
            await made.close()


async def test_streams_and_exit_code(bench: Bench) -> None:
    end, found = await bench.run("sh", "-c", "echo out; echo err >&2; exit 7")
    assert end.code == 7
    assert not end.oom
    assert abs(end.finished_ns - time.time_ns()) < 60 * 10**9
    assert found == {STDOUT: b"out\n", STDERR: b"err\n"}


async def test_nothing_of_a_run_is_left(bench: Bench) -> None:
    container_id = await bench.running("true")
    await bench.end(container_id)
    await bench.driver.delete(container_id)
    await bench.driver.delete(container_id)
    await asyncio.sleep(0.05)
    assert bench.ends[container_id] and len(bench.ends[container_id]) == 1
    for folder in ("exits", "execs", "state"):
        assert [name for name in os.listdir(bench.folder / folder) if not name.startswith(".")] == []
    assert not list(Path("/sys/fs/cgroup").glob(f"**/{container_id}"))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("nosuch", 'exec: "nosuch": executable file not found in $PATH: unknown'),
        ("/nosuch", 'exec: "/nosuch": stat /nosuch: no such file or directory: unknown'),
        ("/etc/passwd", 'exec: "/etc/passwd": permission denied: unknown'),
        ("/etc", "permission denied"),
    ],
)
async def test_a_command_that_cannot_run(bench: Bench, command: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        await bench.create(command)
    assert message in str(caught.value)
    assert "OCI runtime create failed" in str(caught.value)
    assert not bench.ends
    state = bench.folder / "state"
    assert [name for name in os.listdir(state) if not name.startswith(".")] == []


async def test_input_with_an_end(bench: Bench) -> None:
    container_id = await bench.create("sh", "-c", "wc -c; echo done", OpenStdin=True, StdinOnce=True)
    streams = await bench.driver.attach(container_id)
    await bench.driver.start(container_id)
    for _ in range(20):
        await streams.write(b"x" * 50_000)
    await streams.close_stdin()
    assert (await read_all(streams))[STDOUT] == b"1000000\ndone\n"
    assert (await bench.end(container_id)).code == 0


async def test_a_client_that_only_watches_does_not_end_the_input(crun: Bench) -> None:
    container_id = await crun.running("cat", OpenStdin=True, StdinOnce=True)
    watcher = await crun.driver.attach(container_id)
    await watcher.close()
    writer = await crun.driver.attach(container_id)
    await writer.write(b"still open\n")
    assert await writer.read() == (STDOUT, b"still open\n")
    await writer.close_stdin()
    assert (await crun.end(container_id)).code == 0
    await writer.close()


async def test_input_without_an_end_outlives_its_clients(crun: Bench) -> None:
    container_id = await crun.running("cat", OpenStdin=True)
    for text in (b"one\n", b"two\n"):
        streams = await crun.driver.attach(container_id)
        await streams.write(text)
        assert await streams.read() == (STDOUT, text)
        await streams.close_stdin()
        await streams.close()
    await crun.driver.kill(container_id, signal.SIGKILL)
    assert (await crun.end(container_id)).code == 137


async def test_several_clients_see_the_same(crun: Bench) -> None:
    container_id = await crun.create("sh", "-c", "echo a; echo b >&2")
    clients = [await crun.driver.attach(container_id) for _ in range(12)]
    await crun.driver.start(container_id)
    for client in clients:
        assert await read_all(client) == {STDOUT: b"a\n", STDERR: b"b\n"}


async def test_a_client_that_reads_nothing_is_cut_off(crun: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attach, "STALL", 0.5)
    monkeypatch.setattr(output, "LIMIT", 200_000)
    container_id = await crun.create("sh", "-c", "head -c 5000000 /dev/zero; echo >&2 end")
    sleeper, reader = [await crun.driver.attach(container_id) for _ in range(2)]
    await crun.driver.start(container_id)
    found = await read_all(reader)
    assert len(found[STDOUT]) == 5_000_000
    assert found[STDERR] == b"end\n"
    assert (await crun.end(container_id)).code == 0
    with pytest.raises(Unavailable, match="cut off"):
        await read_all(sleeper)


async def test_a_terminal(bench: Bench) -> None:
    container_id = await bench.create(
        "sh", "-c", "read x; stty size; read x; stty size; read x; stty size", Tty=True, OpenStdin=True
    )
    streams = await bench.driver.attach(container_id)
    await bench.driver.start(container_id)
    text = b""
    for height in (10, 20, 30):
        for step in (3, 2, 1, 0):  # in quick succession, as a window is dragged: the last one counts
            await bench.driver.resize(container_id, height + step, 80)
        await asyncio.sleep(0.2)
        await streams.write(b"\r")
        async with asyncio.timeout(WAIT):
            while f"{height} 80".encode() not in text:
                chunk = await streams.read()
                assert chunk is not None
                assert chunk[0] == STDOUT
                text += chunk[1]
    await bench.end(container_id)


async def test_signals_freezing_and_limits(bench: Bench) -> None:
    script = 'trap "exit 5" USR1; while :; do sleep 0.05; done'
    container_id = await bench.running("sh", "-c", script, host_config={"Memory": 64 << 20, "MemorySwap": 64 << 20})
    await bench.driver.pause(container_id)
    groups = cgroups.detect()
    pid = int((bench.bundle(container_id) / "pidfile").read_text())
    group = groups.in_controller(pid, "freezer")
    assert group is not None
    assert cgroups.frozen(group)
    await bench.driver.resume(container_id)
    assert not cgroups.frozen(group)
    await bench.driver.update(container_id, Resources(Memory=96 << 20, MemorySwap=96 << 20, PidsLimit=77))
    pids = groups.in_controller(pid, "pids")
    assert pids is not None
    assert (pids / "pids.max").read_text() == "77\n"
    with pytest.raises(InvalidParameter):
        await bench.driver.update(container_id, Resources(Memory=1))
    assert pid in await bench.driver.pids(container_id)
    await bench.driver.kill(container_id, signal.SIGUSR1)
    assert (await bench.end(container_id)).code == 5
    with pytest.raises(Conflict):
        await bench.driver.kill(container_id, signal.SIGKILL)
    with pytest.raises(Conflict):
        await bench.driver.attach(container_id)


async def test_out_of_memory(crun: Bench) -> None:
    limits = {"Memory": 16 << 20, "MemorySwap": 16 << 20}
    for _ in range(3):
        end, _ = await crun.run("tail", "/dev/zero", host_config=limits)
        assert (end.code, end.oom) == (137, True)


async def test_exec(bench: Bench) -> None:
    container_id = await bench.running("sleep", "1000")
    process = await bench.exec(container_id, "sh", "-c", "cat; echo err >&2; exit 9", stdin=True)
    assert process.pid > 0
    await process.write(b"in\n")
    await process.close_stdin()
    assert await read_all(process) == {STDOUT: b"in\n", STDERR: b"err\n"}
    assert await process.wait() == 9
    as_user = await bench.exec(container_id, "sh", "-c", "id -u; pwd; echo $A", user="5", cwd="/tmp", env=["A=b"])
    assert (await read_all(as_user))[STDOUT] == b"5\n/tmp\nb\n"
    big = await bench.exec(container_id, "head", "-c", "20000000", "/dev/zero")
    assert len((await read_all(big))[STDOUT]) == 20_000_000


async def test_exec_on_a_terminal(bench: Bench) -> None:
    container_id = await bench.running("sleep", "1000")
    process = await bench.exec(
        container_id, "sh", "-c", "tty; stty size; read x; stty size", tty=True, console=(12, 34)
    )
    text = b""
    async with asyncio.timeout(WAIT):
        while b"12 34" not in text:
            chunk = await process.read()
            assert chunk is not None
            text += chunk[1]
        await process.resize(56, 78)
        await asyncio.sleep(0.2)
        await process.write(b"\r")
        text += (await read_all(process))[STDOUT]
    assert b"/dev/pts/" in text
    assert b"56 78" in text
    assert await process.wait() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"argv": ["nosuch"]}, 'exec: "nosuch": executable file not found in $PATH: unknown'),
        ({"argv": ["/etc/passwd"]}, 'exec: "/etc/passwd": permission denied: unknown'),
        ({"argv": ["true"], "cwd": "/nosuch"}, 'chdir to cwd ("/nosuch")'),
        (
            {"argv": ["true"], "user": "nobody-here"},
            "unable to find user nobody-here: no matching entries in passwd file",
        ),
        ({"argv": ["nosuch"], "tty": True}, 'exec: "nosuch": executable file not found in $PATH: unknown'),
    ],
)
async def test_exec_of_what_cannot_run(bench: Bench, options: dict[str, Any], message: str) -> None:
    container_id = await bench.running("sleep", "1000")
    with pytest.raises(InvalidParameter) as caught:
        await bench.exec(
            container_id, *options["argv"], **{key: value for key, value in options.items() if key != "argv"}
        )
    assert message in str(caught.value)
    assert os.listdir(bench.folder / "execs") == []


async def test_output_of_children_that_outlive_an_exec(crun: Bench) -> None:
    container_id = await crun.running("sleep", "1000")
    process = await crun.exec(container_id, "sh", "-c", "sleep 30 & echo started")
    began = time.monotonic()
    assert (await read_all(process))[STDOUT] == b"started\n"
    assert time.monotonic() - began < 10
    assert await process.wait() == 0


async def test_a_client_that_leaves_does_not_hold_an_exec_up(crun: Bench) -> None:
    container_id = await crun.running("sleep", "1000")
    process = await crun.exec(container_id, "sh", "-c", "head -c 9000000 /dev/zero; exit 3")
    await process.close()
    async with asyncio.timeout(WAIT):
        assert await process.wait() == 3


async def test_after_the_daemon_was_killed(bench: Bench) -> None:
    going = await bench.running("cat", OpenStdin=True)
    ending = await bench.running("sh", "-c", "sleep 0.3; exit 42")
    pid = int((bench.bundle(going) / "pidfile").read_text())
    bench.let_go()
    await asyncio.sleep(1)
    await bench.open()
    found = await bench.driver.adopt(going, bench.bundle(going), bench.on_exit)
    assert isinstance(found, Running)
    assert found.pid == pid
    ended = await bench.driver.adopt(ending, bench.bundle(ending), bench.on_exit)
    assert isinstance(ended, Exit)
    assert ended.code == 42
    assert not bench.ends
    assert await bench.driver.adopt("f" * 64, bench.bundle("f" * 64), bench.on_exit) is None
    streams = await bench.driver.attach(going)
    await streams.write(b"hello\n")
    assert await streams.read() == (STDOUT, b"hello\n")
    process = await bench.exec(going, "echo", "again")
    assert (await read_all(process))[STDOUT] == b"again\n"
    await bench.driver.kill(going, signal.SIGKILL)
    assert (await bench.end(going)).code == 137
    assert len(bench.ends[going]) == 1


async def test_a_monitor_that_was_killed(crun: Bench) -> None:
    container_id = await crun.running("sleep", "1000")
    os.kill(int((crun.bundle(container_id) / "conmon.pid").read_text()), signal.SIGKILL)
    await asyncio.sleep(0.2)
    assert await crun.driver.pids(container_id), "the container goes on"
    await crun.driver.kill(container_id, signal.SIGKILL)
    assert (await crun.end(container_id)).code == 255


async def test_deleting_what_runs_kills_it_and_tells_nobody(bench: Bench) -> None:
    container_id = await bench.running("sleep", "1000")
    pid = int((bench.bundle(container_id) / "pidfile").read_text())
    await bench.driver.delete(container_id)
    assert not Path(f"/proc/{pid}").exists()
    await asyncio.sleep(0.1)
    assert not bench.ends
    assert os.listdir(bench.folder / "exits") == []


async def test_a_creation_that_is_given_up_leaves_nothing(crun: Bench) -> None:
    for step in range(12):
        creating = asyncio.create_task(crun.create("sleep", "1000"))
        await asyncio.sleep(0.001 * step)
        if creating.cancel():
            with pytest.raises(asyncio.CancelledError):
                await creating
        else:
            await crun.driver.delete(creating.result())
    for folder in ("state", "exits"):
        assert [name for name in os.listdir(crun.folder / folder) if not name.startswith(".")] == []
    for container_id in crun.records:
        pid = monitor.read_pid(crun.bundle(container_id) / monitor.MONITOR_PID_FILE)
        assert not monitor.is_monitor(pid, container_id)


async def test_the_log_of_the_monitor(crun: Bench, tmp_path: Path) -> None:
    log = LogTarget(tmp_path / "log")
    await crun.run("sh", "-c", "echo out; echo err >&2; printf partial", log=log)
    lines = [line.split(" ", 3)[1:] for line in log.path.read_text().splitlines()]
    assert sorted(lines) == [["stderr", "F", "err"], ["stdout", "F", "out"], ["stdout", "P", "partial"]]


async def test_many_at_once(crun: Bench) -> None:
    ends = await asyncio.gather(*(crun.run("sh", "-c", f"exit {code}") for code in range(20)))
    assert [end.code for end, _ in ends] == list(range(20))


async def test_a_missing_mount_source_is_named(crun: Bench) -> None:
    container = await crun.create("true")
    await crun.driver.delete(container)
    bundle = crun.folder / "other"
    bundle.mkdir()
    spec = await crun.driver.spec(crun.records[container], Preparation(bundle, crun.rootfs))
    spec["mounts"].append({"destination": "/x", "type": "bind", "source": "/no/such/source", "options": ["bind"]})
    with pytest.raises(EngineError, match="/no/such/source"):
        await crun.driver.create(Launch("c" * 64, bundle, spec), crun.on_exit)

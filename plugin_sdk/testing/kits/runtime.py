"""The kit of `Runtime`: containers of a busybox root file system, without network, image or daemon. Needs root."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from kernel.contracts.container_config import Resources
from kernel.contracts.containers import ContainerRecord, ExecSpec, Preparation
from kernel.contracts.runtime import STDERR, STDOUT, Exit, Launch, ProcessIO, Running, Runtime
from kernel.errors import Conflict, EngineError, InvalidParameter, NotSupported
from plugin_sdk.aio import blocking
from plugin_sdk.testing import busybox
from plugin_sdk.testing.kit import Bench, Broken, DoesNotApply, Kit
from plugin_sdk.testing.records import container_record

END_SECONDS = 20.0
"""Within which a container that has nothing to do tells its end."""


class RuntimeBench(Bench[Runtime]):
    """Creates containers, hears of their ends, and deletes them.

    Attributes:
        ends: container ID to all ends that were told.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.ends: dict[str, list[Exit]] = {}
        self.containers: dict[str, ContainerRecord] = {}

    def bundle(self, container_id: str) -> Path:
        """The container's folder."""
        return self.folder / "bundles" / container_id

    async def on_exit(self, container_id: str, end: Exit) -> None:
        """Given to the runtime."""
        self.ends.setdefault(container_id, []).append(end)

    async def launch(
        self, *command: str, host: dict[str, Any] | None = None, tty: bool = False, stdin: bool = False
    ) -> Launch:
        """All that `create` needs."""
        root = self.folder / "rootfs"
        if not root.exists():
            try:
                await blocking(busybox.rootfs, root)
            except NotSupported as error:
                raise DoesNotApply(str(error)) from error
        container = container_record(command, host=host, Tty=tty, OpenStdin=stdin, StdinOnce=stdin)
        self.containers[container.Id] = container
        bundle = self.bundle(container.Id)
        bundle.mkdir(parents=True)
        spec = await self.fine("spec", self.driver.spec(container, Preparation(bundle, root)))
        namespaces = spec.get("linux", {}).get("namespaces", [])
        if all(entry.get("type") != "network" for entry in namespaces):
            namespaces.append({"type": "network"})
        return Launch(container.Id, bundle, spec, tty=tty, stdin=stdin, stdin_once=stdin)

    async def created(self, *command: str, **options: Any) -> str:
        """A created container; gives its ID."""
        launch = await self.launch(*command, **options)
        self.later(f"delete container {launch.id[:12]}", lambda: self.driver.delete(launch.id))
        running = await self.fine("create", self.driver.create(launch, self.on_exit))
        self.expect(running.pid > 0 and Path(f"/proc/{running.pid}").exists(), "the PID of a live process", running)
        return launch.id

    async def running(self, *command: str, **options: Any) -> str:
        """A started container; gives its ID."""
        container_id = await self.created(*command, **options)
        await self.fine("start", self.driver.start(container_id))
        return container_id

    async def end(self, container_id: str) -> Exit:
        """How it ended."""

        async def told() -> list[Exit]:
            return self.ends.get(container_id, [])

        return (await self.eventually("on_exit to be called", told, seconds=END_SECONDS))[0]

    async def exec(self, container_id: str, *argv: str, **options: Any) -> Any:
        """A further process."""
        process = f"{time.time_ns():064x}"
        return await self.driver.exec(container_id, process, ExecSpec(argv, **options), self.containers[container_id])

    async def output(self, streams: ProcessIO) -> dict[int, bytes]:
        """All output, by stream."""
        found = {STDOUT: b"", STDERR: b""}
        async with asyncio.timeout(END_SECONDS):
            while (chunk := await streams.read()) is not None:
                found[chunk[0]] += chunk[1]
        return found


KIT = Kit("Runtime", Runtime, RuntimeBench)


@KIT.check("output and exit code of a container are told, its end once", says=Runtime.create)
async def output_and_exit(bench: RuntimeBench) -> None:
    container_id = await bench.created("sh", "-c", "echo out; echo err >&2; exit 7")
    streams = await bench.driver.attach(container_id)
    bench.expect(container_id not in bench.ends, "create not to start the command", "its end")
    await bench.driver.start(container_id)
    bench.equal(await bench.output(streams), {STDOUT: b"out\n", STDERR: b"err\n"}, "the output")
    end = await bench.end(container_id)
    bench.equal((end.code, end.oom), (7, False), "exit code and out-of-memory")
    bench.expect(abs(end.finished_ns - time.time_ns()) < 60 * 10**9, "the end's time in nanoseconds", end)
    await asyncio.sleep(0.3)
    bench.equal(len(bench.ends[container_id]), 1, "how often the end was told")
    await streams.close()


@KIT.check("delete kills what is left, and may be repeated", says=Runtime.delete)
async def delete(bench: RuntimeBench) -> None:
    container_id = await bench.running("sleep", "1000")
    pids = await bench.driver.pids(container_id)
    bench.expect(pids, "pids to name the processes", pids)
    await bench.twice("delete", lambda: bench.driver.delete(container_id))

    async def gone() -> bool:
        return not any(_is_alive(pid) for pid in pids)

    await bench.eventually("all processes to be gone", gone)
    await bench.fine("delete of one that never was", bench.driver.delete("0" * 64))


@KIT.check("usage tells what a container uses, and of one that has ended nothing", says=Runtime.usage)
async def usage(bench: RuntimeBench) -> None:
    container_id = await bench.running("sh", "-c", "while :; do :; done")
    first = await bench.driver.usage(container_id)
    await asyncio.sleep(0.3)
    second = await bench.driver.usage(container_id)
    bench.expect(second.cpu.total > first.cpu.total >= 0, "processor time to grow", (first.cpu, second.cpu))
    offered = second.cpu.system - first.cpu.system
    bench.expect(second.cpu.total - first.cpu.total <= offered, "no more processor time than the machine has", offered)
    bench.expect(second.pids >= 1, "its processes to be counted", second.pids)
    bench.expect(0 < second.memory.usage <= second.memory.limit, "memory within its limit", second.memory)
    many = await bench.driver.cpu_usage([container_id, "0" * 64])
    bench.equal(set(many), {container_id}, "the containers of which cpu_usage tells")
    bench.expect(many[container_id].total >= second.cpu.total, "cpu_usage to tell no less than usage before", many)
    await bench.driver.kill(container_id, signal.SIGKILL)
    await bench.end(container_id)
    await bench.refused("usage of one that has ended", bench.driver.usage(container_id), Conflict)
    bench.equal(dict(await bench.driver.cpu_usage([container_id])), {}, "cpu_usage of one that has ended")


@KIT.check("a command that cannot run is refused in the docker CLI's words, and leaves nothing", says=Runtime.create)
async def bad_commands(bench: RuntimeBench) -> None:
    for command, words in (("nosuch", "executable file not found in $PATH"), ("/etc/passwd", "permission denied")):
        launch = await bench.launch(command)
        bench.later("delete it", lambda launch=launch: bench.driver.delete(launch.id))  # type: ignore[misc]
        error = await bench.refused(command, bench.driver.create(launch, bench.on_exit), InvalidParameter)
        bench.expect(words in str(error), f"the message to hold {words!r}", str(error))
        bench.expect(launch.id not in bench.ends, "no end to be told of what never began", bench.ends.get(launch.id))
        await bench.refused("attach to it", bench.driver.attach(launch.id), EngineError)


@KIT.check("input reaches the container, and its end too", says=ProcessIO.close_stdin)
async def input_with_an_end(bench: RuntimeBench) -> None:
    container_id = await bench.created("sh", "-c", "wc -c; echo done", stdin=True)
    streams = await bench.driver.attach(container_id)
    await bench.driver.start(container_id)
    for _ in range(10):
        await streams.write(b"x" * 50_000)
    await streams.close_stdin()
    bench.equal((await bench.output(streams))[STDOUT], b"500000\ndone\n", "the output")
    bench.equal((await bench.end(container_id)).code, 0, "the exit code")


@KIT.check("several clients see the same output", says=Runtime.attach)
async def several_clients(bench: RuntimeBench) -> None:
    container_id = await bench.created("sh", "-c", "echo a; echo b >&2")
    clients = [await bench.driver.attach(container_id) for _ in range(4)]
    await bench.driver.start(container_id)
    for client in clients:
        bench.equal(await bench.output(client), {STDOUT: b"a\n", STDERR: b"b\n"}, "what a client sees")


@KIT.check(
    "signals arrive, a killed container has 128 + signal, and nothing can be asked of an ended one", says=Runtime.kill
)
async def signals(bench: RuntimeBench) -> None:
    polite = await bench.running("sh", "-c", 'trap "exit 5" USR1; echo up; while :; do sleep 0.05; done')
    streams = await bench.driver.attach(polite)
    await asyncio.sleep(0.3)
    await bench.driver.kill(polite, signal.SIGUSR1)
    bench.equal((await bench.end(polite)).code, 5, "the exit code that the trap gives")
    await streams.close()
    killed = await bench.running("sleep", "1000")
    await bench.driver.kill(killed, signal.SIGKILL)
    bench.equal((await bench.end(killed)).code, 137, "the exit code of a killed one")
    await bench.refused("a signal to an ended one", bench.driver.kill(killed, signal.SIGTERM), Conflict)
    await bench.refused("attach to an ended one", bench.driver.attach(killed), Conflict)


@KIT.check("a frozen container stands still until it is thawed", says=Runtime.pause)
async def freeze(bench: RuntimeBench) -> None:
    script = "i=0; while :; do i=$((i+1)); echo $i > /count; sleep 0.01; done"
    container_id = await bench.running("sh", "-c", script)
    count = bench.folder / "rootfs/count"

    async def counting() -> bool:
        return count.exists() and bool(count.read_text())

    await bench.eventually("the container to count", counting)
    await bench.driver.pause(container_id)
    await asyncio.sleep(0.1)
    before = count.read_bytes()
    await asyncio.sleep(0.3)
    bench.equal(count.read_bytes(), before, "the count of a frozen container")
    await bench.driver.resume(container_id)

    async def on() -> bool:
        return count.read_bytes() not in (before, b"")

    await bench.eventually("a thawed container to go on", on)


@KIT.check("further processes have streams, exit codes, users and folders of their own", says=Runtime.exec)
async def exec_(bench: RuntimeBench) -> None:
    container_id = await bench.running("sleep", "1000")
    process = await bench.exec(container_id, "sh", "-c", "cat; echo err >&2; exit 9", stdin=True)
    bench.expect(process.pid > 0, "a PID", process.pid)
    await process.write(b"in\n")
    await process.close_stdin()
    bench.equal(await bench.output(process), {STDOUT: b"in\n", STDERR: b"err\n"}, "the output")
    bench.equal(await process.wait(), 9, "the exit code")
    other = await bench.exec(container_id, "sh", "-c", "id -u; pwd; echo $A", user="1", cwd="/tmp", env=["A=b"])
    bench.equal((await bench.output(other))[STDOUT], b"1\n/tmp\nb\n", "user, folder and environment")
    await bench.refused("an exec of nothing", bench.exec(container_id, "nosuch"), InvalidParameter)


@KIT.check("a terminal has the size that it is given", says=Runtime.resize)
async def terminal(bench: RuntimeBench) -> None:
    container_id = await bench.created("sh", "-c", "read x; stty size", tty=True, stdin=True)
    streams = await bench.driver.attach(container_id)
    await bench.driver.start(container_id)
    await bench.driver.resize(container_id, 31, 97)
    await asyncio.sleep(0.3)
    await streams.write(b"\r")
    shown = (await bench.output(streams))[STDOUT]
    bench.expect(b"31 97" in shown, "stty size to print 31 97", shown)


@KIT.check("limits can be changed while it runs, and impossible ones are refused", says=Runtime.update)
async def update(bench: RuntimeBench) -> None:
    container_id = await bench.running("sleep", "1000", host={"Memory": 64 << 20, "MemorySwap": 64 << 20})
    await bench.fine("update", bench.driver.update(container_id, Resources(Memory=96 << 20, MemorySwap=96 << 20)))
    await bench.refused("one byte of memory", bench.driver.update(container_id, Resources(Memory=1)), InvalidParameter)


@KIT.check("after a restart a running container is found again, and its end is told", says=Runtime.adopt)
async def adopt(bench: RuntimeBench) -> None:
    container_id = await bench.running("sleep", "1000")
    await bench.restart()
    found = await bench.driver.adopt(container_id, bench.bundle(container_id), bench.on_exit)
    bench.expect(isinstance(found, Running) and found.pid > 0, "Running with its PID", found)
    process = await bench.exec(container_id, "true")
    bench.equal(await process.wait(), 0, "the exit code of an exec in it")
    await process.close()
    await bench.driver.kill(container_id, signal.SIGKILL)
    bench.equal((await bench.end(container_id)).code, 137, "the exit code")


@KIT.check("after a restart it is known how a container ended meanwhile, or that there is none", says=Runtime.adopt)
async def adopt_ended(bench: RuntimeBench) -> None:
    none = await bench.driver.adopt("0" * 64, bench.folder / "none", bench.on_exit)
    bench.equal(none, None, "adopt of one that never was")
    container_id = await bench.running("sh", "-c", "sleep 0.5; exit 3")
    if not bench.subject.fresh:
        raise DoesNotApply("this driver cannot be started anew from here")
    await bench.restart()
    bench.ends.clear()
    await asyncio.sleep(1.5)
    found = await bench.driver.adopt(container_id, bench.bundle(container_id), bench.on_exit)
    bench.expect(isinstance(found, Exit) and found.code == 3, "Exit with code 3", found)


@KIT.check("what it is called and which program it runs is told", says=Runtime.describe)
async def describe(bench: RuntimeBench) -> None:
    told = bench.driver.describe()
    bench.expect(told.name and told.path, "a name and a path", told)
    bench.expect(shutil.which(told.path), "the path of a program", told.path)


@KIT.check("an unknown user is refused", says=Runtime.spec)
async def unknown_user(bench: RuntimeBench) -> None:
    launch = await bench.launch("true")
    container = bench.containers[launch.id]
    wrong = container.model_copy(update={"Config": container.Config.model_copy(update={"User": "nobody-here"})})
    preparation = Preparation(launch.bundle, bench.folder / "rootfs")
    try:
        await bench.driver.spec(wrong, preparation)
    except InvalidParameter:
        return
    except EngineError as error:
        raise Broken("InvalidParameter for an unknown user", f"{type(error).__name__}: {error}") from error
    raise Broken("InvalidParameter for an unknown user", "a spec")


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z" and os.path.exists(f"/proc/{pid}")

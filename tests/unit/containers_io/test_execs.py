"""Execs: their life, their errors, and that they are forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from plugin_sdk import Conflict, InvalidParameter, NotFound
from plugin_sdk.containers import (
    ContainerConfig,
    ContainerRecord,
    ContainerState,
    ContainerStatus,
    ExecSpec,
    HostConfig,
)
from plugin_sdk.runtime import STDOUT
from plugin_sdk.stdcopy import Unframer
from plugins.containers import execs as execs_module
from plugins.containers.execs import Execs
from plugins.containers.streams import Wanted

OUT = Wanted(stdout=True, stderr=True)
ID = "c" * 64


class FakeProcess:
    pid = 4242

    def __init__(self, output: bytes, code: int) -> None:
        self._output = [(STDOUT, output)] if output else []
        self._code = code
        self.closed = False

    async def read(self) -> tuple[int, bytes] | None:
        return self._output.pop() if self._output else None

    async def write(self, data: bytes) -> None: ...
    async def close_stdin(self) -> None: ...
    async def resize(self, height: int, width: int) -> None:
        self.size = (height, width)

    async def close(self) -> None:
        self.closed = True

    async def wait(self) -> int:
        return self._code


class FakeClient:
    def __init__(self) -> None:
        self.taken = b""
        self.ended = False

    async def read(self) -> bytes:
        return b""

    async def write(self, data: bytes) -> None:
        self.taken += data

    async def end(self) -> None:
        self.ended = True

    async def gone(self) -> None:
        await asyncio.Event().wait()


class FakeService:
    """One container, and a runtime that knows `true`, `say` and nothing else."""

    def __init__(self, status: ContainerStatus = ContainerStatus.RUNNING) -> None:
        self.record = ContainerRecord(
            Id=ID,
            Name="box",
            Created="",
            ImageID="",
            ImageRef="",
            Driver="",
            Runtime="",
            Config=ContainerConfig(),
            HostConfig=HostConfig(),
            State=ContainerState(Status=status),
        )
        self.events: list[tuple[str, dict[str, str]]] = []
        self.processes: list[FakeProcess] = []
        self.ctx = self
        self.tasks: set[asyncio.Task[Any]] = set()

    def expect(self) -> None: ...

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        task = asyncio.create_task(work, name=name)
        self.tasks.add(task)
        return task

    async def ready(self, ref: str) -> ContainerRecord:
        return self.record

    def runtime_of(self, record: ContainerRecord) -> FakeService:
        return self

    async def exec(self, container_id: str, exec_id: str, spec: ExecSpec, container: ContainerRecord) -> FakeProcess:
        if spec.argv[0] == "say":
            process = FakeProcess(spec.argv[1].encode(), 3)
        elif spec.argv[0] == "true":
            process = FakeProcess(b"", 0)
        else:
            raise InvalidParameter(f'exec: "{spec.argv[0]}": executable file not found in $PATH')
        self.processes.append(process)
        return process

    def emit(self, record: ContainerRecord, action: str, **attributes: str) -> None:
        self.events.append((action, attributes))


async def run(service: FakeService, execs: Execs, *argv: str, framed: bool = True) -> tuple[str, FakeClient]:
    item = await execs.create(ID, ExecSpec(argv), OUT)
    client = FakeClient()

    async def open_client() -> FakeClient:
        return client

    await execs.start(item.id, open_client, framed=framed)
    return item.id, client


async def test_life() -> None:
    service = FakeService()
    execs = Execs(service)
    exec_id, client = await run(service, execs, "say", "hello")
    assert Unframer().feed(client.taken) == [(STDOUT, b"hello")]
    assert client.ended
    assert service.processes[0].closed
    shown = execs.get(exec_id).describe()
    assert (shown["Running"], shown["ExitCode"], shown["Pid"]) == (False, 3, 4242)
    assert shown["ProcessConfig"] == {"tty": False, "entrypoint": "say", "arguments": ["hello"], "privileged": False}
    assert service.events == [
        ("exec_create: say hello", {"execID": exec_id}),
        ("exec_start: say hello", {"execID": exec_id}),
        ("exec_die", {"execID": exec_id, "exitCode": "3"}),
    ]
    with pytest.raises(Conflict, match="has already run"):
        await execs.start_detached(exec_id)


async def test_a_missing_command_is_told_on_the_stream() -> None:
    service = FakeService()
    execs = Execs(service)
    exec_id, client = await run(service, execs, "nosuch", framed=False)
    assert client.taken == b'exec: "nosuch": executable file not found in $PATH\r\n'
    assert execs.get(exec_id).describe()["ExitCode"] == 127
    detached = await execs.create(ID, ExecSpec(["nosuch"]), Wanted())
    with pytest.raises(InvalidParameter, match="not found"):
        await execs.start_detached(detached.id)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (ContainerStatus.EXITED, f"container {ID} is not running"),
        (ContainerStatus.PAUSED, f"Container {ID} is paused, unpause the container before exec"),
        (ContainerStatus.RESTARTING, f"Container {ID} is restarting, wait until the container is running"),
    ],
)
async def test_only_in_running_containers(status: ContainerStatus, message: str) -> None:
    with pytest.raises(Conflict, match=message):
        await Execs(FakeService(status)).create(ID, ExecSpec(["true"]), OUT)


async def test_bad_requests() -> None:
    execs = Execs(FakeService())
    with pytest.raises(InvalidParameter, match="No exec command specified"):
        await execs.create(ID, ExecSpec([]), OUT)
    with pytest.raises(InvalidParameter, match=r"Invalid escape keys \(zzz\) provided"):
        await execs.create(ID, ExecSpec(["true"]), OUT, "zzz")
    with pytest.raises(NotFound, match="No such exec instance: nope"):
        execs.get("nope")


async def test_listed_while_alive_and_forgotten_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execs_module, "KEPT", -1.0)
    monkeypatch.setattr(execs_module, "SWEEP", 0.01)
    service = FakeService()
    execs = Execs(service)
    waiting = await execs.create(ID, ExecSpec(["true"]), OUT)
    for _ in range(50):
        await run(service, execs, "true")
    assert execs.list_for(ID) == [waiting.id]
    await execs.ended(ID)
    assert execs.list_for(ID) == []
    with pytest.raises(NotFound):
        execs.get(waiting.id)
    await asyncio.sleep(0.05)
    assert not execs._execs
    assert not execs._by_container


async def test_never_started_is_forgotten_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execs_module, "UNSTARTED", -1.0)
    monkeypatch.setattr(execs_module, "SWEEP", 0.01)
    execs = Execs(FakeService())
    await execs.create(ID, ExecSpec(["true"]), OUT)
    await asyncio.sleep(0.05)
    assert not execs._execs
    assert not execs.list_for(ID)


async def test_run_gives_code_and_output() -> None:
    service = FakeService()
    assert await Execs(service).run(service.record, ExecSpec(["say", "x" * 100_000])) == (3, b"x" * 65536)


async def test_no_streams_means_no_waiting() -> None:
    service = FakeService()
    execs = Execs(service)
    item = await execs.create(ID, ExecSpec(["true"]), Wanted())
    client = FakeClient()

    async def open_client() -> FakeClient:
        return client

    await execs.start(item.id, open_client, framed=True)
    assert (client.taken, client.ended) == (b"", True)
    assert execs.get(item.id).exit_code == 0

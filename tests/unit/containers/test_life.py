"""A container's life as its callers see it, with a real store and stand-ins for the other plugins."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from plugin_sdk import Conflict, EngineError, InvalidParameter, NotFound, NotModified
from plugin_sdk.containers import ContainerStatus, Resources, RestartRule
from plugin_sdk.runtime import Exit, Running


async def test_run_with_rm_leaves_nothing(world: Any) -> None:
    record = await world.make("web", HostConfig={"AutoRemove": True})
    removed = asyncio.ensure_future(world.service.wait("web", "removed"))
    await asyncio.sleep(0)
    await world.service.start("web")
    assert world.service.get("web").State.Status is ContainerStatus.RUNNING
    await world.ctx.runtime.finish(record.Id, 3)
    assert await removed == 3
    with pytest.raises(NotFound, match="No such container: web"):
        world.service.get("web")
    await world.make("web")
    await world.service.settled()
    assert record.Id not in world.ctx.storage.layers
    assert not world.service.bundle(record.Id).exists()
    assert world.service.records.stored(record.Id) is None
    assert world.events()[:4] == ["create", "start", "die", "destroy"]


async def test_exit_is_stored_and_told(world: Any) -> None:
    record = await world.make("job")
    await world.service.start("job")
    waiting = asyncio.ensure_future(world.service.wait("job"))
    await asyncio.sleep(0)
    await world.ctx.runtime.finish(record.Id, 137, oom=True)
    assert await waiting == 137
    state = world.service.get("job").State
    assert (state.Status, state.ExitCode, state.OOMKilled, state.Pid) == (ContainerStatus.EXITED, 137, True, 0)
    assert await world.service.wait("job") == 137
    assert world.events() == ["create", "start", "oom", "die"]
    die = next(event for event in world.ctx.events.recent() if event.action == "die")
    assert die.attributes == {"name": "job", "image": "busybox", "exitCode": "137", "execDuration": "0"}
    assert world.ctx.storage.mounts == []


async def test_output_is_connected_before_the_command_runs(world: Any) -> None:
    record = await world.make("job")
    streams = asyncio.ensure_future(world.service.attach_point(record.Id).attach())
    await asyncio.sleep(0)
    await world.service.start("job")
    assert await streams == f"streams of {record.Id}"
    calls = [call[0] for call in world.ctx.runtime.calls]
    assert calls.index("create") < calls.index("attach") < calls.index("start")
    assert await world.service.attach("job") == f"streams of {record.Id}"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('exec: "nosuch": executable file not found in $PATH', 127),
        ('exec: "/nosuch": stat /nosuch: no such file or directory', 127),
        ('exec: "/etc/passwd": permission denied', 126),
        ("the moon is in the way", 128),
    ],
)
async def test_failed_start(world: Any, message: str, code: int) -> None:
    record = await world.make("bad")
    streams = asyncio.ensure_future(world.service.attach_point(record.Id).attach())
    await asyncio.sleep(0)
    world.ctx.runtime.fail["create"] = InvalidParameter(message)
    with pytest.raises(InvalidParameter):
        await world.service.start("bad")
    state = world.service.get("bad").State
    assert (state.Status, state.ExitCode, state.Error, state.Starting) == (
        ContainerStatus.CREATED,
        code,
        message,
        False,
    )
    with pytest.raises(EngineError):
        await streams
    assert world.ctx.storage.mounts == []
    assert "engine_container_release" in world.ctx.hooks.calls
    world.ctx.runtime.fail.clear()
    await world.service.start("bad")
    assert world.service.get("bad").State.Error == ""


async def test_failed_start_with_rm_removes(world: Any) -> None:
    record = await world.make("bad", HostConfig={"AutoRemove": True})
    removed = asyncio.ensure_future(world.service.wait("bad", "removed"))
    await asyncio.sleep(0)
    world.ctx.hooks.fail["engine_container_prepare"] = Conflict("port is taken")
    with pytest.raises(Conflict, match="port is taken"):
        await world.service.start("bad")
    assert await removed == 128
    await world.service.settled()
    assert record.Id not in world.ctx.storage.layers


async def test_failed_create_leaves_nothing(world: Any) -> None:
    world.ctx.hooks.fail["engine_container_create"] = NotFound("network blue not found")
    with pytest.raises(NotFound, match="network blue not found"):
        await world.make("web")
    assert world.ctx.storage.layers == {}
    assert world.service.list() == []
    world.ctx.hooks.fail.clear()
    await world.make("web")


async def test_name_in_use_names_both(world: Any) -> None:
    first = await world.make("web")
    with pytest.raises(Conflict) as refused:
        await world.make("/web")
    assert str(refused.value) == (
        f'Conflict. The container name "/web" is already in use by container "{first.Id}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )
    with pytest.raises(Conflict):
        await asyncio.gather(world.make("both"), world.make("both"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"Image": "nope"}, "No such image: nope:latest"),
        ({"Cmd": None}, "no command specified"),
        ({"StopSignal": "FOO"}, "invalid signal: FOO"),
        ({"WorkingDir": "rel"}, "the working directory 'rel' is invalid, it needs to be an absolute path"),
        ({"Env": ["=x"]}, "invalid environment variable: =x"),
        (
            {"HostConfig": {"AutoRemove": True, "RestartPolicy": {"Name": "always"}}},
            "can't create 'AutoRemove' container with restart policy",
        ),
        (
            {"HostConfig": {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 3}}},
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ),
        ({"Healthcheck": {"Interval": 5}}, "Interval in Healthcheck cannot be less than 1ms"),
    ],
)
async def test_refused(world: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError) as refused:
        await world.make(**fields)
    assert str(refused.value) == message
    assert world.ctx.storage.layers == {}


async def test_stop_signals_then_kills(world: Any) -> None:
    await world.make("web", StopSignal="SIGUSR1")
    await world.service.start("web")
    world.ctx.runtime.stubborn = True
    await world.service.stop("web", timeout=0)
    assert [call for call in world.ctx.runtime.calls if call[0] == "kill"] == [("kill", "10"), ("kill", "9")]
    assert world.service.get("web").State.ExitCode == 137
    assert world.events() == ["create", "start", "kill", "kill", "die", "stop"]
    with pytest.raises(NotModified):
        await world.service.stop("web")


async def test_start_twice(world: Any) -> None:
    await world.make("web")
    await world.service.start("web")
    with pytest.raises(NotModified):
        await world.service.start("web")
    await world.service.pause("web")
    with pytest.raises(Conflict, match="cannot start a paused container, try unpause instead"):
        await world.service.start("web")
    await world.service.resume("web")
    with pytest.raises(Conflict, match="is not paused"):
        await world.service.resume("web")
    assert world.events() == ["create", "start", "pause", "unpause"]


async def test_restart_policy(world: Any) -> None:
    record = await world.make("job", HostConfig={"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}})
    await world.service.start("job")
    for count in (1, 2):
        await world.ctx.runtime.finish(record.Id, 4)
        assert world.service.get("job").State.Status is ContainerStatus.RESTARTING
        await world.until(lambda: world.service.get("job").State.Status is ContainerStatus.RUNNING)
        assert world.service.get("job").RestartCount == count
    await world.ctx.runtime.finish(record.Id, 4)
    assert world.service.get("job").State.Status is ContainerStatus.EXITED


async def test_stopped_by_user_is_not_started_again(world: Any) -> None:
    await world.make("web", HostConfig={"RestartPolicy": {"Name": "always"}})
    await world.service.start("web")
    await world.service.stop("web")
    assert world.service.get("web").State.Status is ContainerStatus.EXITED


async def test_stop_while_it_waits_to_restart(world: Any) -> None:
    record = await world.make("web", HostConfig={"RestartPolicy": {"Name": "always"}})
    await world.service.start("web")
    await world.ctx.runtime.finish(record.Id, 1)
    await world.service.stop("web")
    await asyncio.sleep(0.15)
    assert world.service.get("web").State.Status is ContainerStatus.EXITED


async def test_restart_keeps_a_container_that_removes_itself(world: Any) -> None:
    record = await world.make("web", HostConfig={"AutoRemove": True})
    await world.service.start("web")
    await world.service.restart("web", timeout=1)
    assert world.service.get(record.Id).State.running
    assert world.events() == ["create", "start", "kill", "die", "stop", "start", "restart"]


async def test_remove(world: Any) -> None:
    record = await world.make("web")
    await world.service.start("web")
    with pytest.raises(Conflict, match='cannot remove container "/web": container is running'):
        await world.service.remove("web")
    await world.service.remove("web", force=True)
    with pytest.raises(NotFound):
        world.service.get(record.Id)
    await world.service.settled(record.Id)
    assert world.ctx.storage.layers == {}
    assert world.events() == ["create", "start", "kill", "die", "destroy"]


async def test_removal_is_tried_again(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugins.containers.ending._RETRY_DELAYS", (0.05,))
    record = await world.make("web")
    world.ctx.hooks.fail["engine_container_remove"] = EngineError("the volume driver sleeps")
    await world.service.remove("web")
    await world.until(lambda: "the volume driver sleeps" in world.service.stuck.get(record.Id, ""))
    assert "cannot be removed" in world.service.info()["Warnings"][0]
    world.ctx.hooks.fail.clear()
    await world.until(lambda: not world.service.stuck)
    assert world.ctx.storage.layers == {}


async def test_rename(world: Any) -> None:
    first, second = await world.make("one"), await world.make("two")
    await world.service.rename("one", "three")
    assert world.service.get("three").Id == first.Id
    with pytest.raises(Conflict, match=f'Error when allocating new name: Conflict.*"/two".*{second.Id}'):
        await world.service.rename("three", "two")
    with pytest.raises(InvalidParameter, match=r"Invalid container name \(/x!\)"):
        await world.service.rename("three", "x!")
    with pytest.raises(InvalidParameter, match="same name as its current name"):
        await world.service.rename("two", "two")


async def test_update_limits(world: Any) -> None:
    await world.make("web")
    await world.service.start("web")
    await world.service.change_limits("web", Resources(Memory=64 << 20), RestartRule(Name="always"))
    host = world.service.get("web").HostConfig
    assert (host.Memory, host.RestartPolicy.Name) == (64 << 20, "always")
    assert ("update", str(64 << 20)) in world.ctx.runtime.calls
    with pytest.raises(InvalidParameter, match="Minimum memory limit allowed is 6MB"):
        await world.service.change_limits("web", Resources(Memory=1), RestartRule())


async def test_kill_messages(world: Any) -> None:
    record = await world.make("web")
    with pytest.raises(Conflict) as refused:
        await world.service.kill("web")
    assert str(refused.value) == f"cannot kill container: web: container {record.Id} is not running"
    with pytest.raises(InvalidParameter, match="cannot kill container: web: invalid signal: FOO"):
        await world.service.kill("web", "FOO")


async def test_engine_killed_under_containers(world: Any) -> None:
    names = ("runs", "ended", "vanished", "policy", "starting", "removing", "rm", "stays")
    ids = {}
    for name in names:
        host: dict[str, Any] = {"AutoRemove": name == "rm"}
        if name == "policy":
            host["RestartPolicy"] = {"Name": "unless-stopped"}
        ids[name] = (await world.make(name, HostConfig=host)).Id
    for name in ("runs", "ended", "vanished", "policy", "rm"):
        await world.service.start(name)

    blocked = asyncio.Event()
    world.ctx.hooks.fail["engine_container_remove"] = EngineError("not now")
    await world.service.remove("removing")
    original = world.ctx.runtime.spec

    async def hanging(*arguments: Any) -> Any:
        blocked.set()
        await asyncio.sleep(60)
        return await original(*arguments)

    world.ctx.runtime.spec = hanging
    start = asyncio.ensure_future(world.service.start("starting"))
    await blocked.wait()
    await world.until(lambda: world.service.records.stored(ids["starting"]).State.Starting)
    world.ctx.storage.layers["f" * 64] = "of a creation that was cut off"

    # kill -9 gives nobody the time to clean up.
    import plugins.containers.running as running_module

    async def nothing(*_: Any) -> None:
        return

    undo, running_module._undo = running_module._undo, nothing
    start.cancel()
    await asyncio.gather(start, return_exceptions=True)
    running_module._undo = undo
    await world.killed_and_started()
    ended = Exit(9, False, 1_700_000_000_000_000_000)
    world.ctx.runtime.adoptable = {
        ids["runs"]: Running(99), ids["ended"]: ended, ids["policy"]: ended, ids["rm"]: ended,
    }  # fmt: skip
    acting = asyncio.ensure_future(world.service.stop("runs"))
    await asyncio.sleep(0)
    await world.service.restore()
    get = world.service.get
    await acting
    assert get("runs").State.Status is ContainerStatus.EXITED
    assert (get("ended").State.Status, get("ended").State.ExitCode) == (ContainerStatus.EXITED, 9)
    assert (get("vanished").State.Status, get("vanished").State.ExitCode) == (ContainerStatus.EXITED, 255)
    assert get("starting").State.Status is ContainerStatus.CREATED
    assert "stopped in the middle of the start" in get("starting").State.Error
    assert get("stays").State.Status is ContainerStatus.CREATED
    await world.until(lambda: get("policy").State.Status is ContainerStatus.RUNNING)
    await world.service.settled()
    assert {world.service.get(name).Name for name in ids if name not in ("removing", "rm")}
    for name in ("removing", "rm"):
        with pytest.raises(NotFound):
            get(name)
        assert ids[name] not in world.ctx.storage.layers
    assert "f" * 64 not in world.ctx.storage.layers


async def test_a_bad_container_does_not_hold_up_the_others(world: Any) -> None:
    bad, good = await world.make("bad"), await world.make("good")
    await world.service.start("bad")
    await world.service.start("good")
    await world.service.update(bad.Id, lambda present: present.model_copy(update={"Runtime": "gone"}))
    await world.killed_and_started()
    world.ctx.runtime.adoptable = {good.Id: Running(99)}
    await world.service.restore()
    assert world.service.get("good").State.running
    state = world.service.get("bad").State
    assert state.Status is ContainerStatus.DEAD
    assert "no Runtime is named 'gone'" in state.Error
    with pytest.raises(Conflict, match="container is dead"):
        await world.service.start("bad")


async def test_many_starts_do_not_wait_for_each_other(world: Any) -> None:
    records = [await world.make() for _ in range(50)]
    assert len({record.Name for record in records}) == 50
    await asyncio.gather(*(world.service.start(record.Id) for record in records))
    assert all(record.State.running for record in world.service.list())
    assert world.service.info()["ContainersRunning"] == 50

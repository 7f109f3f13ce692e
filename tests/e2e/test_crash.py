"""The daemon is killed; the containers are not, and nothing about them is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Engine, eventually

pytestmark = pytest.mark.real

LOOP = "i=0; while true; do i=$((i+1)); echo tick $i; sleep 0.2; done"


def ticks(engine: Engine, name: str) -> list[int]:
    return [int(line.split()[1]) for line in engine.docker("logs", name).stdout.splitlines() if line.startswith("tick")]


def test_kill_9_under_ten_containers(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine()
    engine.docker("network", "create", "net")
    engine.docker("volume", "create", "vol")
    names = [f"c{number}" for number in range(10)]
    web = "mkdir /www; echo served > /www/index.html; exec httpd -f -p 80 -h /www"
    options: dict[str, tuple[list[str], list[str]]] = {
        "c0": (["-p", "127.0.0.1:18601:80"], ["sh", "-c", web]),
        "c1": (["-i"], ["sh", "-c", "while read line; do echo got $line; done; exit 5"]),
        "c2": (["-it"], ["sh"]),
        "c3": (["--network", "net", "-v", "vol:/data"], ["sh", "-c", LOOP]),
        "c4": (["--network", "net"], ["sleep", "600"]),
        "c5": (["--network", "none"], ["sh", "-c", LOOP]),
        "c6": (["--restart", "always"], ["sh", "-c", LOOP]),
        "c7": (["--rm"], ["sleep", "600"]),
    }
    for name in names:
        extra, command = options.get(name, ([], ["sh", "-c", LOOP]))
        engine.docker("run", "-d", "--name", name, *extra, engine.image, *command)
    engine.docker("run", "-d", "--name", "short", engine.image, "sh", "-c", "echo last words; sleep 4; exit 37")
    engine.docker("run", "-d", "--name", "brief", "--rm", engine.image, "sleep", "4")
    before = {name: engine.inspect(name) for name in names}

    engine.kill9()
    for name in names:
        os.kill(before[name]["State"]["Pid"], 0)
    seen = time.monotonic()
    time.sleep(5)  # "short" and "brief" end while nobody looks
    engine.start()

    for name in names:
        after = engine.inspect(name)
        assert after["State"]["Running"] is True, name
        assert after["State"]["Pid"] == before[name]["State"]["Pid"]
        assert after["State"]["StartedAt"] == before[name]["State"]["StartedAt"]
        assert after["NetworkSettings"]["Networks"].keys() == before[name]["NetworkSettings"]["Networks"].keys()
    ended = eventually(lambda: (shown := engine.inspect("short"))["State"]["Status"] == "exited" and shown)
    assert ended["State"]["ExitCode"] == 37
    assert engine.docker("logs", "short").stdout == "last words\n"
    eventually(lambda: "brief" not in engine.docker("ps", "-a", "--format", "{{.Names}}").stdout.split())

    # Logs: nothing lost, nothing twice, also what was written while the daemon was away.
    for name in ("c3", "c5", "c6", "c8", "c9"):
        numbers = eventually(lambda name=name: len(found := ticks(engine, name)) > 15 and found)
        assert numbers == list(range(1, len(numbers) + 1)), name
    assert time.monotonic() - seen < 60

    # Published ports and names still work.
    assert engine.fetch("http://127.0.0.1:18601/") == "served\n"
    engine.docker("exec", "c4", "ping", "-c", "1", "-W", "3", "c3")

    # exec, attach with and without a terminal, follow.
    for name in names:
        assert engine.docker("exec", name, "echo", "inside").stdout == "inside\n"
    client = engine.popen("attach", "c1")
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write("hello\n")
    client.stdin.flush()
    assert client.stdout.readline() == "got hello\n"
    client.kill()
    client.communicate()
    with engine.tty("attach", "c2") as terminal:
        terminal.send("\necho six times seven is $((6*7))\n")
        terminal.expect("^six times seven is 42$")
        terminal.send("\x10\x11")
        terminal.wait()

    # stop, kill and rm, and the restart policy goes on.
    engine.docker("stop", "-t", "0", "c3")
    assert engine.inspect("c3")["State"]["ExitCode"] == 137
    engine.docker("kill", "c5")
    assert engine.docker("wait", "c5").stdout == "137\n"
    os.kill(engine.inspect("c6")["State"]["Pid"], signal.SIGKILL)
    eventually(lambda: engine.inspect("c6")["RestartCount"] == 1 and engine.inspect("c6")["State"]["Running"])
    engine.docker("rm", "-f", "c7")
    assert (
        engine.docker("run", "--rm", "--network", "net", engine.image, "echo", "new ones too").stdout
        == "new ones too\n"
    )


def test_a_stop_of_the_daemon_stops_no_container(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine()
    engine.docker("run", "-d", "--name", "aa", engine.image, "sh", "-c", LOOP)
    pid = engine.inspect("aa")["State"]["Pid"]
    assert engine.stop() == 0
    os.kill(pid, 0)
    engine.start()
    assert engine.inspect("aa")["State"]["Pid"] == pid
    numbers = ticks(engine, "aa")
    assert numbers == list(range(1, len(numbers) + 1))


def test_kill_9_again_and_again_while_containers_come_and_go(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine()
    engine.docker("run", "-d", "--name", "steady", engine.image, "sh", "-c", LOOP)
    pid = engine.inspect("steady")["State"]["Pid"]
    for turn in range(4):
        clients = [
            engine.popen("run", "--rm", "--name", f"w{turn}-{number}", "-v", "/anonymous", engine.image, "sleep", "0.2")
            for number in range(4)
        ]
        time.sleep(0.15 * (turn + 1))
        engine.kill9()
        for client in clients:
            client.kill()
            client.communicate()
        engine.start()
        assert engine.inspect("steady")["State"]["Pid"] == pid

    # Whatever the kill cut off is either gone, or an object that can be removed like any other.
    def left() -> list[str]:
        return [name for name in engine.docker("ps", "-a", "--format", "{{.Names}}").stdout.split() if name != "steady"]

    def running() -> list[str]:
        return [name for name in engine.docker("ps", "--format", "{{.Names}}").stdout.split() if name != "steady"]

    eventually(lambda: not running(), timeout=15)
    if names := left():
        engine.docker("rm", "-f", "-v", *names)
    eventually(lambda: engine.census()["monitors"] == 1)


def test_reboot_is_survived(own_engine: Callable[..., Engine]) -> None:
    """After a boot the exec root is empty and no process is left: as if all had been killed."""
    engine = own_engine()
    engine.docker("run", "-d", "--name", "aa", engine.image, "sleep", "600")
    engine.docker("run", "-d", "--name", "bb", "--restart", "always", engine.image, "sleep", "600")
    pids = [engine.inspect(name)["State"]["Pid"] for name in ("aa", "bb")]
    engine.kill9()
    _power_cut(engine.root, pids)
    engine.start()
    eventually(lambda: engine.inspect("bb")["State"]["Running"] is True)
    shown = engine.inspect("aa")["State"]
    assert shown["Status"] == "exited"
    assert shown["Running"] is False
    engine.docker("start", "aa")
    assert engine.docker("exec", "aa", "echo", "again").stdout == "again\n"


def _power_cut(root: Path, pids: list[int]) -> None:
    import shutil
    import subprocess

    from plugin_sdk.testing.engine import leftovers

    for pid, command in leftovers.processes(root, None).items():
        if "conmon" in command:
            os.kill(pid, signal.SIGKILL)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.3)
    for point in leftovers.mounts(root):
        subprocess.run(["umount", "--lazy", point], check=True)
    shutil.rmtree(root / "run")


@pytest.mark.parametrize("content", [b"this is no database at all, but long enough to be looked at" * 100])
def test_corrupt_state_is_refused_and_left_alone(own_engine: Callable[..., Engine], content: bytes) -> None:
    engine = own_engine(image=False)
    engine.stop()
    databases = list((engine.root / "data").rglob("*.db"))
    assert len(databases) == 1
    saved = databases[0].read_bytes()
    for extra in databases[0].parent.glob(f"{databases[0].name}-*"):
        extra.unlink()
    databases[0].write_bytes(content)
    process = engine.spawn()
    assert process.wait(20) == 1
    assert str(databases[0]) in engine.log()[-600:]
    assert databases[0].read_bytes() == content
    databases[0].write_bytes(saved)
    engine.start()

"""attach, exec and logs without a terminal."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator

import pytest
from harness import Client, eventually

pytestmark = pytest.mark.real


@pytest.fixture
def sleeper(engine: Client) -> Iterator[str]:
    name = engine.name()
    engine.docker("run", "-d", "--name", name, "-e", "GIVEN=yes", engine.image, "sleep", "600")
    yield name
    engine.docker("rm", "-f", name)


def test_exec_carries_all_streams_and_the_code(engine: Client, sleeper: str) -> None:
    script = "cat; echo err >&2; exit 17"
    done = engine.docker("exec", "-i", sleeper, "sh", "-c", script, input="typed in", check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("typed in", "err\n", 17)


def test_exec_with_half_closed_input(engine: Client, sleeper: str) -> None:
    assert engine.docker("exec", "-i", sleeper, "wc", "-c", input="y" * 200_000).stdout.strip() == "200000"


def test_exec_options(engine: Client, sleeper: str) -> None:
    script = 'echo "$GIVEN $MORE $(id -u) $(pwd)"'
    options = ["-e", "MORE=too", "-u", "33", "-w", "/tmp"]
    assert engine.docker("exec", *options, sleeper, "sh", "-c", script).stdout == "yes too 33 /tmp\n"


def test_exec_detached(engine: Client, sleeper: str) -> None:
    engine.docker("exec", "-d", sleeper, "sh", "-c", "echo done > /tmp/mark")
    eventually(lambda: engine.docker("exec", sleeper, "cat", "/tmp/mark", check=False).stdout == "done\n")


@pytest.mark.parametrize(
    ("command", "codes", "message"),
    [
        # dockerd before 28 answers 126 to both.
        ("no-such-program", (126, 127), "executable file not found in $PATH"),
        ("/etc/passwd", (126,), "permission denied"),
    ],
)
def test_exec_of_what_cannot_run(
    engine: Client, sleeper: str, command: str, codes: tuple[int, ...], message: str
) -> None:
    done = engine.docker("exec", sleeper, command, check=False)
    assert done.returncode in codes
    assert message in done.stdout + done.stderr


def test_exec_in_a_stopped_container(engine: Client) -> None:
    name = engine.name()
    cid = engine.docker("create", "--name", name, engine.image).stdout.strip()
    try:
        done = engine.docker("exec", name, "true", check=False)
        assert done.returncode == 1
        assert f"container {cid} is not running" in done.stderr.lower()
    finally:
        engine.docker("rm", name)


def test_attach_sees_the_output_and_gives_input(engine: Client) -> None:
    name = engine.name()
    engine.docker("run", "-di", "--name", name, engine.image, "sh", "-c", "read line; echo got $line; exit 5")
    try:
        client = engine.popen("attach", name)
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write("hello\n")
        client.stdin.flush()
        assert client.stdout.read() == "got hello\n"
        assert client.wait(20) == 5
        client.communicate()
    finally:
        engine.docker("rm", "-f", name)


def test_two_clients_attach_at_once(engine: Client) -> None:
    name = engine.name()
    engine.docker("run", "-di", "--name", name, engine.image, "sh", "-c", "read line; echo told $line")
    clients = [engine.popen("attach", "--no-stdin", name, stdin=subprocess.DEVNULL) for _ in range(2)]
    try:
        time.sleep(1)
        engine.docker("attach", name, input="all\n")
        assert [client.communicate(timeout=20)[0] for client in clients] == ["told all\n"] * 2
    finally:
        for client in clients:
            client.kill()
            client.wait()
        engine.docker("rm", "-f", name)


def test_start_attached(engine: Client) -> None:
    name = engine.name()
    engine.docker("create", "-i", "--name", name, engine.image, "sh", "-c", "cat; exit 6")
    try:
        done = engine.docker("start", "-ai", name, input="through", check=False)
        assert (done.stdout, done.returncode) == ("through", 6)
    finally:
        engine.docker("rm", "-f", name)


def test_logs_and_their_options(engine: Client) -> None:
    name = engine.name()
    engine.docker(
        "run", "--name", name, engine.image, "sh", "-c", "for i in 1 2 3; do echo out $i; sleep 0.1; done; echo e >&2"
    )
    try:
        shown = engine.docker("logs", name)
        assert (shown.stdout, shown.stderr) == ("out 1\nout 2\nout 3\n", "e\n")
        tail = engine.docker("logs", "-n", "2", name)
        assert (tail.stdout, tail.stderr) == ("out 3\n", "e\n")
        stamped = engine.docker("logs", "-t", name).stdout.splitlines()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z out 1", stamped[0])
        after = stamped[1].split()[0]
        assert engine.docker("logs", "--since", after, name).stdout == "out 2\nout 3\n"
        assert engine.docker("logs", "--until", stamped[0].split()[0], name).stdout == "out 1\n"
        assert engine.docker("logs", "--since", "1h", name).stdout == shown.stdout
    finally:
        engine.docker("rm", "-f", name)


def test_logs_follow_until_the_end(engine: Client) -> None:
    name = engine.name()
    script = "for i in 1 2 3 4; do echo line $i; sleep 0.3; done"
    engine.docker("run", "-d", "--name", name, engine.image, "sh", "-c", script)
    try:
        assert engine.docker("logs", "-f", name, timeout=20).stdout == "line 1\nline 2\nline 3\nline 4\n"
    finally:
        engine.docker("rm", "-f", name)


def test_logs_follow_shows_lines_as_they_come(engine: Client) -> None:
    name = engine.name()
    engine.docker("run", "-di", "--name", name, engine.image, "cat")
    follower = engine.popen("logs", "-f", "--tail", "0", name)
    try:
        assert follower.stdout is not None
        time.sleep(0.5)
        feeder = engine.popen("attach", name)
        assert feeder.stdin is not None
        feeder.stdin.write("now\n")
        feeder.stdin.flush()
        began = time.monotonic()
        assert follower.stdout.readline() == "now\n"
        assert time.monotonic() - began < 2
        feeder.kill()
        feeder.wait()
    finally:
        engine.docker("rm", "-f", name)
        follower.kill()
        follower.wait()


def test_log_driver_none_and_local(engine: Client) -> None:
    name = engine.name()
    done = engine.docker("run", "--name", name, "--log-driver", "none", engine.image, "echo", "unseen")
    try:
        assert done.stdout == "unseen\n"
        refused = engine.docker("logs", name, check=False)
        assert refused.returncode == 1
        assert "configured logging driver does not support reading" in refused.stderr
    finally:
        engine.docker("rm", "-f", name)
    engine.docker("run", "--name", name, "--log-driver", "local", engine.image, "echo", "kept")
    try:
        assert engine.docker("logs", name).stdout == "kept\n"
        assert engine.inspect(name)["HostConfig"]["LogConfig"]["Type"] == "local"
    finally:
        engine.docker("rm", "-f", name)

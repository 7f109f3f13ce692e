"""What users see of the runtime, through the docker CLI."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.real

Run = Callable[..., Any]


@pytest.fixture
def run(engine: Any) -> Iterator[Run]:
    """`docker run --rm` without a network."""

    def call(*arguments: str, check: bool = True, **options: Any) -> Any:
        return engine.docker("run", "--rm", "--network", "none", *arguments, check=check, **options)

    yield call


@pytest.fixture
def container(engine: Any) -> Iterator[Callable[..., str]]:
    """Starts containers in the background, and removes them."""
    names: list[str] = []

    def start(*arguments: str, command: tuple[str, ...] = ("sleep", "1000")) -> str:
        names.append(engine.name("runtime"))
        engine.docker("run", "-d", "--name", names[-1], "--network", "none", *arguments, engine.image, *command)
        return names[-1]

    yield start
    for name in names:
        engine.docker("rm", "-f", name, check=False)


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (["sh", "-c", "exit 0"], 0, ""),
        (["sh", "-c", "exit 255"], 255, ""),
        (["nosuch"], 127, 'exec: "nosuch": executable file not found in $PATH'),
        (["/nosuch"], 127, "no such file or directory"),
        (["/etc/passwd"], 126, 'exec: "/etc/passwd": permission denied'),
        (["/etc"], 126, "is a directory"),
    ],
)
def test_exit_codes(engine: Any, run: Run, command: list[str], code: int, message: str) -> None:
    done = run(engine.image, *command, check=False)
    assert done.returncode == code
    assert message in done.stderr


def test_confinement(engine: Any, run: Run) -> None:
    text = run(
        engine.image, "sh", "-c", "cat /proc/self/status; cat /proc/kcore | wc -c; mount -t tmpfs x /tmp 2>&1; true"
    ).stdout
    fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    assert fields["CapEff"] == "00000000a80425fb"
    assert fields["Seccomp"] == "2"
    assert fields["NoNewPrivs"] == "0"
    assert "\n0\n" in text
    assert "mount: " in text


def test_privileged(engine: Any, run: Run) -> None:
    text = run(
        "--privileged", engine.image, "sh", "-c", "mount -t tmpfs x /tmp && grep Seccomp: /proc/self/status; ls /dev"
    )
    assert "Seccomp:\t0" in text.stdout
    assert "kmsg" in text.stdout


@pytest.mark.parametrize(
    ("options", "command", "wanted"),
    [
        (["-u", "5:6", "--group-add", "77"], "id", "uid=5 gid=6 groups=6,77"),
        (["-w", "/new/folder"], "pwd", "/new/folder"),
        (["--hostname", "there"], "hostname", "there"),
        (["--ulimit", "nofile=100:200"], "ulimit -n; ulimit -Hn", "100\n200"),
        (["--shm-size", "2m"], "df /dev/shm | tail -1 | awk '{print $2}'", "2048"),
        (["--oom-score-adj", "300"], "cat /proc/self/oom_score_adj", "300"),
        (["--sysctl", "kernel.msgmax=4096"], "cat /proc/sys/kernel/msgmax", "4096"),
        (["--init"], "cat /proc/1/comm", "docker-init"),
        (["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"], "grep CapEff /proc/self/status", "CapEff:\t0000000000001000"),
        (["--security-opt", "no-new-privileges"], "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1"),
        (["--security-opt", "seccomp=unconfined"], "grep Seccomp: /proc/self/status", "Seccomp:\t0"),
        (["--device", "/dev/null:/dev/mine"], "echo x > /dev/mine && ls -l /dev/mine | cut -c1", "c"),
        (["--read-only"], "touch /x 2>&1 | cut -d: -f3", " Read-only file system"),
        (["--runtime", "runc"], "echo runc", "runc"),
        (["--runtime", "io.containerd.runc.v2"], "echo shim", "shim"),
        (["-e", "HOME=/mine"], "echo $HOME", "/mine"),
    ],
)
def test_options(engine: Any, run: Run, options: list[str], command: str, wanted: str) -> None:
    assert run(*options, engine.image, "sh", "-c", command).stdout.rstrip("\n") == wanted


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-m", "4m"], "Minimum memory limit allowed is 6MB"),
        (["--cpus", "1000"], "Range of CPUs is from 0.01 to"),
        (["--cap-add", "fly"], 'invalid CapAdd: unknown capability: "CAP_FLY"'),
        (["--runtime", "nosuch"], "unknown or invalid runtime name: nosuch"),
        (["-u", "nobody-here"], "unable to find user nobody-here: no matching entries in passwd file"),
        (["--device", "/dev/nosuch"], 'error gathering device information while adding custom device "/dev/nosuch"'),
        (["--ipc", "container:nobody-here"], "No such container: nobody-here"),
        (["--gpus", "all"], 'could not select device driver "" with capabilities: [[gpu]]'),
        (["--security-opt", "a=b"], 'invalid --security-opt 2: "a=b"'),
    ],
)
def test_what_cannot_be_asked_for(engine: Any, run: Run, options: list[str], message: str) -> None:
    done = run(*options, engine.image, "true", check=False)
    assert done.returncode in (125, 127)
    assert message in done.stderr


def test_memory_and_its_end(engine: Any, run: Run) -> None:
    name = engine.name("oom")
    try:
        done = engine.docker(
            "run", "--name", name, "--network", "none", "-m", "16m", "--memory-swap", "16m", engine.image, "tail", "/dev/zero",
            check=False,
        )  # fmt: skip
        assert done.returncode == 137
        assert engine.inspect(name)["State"]["OOMKilled"] is True
        assert engine.inspect(name)["HostConfig"]["MemorySwap"] == 16 << 20
    finally:
        engine.docker("rm", "-f", name, check=False)


def test_shared_memory_and_processes(engine: Any, run: Run, container: Callable[..., str]) -> None:
    donor = container("--ipc", "shareable", command=("sh", "-c", "echo shared > /dev/shm/f; exec sleep 1000"))
    joined = run(
        "--ipc", f"container:{donor}", "--pid", f"container:{donor}", engine.image, "sh", "-c", "cat /dev/shm/f; ps"
    )
    assert joined.stdout.startswith("shared\n")
    assert "sleep 1000" in joined.stdout
    closed = container()
    refused = run("--ipc", f"container:{closed}", engine.image, "true", check=False)
    assert "non-shareable IPC" in refused.stderr


def test_defaults_in_inspect(engine: Any, container: Callable[..., str]) -> None:
    host = engine.inspect(container())["HostConfig"]
    assert host["ShmSize"] == 64 << 20
    assert host["IpcMode"] == "private"
    assert host["CgroupnsMode"] in ("host", "private")
    assert host["Runtime"]
    assert "/proc/kcore" in host["MaskedPaths"]


def test_limits_change_while_it_runs(engine: Any, container: Callable[..., str]) -> None:
    name = container("-m", "32m")
    engine.docker("update", "-m", "64m", "--memory-swap", "128m", "--pids-limit", "55", name)
    limit = "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; true"
    assert engine.docker("exec", name, "sh", "-c", limit).stdout.split() == ["55"]


def test_exec(engine: Any, container: Callable[..., str]) -> None:
    name = container()
    assert engine.docker("exec", "-i", name, "wc", "-c", input="12345").stdout == "5\n"
    done = engine.docker(
        "exec", "-u", "5", "-w", "/tmp", "-e", "A=b", name, "sh", "-c", "id -u; pwd; echo $A; exit 9", check=False
    )
    assert (done.returncode, done.stdout) == (9, "5\n/tmp\nb\n")
    missing = engine.docker("exec", name, "nosuch", check=False)
    assert missing.returncode in (126, 127)
    assert 'exec: "nosuch": executable file not found in $PATH' in missing.stdout + missing.stderr
    assert (
        "CapEff:\t000001ff" in engine.docker("exec", "--privileged", name, "grep", "CapEff", "/proc/self/status").stdout
    )


def test_info(engine: Any) -> None:
    info = engine.http("GET", "/info").json()
    assert info["DefaultRuntime"] in info["Runtimes"]
    assert "runc" in info["Runtimes"]
    assert info["CgroupVersion"] in ("1", "2")
    assert info["CgroupDriver"] == "cgroupfs"
    assert "name=seccomp,profile=builtin" in info["SecurityOptions"]


def test_the_daemons_options(own_engine: Callable[..., Any]) -> None:
    engine = own_engine(
        *("--default-ulimit", "nofile=111:222", "--default-shm-size", "4m", "--init", "--no-new-privileges"),
        *("--add-runtime", "mine=/usr/bin/crun", "--default-runtime", "mine", "--cgroup-parent", "/engine-tests"),
    )
    script = "ulimit -n; df /dev/shm | tail -1 | awk '{print $2}'; cat /proc/1/comm; grep NoNew /proc/self/status; cat /proc/1/cgroup"
    text = engine.docker("run", "--rm", "--network", "none", engine.image, "sh", "-c", script).stdout
    assert text.startswith("111\n4096\ndocker-init\nNoNewPrivs:\t1\n")
    assert ":/engine-tests/" in text
    assert engine.http("GET", "/info").json()["DefaultRuntime"] == "mine"

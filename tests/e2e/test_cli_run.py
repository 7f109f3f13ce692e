"""`docker run` and its options, with the stock CLI."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from harness import Client, eventually

pytestmark = pytest.mark.real


def test_output_and_errors_come_apart(engine: Client) -> None:
    done = engine.docker("run", "--rm", engine.image, "sh", "-c", "echo to-out; echo to-err >&2")
    assert (done.stdout, done.stderr) == ("to-out\n", "to-err\n")


@pytest.mark.parametrize("code", [0, 1, 2, 42, 124, 125, 126, 127, 128, 130, 137, 143, 200, 254, 255])
def test_exit_code_is_the_commands_own(engine: Client, code: int) -> None:
    done = engine.docker("run", "--rm", "--network", "none", engine.image, "sh", "-c", f"exit {code}", check=False)
    assert done.returncode == code
    assert done.stderr == ""


def test_missing_command_is_127(engine: Client) -> None:
    name = engine.name()
    done = engine.docker("run", "--name", name, engine.image, "no-such-program", check=False)
    try:
        assert done.returncode == 127
        assert 'exec: "no-such-program": executable file not found in $PATH' in done.stderr
        state = engine.inspect(name)["State"]
        assert state["Status"] == "created"
        assert state["ExitCode"] == 127
        assert "no-such-program" in state["Error"]
    finally:
        engine.docker("rm", "-f", name)


def test_command_that_may_not_run_is_126(engine: Client) -> None:
    done = engine.docker("run", "--rm", engine.image, "/etc/passwd", check=False)
    assert done.returncode == 126
    assert "permission denied" in done.stderr


def test_missing_image_is_125(engine: Client) -> None:
    done = engine.docker("run", "--rm", "--pull", "never", "no-such-image:x", check=False)
    assert done.returncode == 125
    assert "No such image: no-such-image:x" in done.stderr


def test_killed_by_a_signal(engine: Client) -> None:
    name = engine.name()
    client = engine.popen("run", "--rm", "--name", name, engine.image, "sh", "-c", "echo up; sleep 600")
    assert client.stdout is not None
    assert client.stdout.readline() == "up\n"
    engine.docker("kill", name)
    assert client.wait(20) == 137
    client.communicate()


def test_rm_leaves_no_container(engine: Client) -> None:
    name = engine.name()
    engine.docker("run", "--rm", "--name", name, engine.image, "true")
    eventually(lambda: engine.docker("ps", "-aq", "--filter", f"name={name}").stdout == "")


def test_stdin_is_carried_and_ends(engine: Client) -> None:
    data = "x" * 300_000
    done = engine.docker("run", "--rm", "-i", engine.image, "wc", "-c", input=data)
    assert done.stdout.strip() == "300000"


def test_output_is_whole_with_much_of_it(engine: Client) -> None:
    done = engine.docker("run", "--rm", engine.image, "sh", "-c", "seq 1 100000")
    assert done.stdout == "".join(f"{number}\n" for number in range(1, 100001))


def test_environment_user_directory_and_host_name(engine: Client) -> None:
    script = 'echo "$COLOUR $HOME $(id -u):$(id -g) $(pwd) $(hostname)"; cat /etc/hosts'
    done = engine.docker(
        *["run", "--rm", "-e", "COLOUR=deep red", "-e", "HOME=/h", "-u", "33:50", "-w", "/made/for/it"],
        *["-h", "guest", engine.image, "sh", "-c", script],
    )
    first, *hosts = done.stdout.splitlines()
    assert first == "deep red /h 33:50 /made/for/it guest"
    assert any(line.split()[1:] == ["guest"] for line in hosts if not line.startswith("127."))


def test_user_by_name_gets_its_groups(engine: Client) -> None:
    assert engine.docker("run", "--rm", "-u", "www", engine.image, "id").stdout == (
        "uid=33(www) gid=33(www) groups=33(www),50(staff)\n"
    )


def test_entrypoint_and_command(engine: Client) -> None:
    assert engine.docker("run", "--rm", "--entrypoint", "echo", engine.image, "a", "b").stdout == "a b\n"


def test_detached_prints_the_id_and_goes_on(engine: Client) -> None:
    cid = engine.docker("run", "-d", engine.image, "sleep", "600").stdout.strip()
    try:
        assert len(cid) == 64
        assert engine.inspect(cid)["State"]["Running"] is True
        assert cid[:12] in engine.docker("ps", "-q").stdout.split()
    finally:
        engine.docker("rm", "-f", cid)


def test_cidfile_and_labels(engine: Client, tmp_path: Path) -> None:
    file = tmp_path / "cid"
    engine.docker("run", "-d", "--cidfile", file, "--label", "purpose=test", engine.image, "sleep", "600")
    cid = file.read_text()
    try:
        found = engine.docker("ps", "-q", "--no-trunc", "--filter", "label=purpose=test").stdout.split()
        assert cid in found
    finally:
        engine.docker("rm", "-f", cid)


def test_bind_mount_is_the_hosts_folder(engine: Client, host_dir: Path) -> None:
    (host_dir / "greeting").write_text("from the host\n")
    script = "cat /data/greeting; echo back > /data/answer"
    assert engine.docker("run", "--rm", "-v", f"{host_dir}:/data", engine.image, "sh", "-c", script).stdout == (
        "from the host\n"
    )
    assert (host_dir / "answer").read_text() == "back\n"


def test_read_only_bind_mount_refuses_writing(engine: Client, host_dir: Path) -> None:
    done = engine.docker("run", "--rm", "-v", f"{host_dir}:/data:ro", engine.image, "touch", "/data/x", check=False)
    assert done.returncode == 1
    assert "Read-only file system" in done.stderr
    assert not (host_dir / "x").exists()


def test_missing_bind_source_is_made_by_v_and_refused_by_mount(engine: Client, host_dir: Path) -> None:
    engine.docker("run", "--rm", "-v", f"{host_dir}/made:/data", engine.image, "true")
    assert (host_dir / "made").is_dir()
    mount = f"type=bind,source={host_dir}/not-there,target=/data"
    done = engine.docker("run", "--rm", "--mount", mount, engine.image, "true", check=False)
    assert done.returncode == 125
    assert f"bind source path does not exist: {host_dir}/not-there" in done.stderr


def test_tmpfs(engine: Client) -> None:
    done = engine.docker("run", "--rm", "--tmpfs", "/scratch:size=1m", engine.image, "df", "-k", "/scratch")
    assert done.stdout.splitlines()[-1].split()[:2] == ["tmpfs", "1024"]


def test_read_only_root(engine: Client) -> None:
    done = engine.docker("run", "--rm", "--read-only", engine.image, "touch", "/x", check=False)
    assert done.returncode == 1
    assert "Read-only file system" in done.stderr


def test_memory_limit_is_held(engine: Client) -> None:
    name = engine.name()
    script = "x=a; while true; do x=$x$x; done"
    done = engine.docker(
        *["run", "--name", name, "-m", "16m", "--memory-swap", "16m", engine.image, "sh", "-c", script], check=False
    )
    try:
        assert done.returncode == 137
        shown = engine.inspect(name)
        assert shown["State"]["OOMKilled"] is True
        assert shown["HostConfig"]["Memory"] == 16 * 2**20
    finally:
        engine.docker("rm", "-f", name)


def test_memory_limit_as_the_container_sees_it(engine: Client) -> None:
    script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max"
    assert engine.docker("run", "--rm", "-m", "32m", engine.image, "sh", "-c", script).stdout.strip() == str(32 * 2**20)


def test_pids_limit(engine: Client) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 5 & done"
    done = engine.docker("run", "--rm", "--pids-limit", "5", engine.image, "sh", "-c", script, check=False)
    assert "can't fork" in done.stderr


def test_ulimit_sysctl_and_shm(engine: Client) -> None:
    script = "ulimit -n; cat /proc/sys/net/core/somaxconn; df -k /dev/shm | tail -n 1 | awk '{print $2}'"
    done = engine.docker(
        *["run", "--rm", "--ulimit", "nofile=128:256", "--sysctl", "net.core.somaxconn=321", "--shm-size", "2m"],
        *[engine.image, "sh", "-c", script],
    )
    assert done.stdout.split() == ["128", "321", "2048"]


def test_capabilities_are_dockers(engine: Client) -> None:
    script = "grep CapEff /proc/self/status"

    def effective(*options: str) -> int:
        return int(engine.docker("run", "--rm", *options, engine.image, "sh", "-c", script).stdout.split()[1], 16)

    assert effective() == 0x00000000A80425FB
    assert effective("--cap-drop", "ALL") == 0
    assert effective("--cap-drop", "ALL", "--cap-add", "NET_ADMIN") == 1 << 12
    assert effective("-u", "33") == 0


def test_privileged_sees_devices_and_may_mount(engine: Client) -> None:
    script = "mount -t tmpfs none /tmp && test -e /dev/kmsg && grep Seccomp: /proc/self/status"
    assert engine.docker("run", "--rm", "--privileged", engine.image, "sh", "-c", script).stdout.split()[-1] == "0"
    done = engine.docker("run", "--rm", engine.image, "mount", "-t", "tmpfs", "none", "/tmp", check=False)
    assert done.returncode == 1
    assert "permission denied" in done.stderr


def test_seccomp_filters_and_can_be_left_out(engine: Client) -> None:
    def mode(*options: str) -> str:
        return engine.docker("run", "--rm", *options, engine.image, "grep", "Seccomp:", "/proc/self/status").stdout

    assert mode().split()[-1] == "2"
    assert mode("--security-opt", "seccomp=unconfined").split()[-1] == "0"


def test_masked_and_read_only_paths(engine: Client) -> None:
    script = (
        "wc -c < /proc/timer_list; echo 1 > /proc/sys/kernel/panic; ls /proc/acpi /sys/firmware 2>/dev/null | grep -v :"
    )
    done = engine.docker("run", "--rm", engine.image, "sh", "-c", script, check=False)
    assert done.stdout.split() == ["0"]
    assert "Read-only file system" in done.stderr


def test_init_reaps_orphans(engine: Client) -> None:
    script = "sh -c '(sleep 0.1; true) & true'; sleep 0.5; ps -o pid,args; cat /proc/1/comm"
    done = engine.docker("run", "--rm", "--init", engine.image, "sh", "-c", script)
    assert done.stdout.splitlines()[-1] in ("docker-init", "tini", "catatonit")
    assert "[sleep]" not in done.stdout


def test_network_none_has_the_loopback_alone(engine: Client) -> None:
    done = engine.docker("run", "--rm", "--network", "none", engine.image, "ls", "/sys/class/net")
    assert "eth0" not in done.stdout.split()
    assert "lo" in done.stdout.split()
    up = engine.docker("run", "--rm", "--network", "none", engine.image, "ip", "addr", "show", "lo")
    assert "127.0.0.1/8" in up.stdout


def test_network_host_is_the_engines(engine: Client) -> None:
    inside = engine.docker("run", "--rm", "--network", "host", engine.image, "readlink", "/proc/self/ns/net").stdout
    assert inside == engine.nsenter(["readlink", "/proc/self/ns/net"]).stdout


def test_network_of_another_container(engine: Client) -> None:
    other = engine.docker("run", "-d", engine.image, "sleep", "600").stdout.strip()
    try:
        there = engine.docker("exec", other, "readlink", "/proc/self/ns/net").stdout
        mode = f"container:{other}"
        done = engine.docker("run", "--rm", "--network", mode, engine.image, "readlink", "/proc/self/ns/net")
        assert done.stdout == there
    finally:
        engine.docker("rm", "-f", other)


def test_pid_and_ipc_of_another_container(engine: Client) -> None:
    other = engine.docker("run", "-d", "--ipc", "shareable", engine.image, "sleep", "612").stdout.strip()
    try:
        shared = ["--pid", f"container:{other}", "--ipc", f"container:{other}"]
        done = engine.docker("run", "--rm", *shared, engine.image, "ps", "-o", "args")
        assert "sleep 612" in done.stdout
    finally:
        engine.docker("rm", "-f", other)


def test_restart_policy_starts_it_again(engine: Client) -> None:
    name = engine.name()
    engine.docker("run", "-d", "--name", name, "--restart", "on-failure:2", engine.image, "sh", "-c", "echo up; exit 3")
    try:
        eventually(lambda: engine.inspect(name)["State"]["Status"] == "exited", timeout=20)
        shown = engine.inspect(name)
        assert shown["RestartCount"] == 2
        assert shown["State"]["ExitCode"] == 3
        assert engine.docker("logs", name).stdout == "up\n" * 3
    finally:
        engine.docker("rm", "-f", name)


def test_restart_always_until_stopped(engine: Client) -> None:
    name = engine.name()
    engine.docker("run", "-d", "--name", name, "--restart", "always", engine.image, "sleep", "0.3")
    try:
        eventually(lambda: engine.inspect(name)["RestartCount"] >= 2, timeout=20)
        engine.docker("stop", "-t", "1", name)
        count = engine.inspect(name)["RestartCount"]
        time.sleep(1.5)
        shown = engine.inspect(name)
        assert shown["State"]["Status"] == "exited"
        assert shown["RestartCount"] == count
    finally:
        engine.docker("rm", "-f", name)


def test_warnings_and_defaults_in_inspect(engine: Client) -> None:
    name = engine.name()
    engine.docker("create", "--name", name, engine.image)
    try:
        shown = engine.inspect(name)
        assert shown["Name"] == f"/{name}"
        assert (shown["Path"], shown["Args"]) == ("sh", [])
        assert shown["Config"]["Cmd"] == ["sh"]
        assert shown["Config"]["Image"] == engine.image
        assert shown["HostConfig"]["NetworkMode"] in ("default", "bridge")
        assert shown["HostConfig"]["LogConfig"]["Type"]
        assert shown["HostConfig"]["ShmSize"] == 64 * 2**20
        assert shown["State"]["Status"] == "created"
        assert shown["GraphDriver"]["Name"] == "overlay2"
        assert set(shown["NetworkSettings"]["Networks"]) == {"bridge"}
        json.dumps(shown)
    finally:
        engine.docker("rm", name)

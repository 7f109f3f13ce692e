"""A container's life through the stock CLI: ps, stop, kill, wait, rm, cp, commit, port, rename, inspect, diff, top."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Client, eventually

pytestmark = pytest.mark.real


@pytest.fixture
def start(engine: Client) -> Iterator[Callable[..., str]]:
    """`start(*options, command=[...])` runs a container in the background and gives its name; removed in the end."""
    made: list[str] = []

    def run(*options: str, command: list[str] | None = None) -> str:
        name = engine.name()
        made.append(name)
        engine.docker("run", "-d", "--name", name, *options, engine.image, *(command or ["sleep", "600"]))
        return name

    yield run
    engine.docker("rm", "-f", "-v", *made, check=False)


def test_ps_shows_running_and_all(engine: Client, start: Callable[..., str]) -> None:
    running, ended = start(), start(command=["sh", "-c", "exit 3"])
    engine.docker("wait", ended)
    names = engine.docker("ps", "--format", "{{.Names}}").stdout.split()
    assert running in names
    assert ended not in names
    rows = engine.docker("ps", "-a", "--format", "{{.Names}}|{{.Status}}|{{.Image}}|{{.Command}}").stdout.splitlines()
    states = {row.split("|")[0]: row.split("|")[1:] for row in rows}
    assert re.fullmatch(r"Up (Less than a|\d+) seconds?", states[running][0])
    assert re.fullmatch(r"Exited \(3\) (Less than a|\d+) seconds? ago", states[ended][0])
    assert states[running][1:] == [engine.image, '"sleep 600"']


def test_ps_filters(engine: Client, start: Callable[..., str]) -> None:
    first = start("--label", "tier=one")
    second = start("--label", "tier=two", command=["false"])
    engine.docker("wait", second)

    def ps(*filters: str) -> set[str]:
        options = [part for text in filters for part in ("--filter", text)]
        return set(engine.docker("ps", "-a", *options, "--format", "{{.Names}}").stdout.split()) & {first, second}

    assert ps("label=tier") == {first, second}
    assert ps("label=tier=one") == {first}
    assert ps("status=exited") == {second}
    assert ps("exited=1") == {second}
    assert ps(f"name={first}") == {first}
    assert ps(f"id={engine.inspect(second)['Id'][:20]}") == {second}
    assert ps("ancestor=busybox") == {first, second}
    assert ps(f"before={second}", "label=tier") == {first}
    assert ps("status=running", "label=tier=two") == set()
    refused = engine.docker("ps", "--filter", "nonsense=1", check=False)
    assert refused.returncode == 1
    assert "invalid filter 'nonsense'" in refused.stderr


def test_stop_asks_before_it_kills(engine: Client, start: Callable[..., str]) -> None:
    polite = start(command=["sh", "-c", "trap 'exit 33' TERM; while true; do sleep 0.1; done"])
    deaf = start(command=["sh", "-c", "trap '' TERM; while true; do sleep 0.1; done"])
    time.sleep(0.3)
    assert engine.docker("stop", polite).stdout.strip() == polite
    assert engine.inspect(polite)["State"]["ExitCode"] == 33
    began = time.monotonic()
    engine.docker("stop", "-t", "1", deaf)
    assert 0.9 < time.monotonic() - began < 5
    assert engine.inspect(deaf)["State"]["ExitCode"] == 137
    engine.docker("stop", deaf)


def test_stop_signal_of_the_container(engine: Client, start: Callable[..., str]) -> None:
    script = "trap 'exit 10' USR1; trap 'exit 11' TERM; while true; do sleep 0.1; done"
    name = start("--stop-signal", "USR1", command=["sh", "-c", script])
    time.sleep(0.3)
    engine.docker("stop", name)
    assert engine.inspect(name)["State"]["ExitCode"] == 10


def test_kill_with_a_signal(engine: Client, start: Callable[..., str]) -> None:
    name = start(command=["sh", "-c", "trap 'echo caught' HUP; while true; do sleep 0.1; done"])
    time.sleep(0.3)
    engine.docker("kill", "-s", "HUP", name)
    eventually(lambda: engine.docker("logs", name).stdout == "caught\n")
    engine.docker("kill", name)
    assert engine.docker("wait", name).stdout == "137\n"
    refused = engine.docker("kill", name, check=False)
    assert refused.returncode == 1
    assert "is not running" in refused.stderr


def test_wait_gives_the_code_at_the_end(engine: Client, start: Callable[..., str]) -> None:
    name = start(command=["sh", "-c", "sleep 0.7; exit 21"])
    assert engine.docker("wait", name).stdout == "21\n"
    assert engine.docker("wait", name).stdout == "21\n"


def test_start_again_keeps_the_files(engine: Client, start: Callable[..., str]) -> None:
    name = start(command=["sh", "-c", "echo run >> /runs; cat /runs"])
    engine.docker("wait", name)
    assert engine.docker("start", "-a", name).stdout == "run\nrun\n"
    assert engine.docker("logs", name).stdout == "run\nrun\nrun\n"


def test_restart_gives_a_new_process(engine: Client, start: Callable[..., str]) -> None:
    name = start()
    before = engine.inspect(name)["State"]
    engine.docker("restart", "-t", "1", name)
    after = engine.inspect(name)["State"]
    assert after["Running"] is True
    assert after["Pid"] != before["Pid"]
    assert after["StartedAt"] > before["StartedAt"]


def test_rm_refuses_a_running_container(engine: Client, start: Callable[..., str]) -> None:
    name = start()
    refused = engine.docker("rm", name, check=False)
    assert refused.returncode == 1
    assert f'cannot remove container "/{name}": container is running' in refused.stderr
    assert engine.docker("rm", "-f", name).stdout.strip() == name
    missing = engine.docker("rm", name, check=False)
    assert missing.returncode == 1
    assert f"No such container: {name}" in missing.stderr


def test_pause_and_unpause(engine: Client, start: Callable[..., str]) -> None:
    name = start(command=["sh", "-c", "while true; do date +%s%N; sleep 0.1; done"])
    engine.docker("pause", name)
    assert engine.inspect(name)["State"]["Status"] == "paused"
    assert (
        engine.docker("ps", "--filter", f"name={name}", "--format", "{{.Status}}").stdout.strip().endswith("(Paused)")
    )
    frozen = engine.docker("logs", name).stdout
    time.sleep(0.5)
    assert engine.docker("logs", name).stdout == frozen
    engine.docker("unpause", name)
    eventually(lambda: engine.docker("logs", name).stdout != frozen)


def test_rename(engine: Client, start: Callable[..., str]) -> None:
    name, new = start(), engine.name("renamed")
    engine.docker("rename", name, new)
    try:
        assert engine.inspect(new)["Name"] == f"/{new}"
        assert engine.docker("inspect", name, check=False).returncode == 1
    finally:
        engine.docker("rename", new, name)


def test_cp_both_ways(engine: Client, start: Callable[..., str], tmp_path: Path) -> None:
    name = start()
    (tmp_path / "in").mkdir()
    (tmp_path / "in/file").write_text("carried\n")
    engine.docker("cp", tmp_path / "in", f"{name}:/root")
    assert engine.docker("exec", name, "cat", "/root/in/file").stdout == "carried\n"
    engine.docker("exec", name, "sh", "-c", "echo more >> /root/in/file; chmod 640 /root/in/file")
    engine.docker("cp", f"{name}:/root/in/file", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "carried\nmore\n"
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o640
    assert engine.docker("cp", f"{name}:/no/such", tmp_path / "x", check=False).returncode == 1
    missing = engine.http("GET", f"/v1.45/containers/{name}/archive?path=/no/such")
    assert missing.status == 404
    assert "Could not find the file /no/such in container" in missing.message


def test_cp_of_a_stopped_container_and_through_links(engine: Client, tmp_path: Path) -> None:
    name = engine.name()
    engine.docker("run", "--name", name, engine.image, "sh", "-c", "echo text > /f; ln -s /f /link; ln -s /etc /conf")
    try:
        engine.docker("cp", "-L", f"{name}:/link", tmp_path / "out")
        assert (tmp_path / "out").read_text() == "text\n"
        # A link's target is the container's: this must not be the host's /etc.
        (tmp_path / "motd").write_text("inside\n")
        engine.docker("cp", tmp_path / "motd", f"{name}:/conf/engine-test-motd")
        assert not Path("/etc/engine-test-motd").exists()
        engine.docker("cp", f"{name}:/etc/engine-test-motd", tmp_path / "again")
        assert (tmp_path / "again").read_text() == "inside\n"
    finally:
        engine.docker("rm", name)


def test_commit_makes_an_image_of_the_changes(engine: Client) -> None:
    name, image = engine.name(), f"{engine.name('image')}:v1"
    engine.docker("run", "--name", name, "-e", "KEPT=yes", engine.image, "sh", "-c", "echo new > /new; rm -r /home")
    try:
        changes = ["--change", 'CMD ["cat", "/new"]', "-m", "with news", "-a", "someone"]
        image_id = engine.docker("commit", *changes, name, image).stdout.strip()
        assert engine.docker("run", "--rm", image).stdout == "new\n"
        assert engine.docker("run", "--rm", image, "sh", "-c", "echo $KEPT; ls -d /home || true").stdout == "yes\n"
        shown = json.loads(engine.docker("image", "inspect", image).stdout)[0]
        assert shown["Id"] == image_id
        assert (shown["Comment"], shown["Author"]) == ("with news", "someone")
        assert len(shown["RootFS"]["Layers"]) == 2
    finally:
        engine.docker("rm", name)
        engine.docker("rmi", image, check=False)


def test_diff(engine: Client) -> None:
    name = engine.name()
    engine.docker(
        "run", "--name", name, engine.image, "sh", "-c", "mkdir /new; echo > /new/a; rm /bin/vi; echo >> /etc/group"
    )
    try:
        lines = engine.docker("diff", name).stdout.splitlines()
        assert {"A /new", "A /new/a", "C /bin", "D /bin/vi", "C /etc", "C /etc/group"} == set(lines)
    finally:
        engine.docker("rm", name)


def test_export(engine: Client, tmp_path: Path) -> None:
    name, target = engine.name(), tmp_path / "out.tar"
    engine.docker("run", "--name", name, engine.image, "sh", "-c", "echo > /made-here")
    try:
        engine.docker("export", "-o", target, name)
        import tarfile

        with tarfile.open(target) as archive:
            names = {member.removeprefix("./") for member in archive.getnames()}
        assert {"made-here", "bin/busybox"} <= names
    finally:
        engine.docker("rm", name)


def test_top(engine: Client, start: Callable[..., str]) -> None:
    name = start(command=["sleep", "678"])
    header, line = engine.docker("top", name).stdout.splitlines()
    assert header.split()[:2] == ["UID", "PID"]
    assert "sleep 678" in line


def test_update_of_limits(engine: Client, start: Callable[..., str]) -> None:
    name = start("-m", "64m")
    engine.docker("update", "-m", "32m", "--memory-swap", "64m", name)
    script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max"
    assert engine.docker("exec", name, "sh", "-c", script).stdout.strip() == str(32 * 2**20)
    assert engine.inspect(name)["HostConfig"]["Memory"] == 32 * 2**20


def test_port_and_the_service_behind_it(engine: Client, start: Callable[..., str]) -> None:
    web = ["sh", "-c", "mkdir /www; echo served > /www/index.html; httpd -f -p 8080 -h /www"]
    name = start("-p", "127.0.0.1::8080", "-p", "18099:8080/udp", command=web)
    shown = engine.docker("port", name, "8080/tcp").stdout.strip()
    host, _, port = shown.rpartition(":")
    assert host == "127.0.0.1"
    everything = engine.docker("port", name).stdout.splitlines()
    assert f"8080/tcp -> 127.0.0.1:{port}" in everything
    assert "8080/udp -> 0.0.0.0:18099" in everything
    eventually(lambda: engine.fetch(f"http://127.0.0.1:{port}/") == "served\n")
    ports = engine.docker("ps", "--filter", f"name={name}", "--format", "{{.Ports}}").stdout
    assert f"127.0.0.1:{port}->8080/tcp" in ports


def test_published_on_all_addresses_and_gone_after_stop(engine: Client, start: Callable[..., str]) -> None:
    web = ["sh", "-c", "mkdir /www; echo served > /www/index.html; httpd -f -p 80 -h /www"]
    name = start("-p", "80", command=web)
    port = engine.docker("port", name, "80").stdout.splitlines()[0].rpartition(":")[2]
    gateway = engine.inspect(name)["NetworkSettings"]["Networks"]["bridge"]["Gateway"]

    def fetch(address: str) -> bool:
        return engine.fetch(f"http://{address}:{port}/") == "served\n"

    eventually(lambda: fetch("127.0.0.1"))
    assert fetch(gateway)
    engine.docker("stop", "-t", "1", name)
    assert not fetch("127.0.0.1")


def test_inspect_of_a_running_container(engine: Client, start: Callable[..., str]) -> None:
    name = start("-e", "A=b", "-l", "k=v", "-w", "/tmp")
    shown = engine.inspect(name)
    assert shown["State"]["Status"] == "running"
    assert shown["State"]["Pid"] > 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", shown["State"]["StartedAt"])
    assert shown["State"]["FinishedAt"] == "0001-01-01T00:00:00Z"
    assert "A=b" in shown["Config"]["Env"]
    assert "PATH=/usr/local/sbin:" in engine.docker("exec", name, "env").stdout
    assert shown["Config"]["Labels"] == {"k": "v"}
    assert shown["Config"]["Hostname"] == shown["Id"][:12]
    network = shown["NetworkSettings"]["Networks"]["bridge"]
    assert network["IPAddress"]
    assert network["IPAddress"] == engine.docker("exec", name, "hostname", "-i").stdout.split()[0]
    assert network["MacAddress"].count(":") == 5
    assert shown["Image"].startswith("sha256:")
    by_prefix = engine.docker("inspect", "--format", "{{.Name}}", shown["Id"][:16]).stdout.strip()
    assert by_prefix == f"/{name}"
    sized = json.loads(engine.docker("inspect", "-s", name).stdout)[0]
    assert sized["SizeRootFs"] > 500_000


def test_prune_removes_what_has_ended(engine: Client) -> None:
    name, label = engine.name(), f"prune={engine.name()}"
    engine.docker("run", "--name", name, "--label", label, engine.image, "true")
    done = engine.docker("container", "prune", "-f", "--filter", f"label={label}")
    assert "Total reclaimed space" in done.stdout
    assert engine.docker("inspect", name, check=False).returncode == 1

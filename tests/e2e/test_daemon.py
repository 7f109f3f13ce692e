"""The daemon's own behaviour: dockerd's flags and file, signals, several engines on one machine."""

from __future__ import annotations

import json
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import CommandFailed, Engine, eventually

pytestmark = pytest.mark.real


def info(engine: Engine) -> dict[str, object]:
    shown: dict[str, object] = json.loads(engine.docker("info", "--format", "{{json .}}").stdout)
    return shown


def test_starts_soon_and_is_small(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine(start=False)
    seconds = engine.start()
    assert seconds < 5  # 1.2 on a quiet machine; benchmarks/run_latency.py measures it
    eventually(lambda: "ready" in engine.log())
    status = Path(f"/proc/{engine.pid}/status").read_text()
    resident = int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1))  # type: ignore[union-attr]
    assert resident < 110 * 1024


def test_every_built_in_plugin_runs(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine(image=False)
    eventually(lambda: "ready" in engine.log())
    rows = engine.engine("plugin", "ls", "--all").stdout
    assert "failed" not in rows
    for name in ("api_server", "containers", "images", "logging", "net_bridge", "runtime_oci", "storage_overlay2"):
        assert name in rows
    assert "level=error" not in engine.log()


def test_dockerds_flags_are_taken(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine(
        *["--log-level", "warn", "--experimental", "--storage-driver", "overlay2", "--log-driver=local"],
        *["--log-opt", "max-size=3m", "--default-runtime", "runc", "--insecure-registry", "registry.example:5000"],
        *["--registry-mirror", "https://mirror.example", "--bip", "10.218.1.1/24", "--mtu", "1400", "--icc=false"],
        *["--iptables=true", "--ip-forward", "--userland-proxy=false", "--live-restore", "--label", "rack=9"],
        *["--default-ulimit", "nofile=300:400", "--containerd", "/run/containerd/containerd.sock"],
        *["--default-shm-size", "8m", "--dns", "192.0.2.1", "--shutdown-timeout", "5", "--group", "root"],
    )
    shown = info(engine)
    assert shown["ExperimentalBuild"] is True
    assert shown["LoggingDriver"] == "local"
    assert shown["DefaultRuntime"] == "runc"
    assert shown["Labels"] == ["rack=9"]
    assert shown["LiveRestoreEnabled"] is True
    assert "registry.example:5000" in shown["RegistryConfig"]["IndexConfigs"]  # type: ignore[index]
    assert engine.http("GET", "/_ping").headers["Docker-Experimental"] == "true"
    script = (
        "ulimit -n; cat /sys/class/net/eth0/mtu; ip -4 addr show eth0 | grep -o '10.218.1.[0-9]*'; cat /etc/resolv.conf"
    )
    out = engine.docker("run", "--rm", engine.image, "sh", "-c", script).stdout
    assert out.startswith("300\n1400\n10.218.1.2\n")
    assert "nameserver 192.0.2.1" in out
    assert "containerd" in engine.log()  # the warning that it is ignored


def test_icc_false_parts_the_containers(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine("--icc=false")
    engine.docker("run", "-d", "--name", "aa", engine.image, "sleep", "600")
    address = engine.inspect("aa")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    done = engine.docker("run", "--rm", engine.image, "ping", "-c", "1", "-W", "1", address, check=False)
    assert done.returncode == 1


def test_configuration_file(own_engine: Callable[..., Engine], tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"
    settings = {"log-driver": "local", "labels": ["a=b"], "insecure-registries": ["r.example"]}
    file.write_text(json.dumps(settings))
    engine = own_engine("--config-file", str(file), image=False)
    shown = info(engine)
    assert shown["LoggingDriver"] == "local"
    assert shown["Labels"] == ["a=b"]


@pytest.mark.parametrize(
    ("content", "flags", "words"),
    [
        ("{not json", [], ["daemon.json", "JSON"]),
        ('{"no-such-key": 1}', [], ["daemon.json", "no-such-key"]),
        (
            '{"log-driver": "local"}',
            ["--log-driver", "json-file"],
            ["log-driver", "both as a flag and in the configuration"],
        ),
        ('{"mtu": "much"}', [], ["mtu", "much"]),
        ("{}", ["--bip", "rubbish"], ["bip", "rubbish"]),
        ("{}", ["--no-such-flag"], ["no-such-flag"]),
        ("{}", ["--log-level", "loud"], ["loud"]),
        ("{}", ["--default-ulimit", "rubbish"], ["ulimit", "rubbish"]),
        ("{}", ["--storage-driver", "no-such-driver"], ["no-such-driver"]),
        ("{}", ["--log-driver", "no-such-driver"], ["no-such-driver"]),
        ("{}", ["--default-runtime", "no-such-runtime"], ["no-such-runtime"]),
    ],
)
def test_bad_configuration_is_refused(
    own_engine: Callable[..., Engine], tmp_path: Path, content: str, flags: list[str], words: list[str]
) -> None:
    file = tmp_path / "daemon.json"
    file.write_text(content)
    engine = own_engine("--config-file", str(file), *flags, start=False)
    process = engine.spawn()
    try:
        code = process.wait(20)
    except subprocess.TimeoutExpired:
        engine.kill9()
        raise AssertionError(f"it started:\n{engine.log()}") from None
    assert code != 0
    said = engine.log()
    assert "Traceback" not in said
    for word in words:
        assert word in said


def test_sigterm_stops_it_cleanly(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine(image=False)
    socket_path = engine.root / "s.sock"
    mode = socket_path.stat()
    assert stat.S_ISSOCK(mode.st_mode)
    assert stat.S_IMODE(mode.st_mode) == 0o660
    follower = engine.popen("events")
    began = time.monotonic()
    assert engine.stop(signal.SIGTERM) == 0
    assert time.monotonic() - began < 10
    assert follower.wait(10) is not None
    follower.communicate()
    assert not socket_path.exists()
    assert not (engine.root / "pid").exists()


def test_sigterm_in_the_middle_of_the_start(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine(start=False)
    for delay in (0.3, 0.6, 0.9):
        engine.spawn()
        time.sleep(delay)
        engine.stop(signal.SIGTERM)
        assert "Traceback" not in engine.log()
    engine.start()


def test_sighup_reloads_labels_and_debug(own_engine: Callable[..., Engine], tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"
    file.write_text('{"labels": ["turn=1"]}')
    engine = own_engine("--config-file", str(file), image=False)
    since = str(int(time.time()) - 1)
    file.write_text('{"labels": ["turn=2"]}')
    engine.signal(signal.SIGHUP)
    eventually(lambda: info(engine)["Labels"] == ["turn=2"])
    span = ["--since", since, "--until", str(int(time.time()) + 1), "--filter", "type=daemon"]
    assert "reload" in engine.docker("events", *span, "--format", "{{.Action}}").stdout.split()
    file.write_text("{broken")
    engine.signal(signal.SIGHUP)
    eventually(lambda: "stays as it was" in engine.log() or "JSON" in engine.log())
    assert info(engine)["Labels"] == ["turn=2"]


def test_one_data_root_serves_one_engine(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine(image=False)
    second = subprocess.run(
        [*engine.command(), "-H", f"unix://{engine.root}/other.sock", "--pidfile", str(engine.root / "pid2")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert second.returncode != 0
    assert str(engine.root / "data") in second.stderr
    assert engine.answers()


def test_two_engines_side_by_side(own_engine: Callable[..., Engine]) -> None:
    """Different roots, one network namespace: neither touches what is the other's."""
    one = own_engine()
    two = own_engine("--bip", "10.219.1.1/24", netns=one.netns)
    web = ["sh", "-c", "mkdir /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www"]
    one.docker("run", "-d", "--name", "web", "-h", "first", "-p", "127.0.0.1:18701:80", one.image, *web)
    two.docker("run", "-d", "--name", "web", "-h", "second", "-p", "127.0.0.1:18702:80", two.image, *web)
    for engine in (one, two):
        engine.docker("network", "create", "same-name")
        engine.docker("run", "-d", "--name", "other", "--network", "same-name", engine.image, "sleep", "600")
    eventually(lambda: one.fetch("http://127.0.0.1:18701/") == "first\n")
    eventually(lambda: two.fetch("http://127.0.0.1:18702/") == "second\n")
    taken = two.docker("run", "--rm", "-p", "127.0.0.1:18701:80", two.image, "true", check=False)
    assert taken.returncode == 125
    two.docker("rm", "-f", "web", "other")
    two.restart()
    assert one.fetch("http://127.0.0.1:18701/") == "first\n"
    two.kill9()
    assert one.fetch("http://127.0.0.1:18701/") == "first\n"
    one.docker("exec", "other", "true")
    two.start()


def test_several_addresses_and_tcp(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine("-H", "tcp://127.0.0.1:23751", image=False)
    script = "import socket; s = socket.create_connection(('127.0.0.1', 23751), 5); print('open')"
    assert engine.nsenter([sys.executable, "-c", script]).stdout == "open\n"
    ping = engine.fetch("http://127.0.0.1:23751/_ping")
    assert ping == "OK"
    assert engine.answers()


def test_socket_activation(own_engine: Callable[..., Engine]) -> None:
    """`-H fd://`: the listening socket is the one that systemd would have passed as descriptor 3."""
    engine = own_engine(start=False)
    listener = socket.socket(socket.AF_UNIX)
    path = engine.root / "s.sock"
    listener.bind(str(path))
    listener.listen()
    command = [part if part != engine.host else "fd://" for part in engine.command()]
    activate = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3, inheritable=True);"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1'); os.execvp(sys.argv[2], sys.argv[2:])"
    )
    with (engine.root / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", activate, str(listener.fileno()), *command],
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    listener.close()
    try:
        eventually(engine.answers, timeout=20, what=engine.log()[-2000:])
    finally:
        process.terminate()
        assert process.wait(20) == 0
    assert path.exists()  # it is systemd's, not ours to remove
    path.unlink()


def test_validate_checks_and_exits(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine(start=False)
    good = subprocess.run([*engine.command(), "--validate"], capture_output=True, text=True, timeout=30, check=False)
    assert (good.returncode, good.stdout) == (0, "configuration OK\n")
    assert not (engine.root / "data").exists()


def test_a_port_that_is_taken_is_said(own_engine: Callable[..., Engine]) -> None:
    first = own_engine("-H", "tcp://127.0.0.1:23752", image=False)
    second = own_engine("-H", "tcp://127.0.0.1:23752", "--bip", "10.219.2.1/24", netns=first.netns, start=False)
    with pytest.raises(CommandFailed):
        second.start()
    assert "127.0.0.1:23752" in second.log()
    assert "Traceback" not in second.log()

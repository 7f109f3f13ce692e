"""inspect, top and port of containers with everything that one can ask for; links; what a task's container shows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness import Client

pytestmark = pytest.mark.real

NANO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z")
OPTIONS = """
    --hostname h1 --domainname d.x --user 1:1 -e A=b --label x=y -w /tmp --init --tmpfs /t:size=1m
    --mount type=tmpfs,dst=/t2 --expose 99 --memory 64m --memory-swap 128m --cpus 0.5 --cpu-shares 512 --cpuset-cpus 0
    --pids-limit 50 --ulimit nofile=100:200 --cap-add NET_ADMIN --cap-drop MKNOD --security-opt no-new-privileges
    --device /dev/null:/dev/xx --shm-size 32m --restart on-failure:3 --dns 1.1.1.1 --dns-search s.x --dns-option ndots:1
    --add-host foo:1.2.3.4 --stop-signal INT --stop-timeout 7 --log-opt max-size=10m --oom-score-adj 100 --group-add 5
    --read-only --annotation an=1 --network-alias al -p 127.0.0.1::80 -p 81/udp
""".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def make(engine: Client) -> Iterator[Callable[..., str]]:
    """`make("create" or "run", *options, image and command)`: gives the name."""
    names: list[str] = []

    def create(verb: str, *words: str, name: str = "") -> str:
        names.append(name or engine.name("seen"))
        detach = ["-d"] if verb == "run" else []
        engine.docker(verb, *detach, "--name", names[-1], *words)
        return names[-1]

    yield create
    engine.docker("rm", "-fv", *names, check=False)


@pytest.fixture(scope="module")
def network(engine: Client) -> Iterator[str]:
    name = engine.name("seen")
    engine.docker("network", "create", "--subnet", "10.213.7.0/24", name)
    yield name
    engine.docker("network", "rm", "-f", name, check=False)


@pytest.fixture(scope="module")
def rich(engine: Client, network: str, make: Callable[..., str]) -> str:
    where = ["--network", network, "--ip", "10.213.7.77", "-v", "/etc:/b:ro"]
    return make("run", *OPTIONS, *where, engine.image, "sh", "-c", "sleep 600")


def test_a_rich_container(engine: Client, rich: str, network: str) -> None:
    seen = engine.inspect(rich)
    assert (seen["Name"], seen["Path"], seen["Args"]) == (f"/{rich}", "sh", ["-c", "sleep 600"])
    assert (seen["Platform"], seen["RestartCount"], seen["MountLabel"], seen["AppArmorProfile"]) == ("linux", 0, "", "")
    assert seen["ExecIDs"] is None and re.fullmatch("[0-9a-f]{64}", seen["Id"]) and NANO_TIME.fullmatch(seen["Created"])
    state = seen["State"]
    assert (state["Status"], state["Running"], state["Paused"], state["Restarting"]) == ("running", True, False, False)
    assert (state["OOMKilled"], state["Dead"], state["ExitCode"], state["Error"]) == (False, False, 0, "")
    assert state["Pid"] > 1 and NANO_TIME.fullmatch(state["StartedAt"])
    assert state["FinishedAt"] == "0001-01-01T00:00:00Z"
    config = seen["Config"]
    names = ("Hostname", "Domainname", "User", "WorkingDir")
    assert [config[name] for name in names] == ["h1", "d.x", "1:1", "/tmp"]
    assert config["Labels"]["x"] == "y" and "A=b" in config["Env"] and config["Cmd"] == ["sh", "-c", "sleep 600"]
    assert {*config["ExposedPorts"]} == {"80/tcp", "81/udp", "99/tcp"}
    assert (config["StopSignal"], config["StopTimeout"], config["Entrypoint"]) == ("INT", 7, None)
    host = seen["HostConfig"]
    values = {
        "Memory": 64 << 20, "MemorySwap": 128 << 20, "NanoCpus": 5 * 10**8, "CpuShares": 512, "CpusetCpus": "0",
        "PidsLimit": 50, "CapAdd": ["CAP_NET_ADMIN"], "CapDrop": ["CAP_MKNOD"], "SecurityOpt": ["no-new-privileges"],
        "ShmSize": 32 << 20, "Dns": ["1.1.1.1"], "DnsSearch": ["s.x"], "DnsOptions": ["ndots:1"], "ReadonlyRootfs": True,
        "ExtraHosts": ["foo:1.2.3.4"], "OomScoreAdj": 100, "GroupAdd": ["5"], "Init": True, "NetworkMode": network,
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}, "Binds": ["/etc:/b:ro"], "Links": None,
        "Tmpfs": {"/t": "size=1m"}, "Annotations": {"an": "1"}, "IpcMode": "private", "Privileged": False,
        "AutoRemove": False, "VolumesFrom": None, "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m"}},
        "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/xx", "CgroupPermissions": "rwm"}],
        "Ulimits": [{"Name": "nofile", "Hard": 200, "Soft": 100}],
    }  # fmt: skip
    assert {name: host[name] for name in values} == values
    mounts = {mount["Destination"]: mount for mount in seen["Mounts"]}
    assert mounts["/b"] == {
        "Type": "bind", "Source": "/etc", "Destination": "/b", "Mode": "ro", "RW": False, "Propagation": "rprivate",
    }  # fmt: skip
    assert (mounts["/t2"]["Type"], mounts["/t2"]["Source"], mounts["/t2"]["RW"]) == ("tmpfs", "", True)
    settings = seen["NetworkSettings"]
    assert {*settings["Networks"]} == {network} and settings["IPAddress"] == ""
    assert {*settings["Ports"]} == {"80/tcp", "81/udp", "99/tcp"} and settings["Ports"]["99/tcp"] is None
    endpoint = settings["Networks"][network]
    assert (endpoint["IPAddress"], endpoint["IPPrefixLen"]) == ("10.213.7.77", 24)
    assert endpoint["IPAMConfig"] == {"IPv4Address": "10.213.7.77"} and endpoint["Aliases"] == ["al"]
    assert endpoint["DNSNames"] == [rich, "al", seen["Id"][:12], "h1"]


def test_what_was_not_asked_for_has_the_empty_values_of_the_reference(engine: Client, make: Callable[..., str]) -> None:
    seen = engine.inspect(make("create", engine.image))
    host, config = seen["HostConfig"], seen["Config"]
    for name in ("Binds", "VolumesFrom", "CapAdd", "CapDrop", "GroupAdd", "Links", "SecurityOpt", "DeviceRequests"):
        assert host[name] is None, name
    for name in ("PortBindings", "LogConfig"):
        assert isinstance(host[name], dict), name
    for name in ("Tmpfs", "Mounts", "Sysctls", "StorageOpt", "Annotations", "Init"):
        assert name not in host, name
    for name in ("Healthcheck", "Shell", "StopSignal", "StopTimeout", "ExposedPorts"):
        assert name not in config, name
    assert config["Volumes"] is None and config["Entrypoint"] is None and config["OnBuild"] is None
    assert config["Hostname"] == seen["Id"][:12] and config["Labels"] == {}
    assert seen["State"]["StartedAt"] == seen["State"]["FinishedAt"] == "0001-01-01T00:00:00Z"
    assert seen["NetworkSettings"]["Ports"] == {} and {*seen["NetworkSettings"]["Networks"]} == {"bridge"}


def test_inspect_follows_the_version(engine: Client, rich: str, network: str) -> None:
    def asked(version: str) -> Any:
        return engine.http("GET", f"/{version}/containers/{rich}/json").json()

    assert asked("v1.48")["NetworkSettings"]["Networks"][network]["GwPriority"] == 0
    assert "GwPriority" not in asked("v1.47")["NetworkSettings"]["Networks"][network]
    assert "KernelMemory" not in asked("v1.42")["HostConfig"]


def test_links_of_the_default_bridge(engine: Client, make: Callable[..., str]) -> None:
    target = make("run", engine.image, "sleep", "600")
    linker = make("create", "--link", f"{target}:db", "--link", target, engine.image)
    expected = [f"/{target}:/{linker}/db", f"/{target}:/{linker}/{target}"]
    assert sorted(engine.inspect(linker)["HostConfig"]["Links"]) == sorted(expected)
    api = engine.api().api
    (item,) = api.containers(filters={"name": f"^/{target}$"})
    assert item["Names"] == sorted([f"/{target}", f"/{linker}/db", f"/{linker}/{target}"])
    shown = engine.docker("ps", "-f", f"id={item['Id']}", "--format", "{{.Names}}").stdout.strip()
    assert shown == target
    engine.docker("rm", "-f", linker)
    (item,) = api.containers(filters={"name": f"^/{target}$"})
    assert item["Names"] == [f"/{target}"]


@pytest.mark.parametrize(
    ("options", "titles"),
    [
        ([], ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]),
        (["-ef"], ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]),
        (["aux"], ["USER", "PID", "%CPU", "%MEM", "VSZ", "RSS", "TTY", "STAT", "START", "TIME", "COMMAND"]),
        (["-eo", "pid,comm"], ["PID", "COMMAND"]),
        (["-o", "pid,args"], ["PID", "COMMAND"]),
        (["-eo", "user,pid,args"], ["USER", "PID", "COMMAND"]),
        (["-L"], ["PID", "LWP", "TTY", "TIME", "CMD"]),
    ],
)
def test_top(engine: Client, rich: str, options: list[str], titles: list[str]) -> None:
    answer = engine.api().api.top(rich, ps_args=" ".join(options) or None)
    assert answer["Titles"] == titles
    pids = [int(row[titles.index("PID")]) for row in answer["Processes"]]
    assert engine.inspect(rich)["State"]["Pid"] in pids and len(pids) == 2
    assert all(len(row) == len(titles) for row in answer["Processes"])
    shown = engine.docker("top", rich, *options).stdout.splitlines()
    assert shown[0].split() == titles and len(shown) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-eo", "comm"], "Couldn't find PID field in ps output"),
        (["-eo", "pid=XX,comm"], "Couldn't find PID field in ps output"),
        (["-eo", "pid,ppid=PID"], 'specifying "pid,ppid=PID" is not allowed'),
        (["-eo", "ppid=PID,pid"], 'specifying "ppid=PID,pid" is not allowed'),
        (["-eo", "nosuch"], "nosuch"),
    ],
)
def test_top_refuses(engine: Client, rich: str, options: list[str], message: str) -> None:
    done = engine.docker("top", rich, *options, check=False)
    assert done.returncode == 1 and message in done.stderr


def test_top_of_what_does_not_run(engine: Client, make: Callable[..., str]) -> None:
    name = make("create", engine.image)
    full = engine.inspect(name)["Id"]
    done = engine.docker("top", name, check=False)
    assert (done.returncode, done.stderr) == (1, f"Error response from daemon: container {full} is not running\n")
    assert "No such container: no-such" in engine.docker("top", "no-such", check=False).stderr


def test_port(engine: Client, rich: str, make: Callable[..., str]) -> None:
    bound = engine.inspect(rich)["NetworkSettings"]["Ports"]
    http = f"127.0.0.1:{bound['80/tcp'][0]['HostPort']}"
    assert engine.docker("port", rich, "80").stdout.splitlines() == [http]
    lines = engine.docker("port", rich).stdout.splitlines()
    assert f"80/tcp -> {http}" in lines and any(line.startswith("81/udp -> 0.0.0.0:") for line in lines)
    assert not any(line.startswith("99/") for line in lines)
    done = engine.docker("port", rich, "99", check=False)
    assert done.returncode == 1 and "o public port '99' published" in done.stderr
    assert engine.docker("port", make("create", "-p", "80", engine.image)).stdout == ""


def test_a_container_of_a_task(engine: Client, make: Callable[..., str]) -> None:
    labels = {
        "com.docker.swarm.node.id": "n1", "com.docker.swarm.service.id": "s1", "com.docker.swarm.service.name": "web",
        "com.docker.swarm.task": "", "com.docker.swarm.task.id": "t1", "com.docker.swarm.task.name": "web.1.t1",
    }  # fmt: skip
    options = [part for name, value in labels.items() for part in ("--label", f"{name}={value}")]
    name = make("create", *options, engine.image)
    assert engine.inspect(name)["Config"]["Labels"] == labels

    def listed(wanted: str) -> list[str]:
        filters = {"is-task": [wanted], "name": [f"^/{name}$"]}
        return [item["Id"] for item in engine.api().api.containers(all=True, filters=filters)]

    assert listed("true") == [engine.inspect(name)["Id"]] and listed("false") == []
    by_label = engine.docker("ps", "-aq", "-f", "label=com.docker.swarm.service.name=web", "-f", f"name={name}").stdout
    assert by_label.strip() and json.loads(engine.docker("inspect", name).stdout)[0]["Name"] == f"/{name}"


def test_no_run_ends_before_it_begins(engine: Client, make: Callable[..., str]) -> None:
    for _ in range(6):
        name = make("run", "--network", "none", engine.image, "true")
        engine.docker("wait", name)
        state = engine.inspect(name)["State"]
        assert state["StartedAt"] <= state["FinishedAt"]

"""What `POST /containers/create` says, seen in the container, in its control groups, and in inspect."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Client

pytestmark = pytest.mark.real

MIB = 1 << 20
Create = Callable[..., str]
Output = Callable[..., str]
Refusal = Callable[[dict[str, Any]], str]


def limit(pid: int, controller: str, v1: str, v2: str) -> str:
    """What the kernel holds of a limit of a process's control group."""
    unified = None
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        number, names, path = line.split(":", 2)
        if controller in names.split(","):
            return Path(f"/sys/fs/cgroup/{controller}{path}/{v1}").read_text().strip()
        if number == "0":
            unified = path
    assert unified is not None and v2
    return Path(f"/sys/fs/cgroup{unified}/{v2}").read_text().strip()


def test_limits_are_the_kernels(engine: Client, create: Create) -> None:
    asked = {
        "Memory": 64 * MIB, "MemorySwap": 128 * MIB, "MemoryReservation": 32 * MIB, "CpuShares": 512, "CpuPeriod": 50_000,
        "CpuQuota": 25_000, "CpusetCpus": "0", "CpusetMems": "0", "PidsLimit": 50, "OomScoreAdj": 300,
        "BlkioDeviceReadBps": [{"Path": _disk(), "Rate": MIB}], "BlkioDeviceWriteIOps": [{"Path": _disk(), "Rate": 100}],
        "Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}, {"Name": "core", "Soft": 0, "Hard": 0}],
        "CgroupParent": "/engine-test-parent", "ShmSize": 2 * MIB,
    }  # fmt: skip
    made = create({"HostConfig": asked})
    engine.docker("start", made)
    shown = engine.inspect(made)
    pid = shown["State"]["Pid"]
    assert {key: shown["HostConfig"][key] for key in asked} == asked
    assert limit(pid, "memory", "memory.limit_in_bytes", "memory.max") == str(64 * MIB)
    assert limit(pid, "memory", "memory.soft_limit_in_bytes", "memory.low") == str(32 * MIB)
    assert limit(pid, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max") in (str(128 * MIB), str(64 * MIB))
    assert limit(pid, "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0] == "25000"
    assert limit(pid, "cpuset", "cpuset.cpus", "cpuset.cpus") == "0"
    assert limit(pid, "pids", "pids.max", "pids.max") == "50"
    assert str(MIB) in limit(pid, "blkio", "blkio.throttle.read_bps_device", "io.max")
    assert "100" in limit(pid, "blkio", "blkio.throttle.write_iops_device", "io.max")
    for option in ("--pids-limit=-1", "--cpu-quota=-1"):
        engine.docker("update", option, made)
    assert limit(pid, "pids", "pids.max", "pids.max") == "max"
    assert limit(pid, "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0] in ("-1", "max")
    assert "/engine-test-parent/" in Path(f"/proc/{pid}/cgroup").read_text()
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "300"
    told = engine.docker(
        "exec", made, "sh", "-c", "ulimit -n; ulimit -Hn; ulimit -c; df -k /dev/shm | tail -1"
    ).stdout.split()
    assert told[:3] == ["100", "200", "0"] and "2048" in told


def _disk() -> str:
    """A block device of this machine."""
    return next(
        f"/dev/{path.name}"
        for path in sorted(Path("/sys/block").iterdir())
        if Path("/dev", path.name).is_block_device()
    )


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ({"Memory": 1}, "Minimum memory limit allowed is 6MB"),
        ({"MemorySwap": 64 * MIB}, "You should always set the Memory limit when using Memoryswap limit, see usage"),
        ({"Memory": 64 * MIB, "MemorySwap": 32 * MIB}, "Minimum memoryswap limit should be larger than memory limit"),
        ({"NanoCpus": 10**9, "CpuQuota": 5000}, "Conflicting options: Nano CPUs and CPU Quota cannot both be set"),
        ({"CpuPeriod": 1}, "CPU cfs period can not be less than 1ms"),
        ({"CpuRealtimePeriod": 10, "CpuRealtimeRuntime": 20}, "cannot be higher than cpu real-time period"),
        ({"CpusetCpus": "x"}, "Invalid value x for cpuset cpus: invalid format: x"),
        ({"ShmSize": -1}, "SHM size can not be less than 0"),
        ({"IOMaximumIOps": 5}, "Invalid QoS settings: linux does not support configuration of maximum IOs per second"),
        ({"CapAdd": ["NOSUCH"]}, 'invalid CapAdd: unknown capability: "CAP_NOSUCH"'),
        ({"SecurityOpt": ["bogus=x"]}, 'invalid --security-opt 2: "bogus=x"'),
        ({"Sysctls": {"vm.swappiness": "1"}}, "sysctl 'vm.swappiness' is not allowed"),
        ({"Sysctls": {"net.ipv4.ip_forward": "1"}, "NetworkMode": "host"}, "not allowed in host network namespace"),
        ({"PidMode": "container:no-such"}, "No such container: no-such"),
        ({"IpcMode": "bogus"}, "invalid IPC mode: bogus"),
        ({"Links": ["no-such:x"]}, "could not get container for no-such: No such container: no-such"),
        ({"DeviceRequests": [{"Driver": "", "Capabilities": [["gpu"]]}]}, 'could not select device driver "" with'),
        ({"Devices": [{"PathOnHost": "/dev/null", "CgroupPermissions": "q"}]}, "invalid device mode: q"),
        ({"Isolation": "hyperv"}, "Invalid isolation: \"hyperv\" - linux only supports 'default'"),
        ({"Runtime": "no-such"}, "unknown or invalid runtime name: no-such"),
        ({"ExtraHosts": ["a:x"]}, 'invalid IP address in add-host: "x"'),
        ({"Annotations": {"": "x"}}, "the empty string is not permitted as an annotation key"),
        ({"Memory": "64m"}, "invalid value for HostConfig.Memory"),
        ({"PidsLimit": "1"}, "invalid value for HostConfig.PidsLimit"),
    ],
)
def test_what_cannot_be_is_refused(refusal: Refusal, host: dict[str, Any], words: str) -> None:
    assert words in refusal({"HostConfig": host})


def test_command_user_and_environment(engine: Client, create: Create, output: Output, refusal: Refusal) -> None:
    assert output("", {"Entrypoint": ["echo", "a"], "Cmd": ["b"]}) == "a b\n"
    assert output("", {"Entrypoint": ["echo", "a"], "Cmd": None}) == "a\n"
    env = output("", {"Cmd": ["env"], "Env": ["A=1", "A=2", "B", "C=d=e"], "Hostname": "h1"}).split()
    assert env == [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOSTNAME=h1",
        "A=2",
        "C=d=e",
        "HOME=/root",
    ]
    who = "id -u; id -g; id -G"
    uid, gid, *groups = output(who, {"User": "1000:1001", "HostConfig": {"GroupAdd": ["5", "root", "1234"]}}).split()
    assert (uid, gid, sorted(groups)) == ("1000", "1001", ["0", "1001", "1234", "5"])
    for user, words in (
        ("no-such", "unable to find user no-such"),
        ("-1", "uids and gids must be in range 0-2147483647"),
    ):
        assert words in engine.docker("start", create({"User": user}), check=False).stderr
    told = output("pwd; stat -c %u:%a /made/here; hostname; cat /proc/sys/kernel/domainname", {
        "WorkingDir": "/made/x/../here/", "User": "1000", "Hostname": "h1", "Domainname": "example.org"})  # fmt: skip
    assert told.split() == ["/made/here", "0:755", "h1", "example.org"]
    made = create({"WorkingDir": "/made/before/start"})
    assert engine.docker("cp", f"{made}:/made/before/start", "-", check=False).returncode == 0
    assert engine.inspect(made)["Config"]["WorkingDir"] == "/made/before/start"
    assert refusal({"WorkingDir": "/bin/busybox"}) == "Cannot mkdir: /bin/busybox is not a directory"
    assert (
        refusal({"Hostname": "x", "HostConfig": {"UTSMode": "host"}})
        == "conflicting options: hostname and the UTS mode"
    )
    assert "invalid value for Tty" in refusal({"Tty": "yes"})
    assert output("hostname", {"HostConfig": {"UTSMode": "host"}}).strip() == os.uname().nodename


def test_capabilities_and_security(engine: Client, create: Create, output: Output) -> None:
    status = "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status"

    def told(**host: Any) -> dict[str, str]:
        return dict(line.split(":\t") for line in output(status, {"HostConfig": host}).splitlines())

    plain = told()
    assert (plain["CapEff"], plain["NoNewPrivs"], plain["Seccomp"]) == ("00000000a80425fb", "0", "2")
    assert told(CapDrop=["ALL"], CapAdd=["CAP_CHOWN", "net_admin"])["CapEff"] == f"{1 | 1 << 12:016x}"
    assert int(told(CapAdd=["ALL"], CapDrop=["MKNOD"])["CapEff"], 16) & 1 << 27 == 0
    free = told(SecurityOpt=["seccomp=unconfined", "no-new-privileges:true"])
    assert (free["NoNewPrivs"], free["Seccomp"]) == ("1", "0")
    no_mkdir = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
    }
    assert "not permitted" in output("mkdir /x", {"HostConfig": {"SecurityOpt": [f"seccomp={json.dumps(no_mkdir)}"]}})
    everything = told(Privileged=True)
    assert (everything["Seccomp"], int(everything["CapEff"], 16) & 1 << 21) == ("0", 1 << 21)
    assert engine.inspect(create({"HostConfig": {"Privileged": True}}))["HostConfig"]["SecurityOpt"] == [
        "label=disable"
    ]
    paths = {"MaskedPaths": ["/etc/passwd"], "ReadonlyPaths": ["/tmp"]}
    assert "Read-only" in output(
        "cat /etc/passwd; touch /tmp/x; echo > /proc/sys/net/ipv4/ip_forward", {"HostConfig": paths}
    )


def test_devices(engine: Client, output: Output) -> None:
    host = {
        "Devices": [
            {"PathOnHost": "/dev/zero", "PathInContainer": "/dev/nought", "CgroupPermissions": "r"},
            {"PathOnHost": "/dev/net", "PathInContainer": "/dev/tunnels", "CgroupPermissions": "rwm"},
        ],
        "DeviceCgroupRules": ["c 1:11 r"],
    }
    told = output("head -c 2 /dev/nought | wc -c; ls /dev/tunnels; echo x > /dev/nought", {"HostConfig": host})
    # zero is among the devices that every container may use, so that the wish for less has no effect, as with dockerd.
    assert told.split()[:2] == ["2", "tun"]
    problem = engine.http("POST", "/v1.51/containers/create", {
        "Image": engine.image, "Cmd": ["true"], "HostConfig": {"Devices": [{"PathOnHost": "/etc/hostname"}]}})  # fmt: skip
    message = engine.docker("start", problem.json()["Id"], check=False).stderr
    engine.docker("rm", problem.json()["Id"])
    assert 'error gathering device information while adding custom device "/etc/hostname": not a device node' in message


def test_mounts(engine: Client, create: Create, output: Output, host_dir: Path, mounted: Path) -> None:
    below = mounted / "below"

    def seen(script: str, **mount: Any) -> str:
        mount = {"Type": "bind", "Source": str(mounted), "Target": "/m"} | mount
        return output(script, {"HostConfig": {"Mounts": [mount]}})

    write = "touch /m/x 2>&1; touch /m/below/x 2>&1; rm -f /m/x /m/below/x"
    assert seen(write) == ""
    assert seen(write, ReadOnly=True).count("Read-only") == 2
    assert seen(write, ReadOnly=True, BindOptions={"ReadOnlyForceRecursive": True}).count("Read-only") == 2
    assert seen(write, ReadOnly=True, BindOptions={"ReadOnlyNonRecursive": True}).count("Read-only") == 1
    assert "here" not in seen("ls /m/below", BindOptions={"NonRecursive": True})
    assert "here" in seen("ls /m/below")
    assert seen("ls -d /m", Source=str(host_dir / "new/er"), BindOptions={"CreateMountpoint": True}) == "/m\n"
    assert (host_dir / "new/er").is_dir() and below.is_dir()
    tmpfs = {
        "Type": "tmpfs",
        "Source": "",
        "TmpfsOptions": {"SizeBytes": MIB, "Mode": 0o700, "Options": [["uid", "5"]]},
    }
    assert seen("stat -c %a:%u /m; grep ' /m ' /proc/mounts", **tmpfs).startswith(
        "700:5\ntmpfs /m tmpfs rw,nosuid,nodev,noexec"
    )

    volume = {"Type": "volume", "Source": engine.name("vol"), "Target": "/m"}
    options = {
        "Labels": {"a": "b"},
        "DriverConfig": {"Name": "local", "Options": {"type": "tmpfs", "device": "tmpfs", "o": "size=8m"}},
    }
    made = create({"Cmd": ["/bin/sh", "-c", "grep -c ' /m tmpfs' /proc/mounts"],
                   "HostConfig": {"Mounts": [volume | {"VolumeOptions": options}]}})  # fmt: skip
    assert engine.docker("start", "-a", made).stdout == "1\n"
    shown = engine.inspect(made)
    assert shown["HostConfig"]["Mounts"] == [volume | {"VolumeOptions": options}]
    assert json.loads(engine.docker("volume", "inspect", volume["Source"]).stdout)[0]["Labels"] == {"a": "b"}

    plain = {"Type": "volume", "Source": engine.name("vol")}
    assert "busybox" in seen("ls /bin", **plain | {"Target": "/bin"})
    assert "usr" in seen("mkdir -p /m/usr/deep && touch /m/usr/deep/f; ls /m", **plain)
    assert seen("ls /m", **plain, VolumeOptions={"Subpath": "usr/deep"}) == "f\n"
    assert (
        seen("ls /tmp", **plain | {"Source": engine.name("vol"), "Target": "/tmp"}, VolumeOptions={"NoCopy": True})
        == ""
    )
    engine.docker("rm", "-f", made)
    donor = create({"HostConfig": {"Binds": [f"{mounted}:/m"], "Tmpfs": {"/t": "size=1m,mode=700"}}})
    assert "Read-only" in output("touch /m/x", {"HostConfig": {"VolumesFrom": [f"{donor}:ro"]}})


@pytest.fixture
def mounted(host_dir: Path) -> Any:
    """A folder with a file system mounted below it, in `below`."""
    from plugin_sdk import sysmount

    folder = host_dir / "outer"
    (folder / "below").mkdir(parents=True)
    sysmount.mount("tmpfs", str(folder / "below"), "tmpfs")
    (folder / "below/here").touch()
    yield folder
    sysmount.unmount(str(folder / "below"))


def test_propagation(engine: Client, create: Create, host_dir: Path) -> None:
    from plugin_sdk import sysmount

    shared = host_dir / "shared"
    (shared / "late").mkdir(parents=True)
    sysmount.mount(str(shared), str(shared), "", sysmount.MS_BIND)
    sysmount.mount("", str(shared), "", sysmount.MS_SHARED)
    try:
        made = {
            mode: create({"HostConfig": {"Binds": [f"{shared}:/m:{mode}"]}})
            for mode in ("rprivate", "rslave", "rshared")
        }
        for one in made.values():
            engine.docker("start", one)
        # The daemon may have a mount namespace of its own; it is the container's that counts, and it follows the daemon's.
        sysmount.mount("tmpfs", str(shared / "late"), "tmpfs")
        (shared / "late/here").touch()
        found = {mode: engine.docker("exec", one, "ls", "/m/late").stdout.strip() for mode, one in made.items()}
        assert found == {"rprivate": "", "rslave": "here", "rshared": "here"}
        assert engine.inspect(made["rslave"])["Mounts"][0]["Propagation"] == "rslave"
        engine.docker("rm", "-f", *made.values())
    finally:
        sysmount.unmount(str(shared / "late"))
        sysmount.unmount(str(shared))


def test_namespaces_and_names(engine: Client, create: Create, output: Output) -> None:
    name = engine.name("donor")
    body = {
        "Env": ["WORD=yes"],
        "HostConfig": {"IpcMode": "shareable", "Init": True, "Annotations": {"org.example.a": "b"}},
    }
    answer = engine.http(
        "POST", f"/v1.51/containers/create?name={name}", {"Image": engine.image, "Cmd": ["sleep", "60"]} | body
    )
    donor = answer.json()["Id"]
    try:
        engine.docker("start", donor)
        ask = "readlink /proc/self/ns/ipc; readlink /proc/self/ns/pid; ps"
        joined = output(ask, {"HostConfig": {"IpcMode": f"container:{name}", "PidMode": f"container:{name}"}})
        theirs = engine.docker(
            "exec", donor, "sh", "-c", "readlink /proc/self/ns/ipc; readlink /proc/self/ns/pid"
        ).stdout.split()
        assert joined.split()[:2] == theirs and "docker-init" in joined
        ours = output(ask, {"HostConfig": {"IpcMode": "host", "PidMode": "host"}}).split()
        assert ours[:2] == [os.readlink(f"/proc/self/ns/{kind}") for kind in ("ipc", "pid")]
        assert "shm" not in output("ls /dev", {"HostConfig": {"IpcMode": "none"}}).split()
        linked = output("echo $DB_ENV_WORD; grep -w db /etc/hosts", {"HostConfig": {"Links": [f"{name}:db"]}})
        assert linked.startswith("yes\n") and " ".join(linked.split()).endswith(f"db {donor[:12]} {name}")
        assert engine.inspect(donor)["HostConfig"]["Annotations"] == {"org.example.a": "b"}
        told = output(
            "cat /etc/hosts /etc/resolv.conf; touch /x /etc/hosts; touch /t/x && echo made; cat /proc/sys/kernel/msgmax",
            {"HostConfig": {
                "ExtraHosts": ["one:1.2.3.4", "gate:host-gateway"], "Dns": ["9.9.9.9"], "DnsSearch": ["example.org"],
                "DnsOptions": ["ndots:3"], "ReadonlyRootfs": True, "Tmpfs": {"/t": "size=1m"},
                "Sysctls": {"kernel.msgmax": "10000"}, "CgroupnsMode": "private"}},
        )  # fmt: skip
        for line in ("1.2.3.4\tone", "nameserver 9.9.9.9", "search example.org", "options ndots:3", "made", "10000"):
            assert line in told
        assert "\tgate" in told and told.count("Read-only file system") == 2
    finally:
        engine.docker("rm", "-f", donor)


def test_what_older_clients_meant(engine: Client, create: Create) -> None:
    old = engine.inspect(create({"HostConfig": {"Annotations": {"a": "b"}, "ConsoleSize": [5, 6]}}, "v1.39"))[
        "HostConfig"
    ]
    assert (old["IpcMode"], old["CgroupnsMode"], old["ConsoleSize"]) == ("shareable", "host", [0, 0])
    assert "Annotations" not in old
    mac = {"MacAddress": "02:42:ac:11:00:99"}
    made = create(mac, "v1.43")
    engine.docker("start", made)
    assert engine.docker("exec", made, "cat", "/sys/class/net/eth0/address").stdout.strip() == mac["MacAddress"]


def test_what_the_kernel_lacks_is_a_warning(engine: Client) -> None:
    info = engine.http("GET", "/v1.51/info").json()
    answer = engine.http("POST", "/v1.51/containers/create", {
        "Image": engine.image, "Cmd": ["true"], "Unknown": 1,
        "HostConfig": {"OomKillDisable": True, "MemorySwappiness": -1, "PidsLimit": -1, "CpuQuota": -1, "Unknown": 2}})  # fmt: skip
    made = answer.json()["Id"]
    try:
        wanted = (
            "OOM killer is disabled for the container" if info["OomKillDisable"] else "does not support OomKillDisable"
        )
        assert any(wanted in warning for warning in answer.json()["Warnings"])
        engine.docker("start", made)
        shown = engine.inspect(made)["HostConfig"]
        assert (shown["MemorySwappiness"], shown["PidsLimit"]) == (None, None)
    finally:
        engine.docker("rm", "-f", made)


def test_a_limit_that_the_kernel_does_not_take_leaves_no_group(engine: Client) -> None:
    # Most hosts give groups no real-time share to begin with, and crun fails on its own group then, or the limit is discarded.
    body = {"Image": engine.image, "Cmd": ["true"], "HostConfig": {"CpuRealtimeRuntime": 950_000}}
    made = engine.http("POST", "/v1.51/containers/create", body).json()["Id"]
    engine.docker("start", made, check=False)
    engine.docker("rm", "-f", made)
    assert [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/docker/{made}")] == []

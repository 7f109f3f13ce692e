"""Capabilities, ulimits, security options, devices, limits: what clients may ask for."""

from __future__ import annotations

from typing import Any

import pytest

from plugin_sdk import InvalidParameter
from plugin_sdk.containers import DeviceMapping, HostConfig, Resources, Ulimit
from plugins.runtime_oci import capabilities, checks, devices
from plugins.runtime_oci.host import HostFacts, parse_set
from plugins.runtime_oci.lifting import take_lifted
from plugins.runtime_oci.limits import oci_resources
from plugins.runtime_oci.security import parse_security_options
from plugins.runtime_oci.settings import RuntimeSettings
from plugins.runtime_oci.ulimits import INFINITY, rlimits

FACTS = HostFacts(
    memory_limit=True,
    swap_limit=True,
    swappiness=True,
    kernel_memory_tcp=True,
    oom_kill_disable=True,
    cfs=True,
    shares=True,
    realtime=False,
    cpuset=True,
    pids=True,
    block_weight=False,
    block_limits=True,
    cgroup_namespaces=True,
    cpus=2,
    cpus_usable=frozenset({0, 1}),
    memory_nodes=frozenset({0}),
)


def test_dockers_fourteen_capabilities() -> None:
    assert len(capabilities.DEFAULT) == 14
    assert set(capabilities.DEFAULT) <= {f"CAP_{name}" for name in capabilities.NAMES}


@pytest.mark.parametrize(
    ("add", "drop", "has", "lacks"),
    [
        (["net_admin"], [], {"CAP_NET_ADMIN", "CAP_CHOWN"}, set()),
        (["CAP_NET_ADMIN"], ["ALL"], {"CAP_NET_ADMIN"}, {"CAP_CHOWN"}),
        ([], ["chown"], {"CAP_KILL"}, {"CAP_CHOWN"}),
        (["ALL"], ["SYS_ADMIN"], {"CAP_NET_ADMIN"}, {"CAP_SYS_ADMIN"}),
        ([], ["ALL"], set(), {"CAP_CHOWN", "CAP_KILL"}),
    ],
)
def test_capability_sets(add: list[str], drop: list[str], has: set[str], lacks: set[str]) -> None:
    found = set(capabilities.effective(add, drop, privileged=False))
    assert has <= found
    assert not lacks & found


def test_unknown_capability() -> None:
    with pytest.raises(InvalidParameter, match='invalid CapAdd: unknown capability: "CAP_FLY"'):
        checks.check_options(HostConfig(CapAdd=["fly"]))


def test_ulimits_of_the_client_win_over_the_daemons() -> None:
    settings = RuntimeSettings.model_validate(
        {"default_ulimits": {"nofile": "1024:2048", "core": {"Soft": 0, "Hard": -1}}}
    )
    found = {
        limit["type"]: limit for limit in rlimits([Ulimit(Name="nofile", Soft=5, Hard=6)], settings.default_ulimits)
    }
    assert found["RLIMIT_NOFILE"] == {"type": "RLIMIT_NOFILE", "soft": 5, "hard": 6}
    assert found["RLIMIT_CORE"] == {"type": "RLIMIT_CORE", "soft": 0, "hard": INFINITY}


@pytest.mark.parametrize(
    "settings",
    [
        {"exec_opts": ["native.cgroupdriver=magic"]},
        {"exec_opts": ["other=1"]},
        {"default_ulimits": {"nofile": "many"}},
        {"default_shm_size": "a lot"},
        {"default_ipc_mode": "host"},
        {"runtimes": {"x": {"nopath": 1}}},
    ],
)
def test_bad_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        RuntimeSettings.model_validate(settings)


def test_settings_as_flags_and_file_give_them() -> None:
    settings = RuntimeSettings.model_validate(
        {
            "runtimes": {"a": "/bin/a", "b": {"path": "/bin/b", "runtimeArgs": ["--debug"]}},
            "default_shm_size": "128m",
            "exec_opts": ["native.cgroupdriver=systemd"],
        }
    )
    assert settings.runtimes["a"].path == "/bin/a"
    assert settings.runtimes["b"].runtimeArgs == ["--debug"]
    assert settings.default_shm_size == 128 << 20
    assert settings.cgroup_driver == "systemd"


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ({"Memory": 4 << 20}, "Minimum memory limit allowed is 6MB"),
        ({"Memory": 32 << 20, "MemorySwap": 16 << 20}, "Minimum memoryswap limit should be larger than memory limit"),
        ({"MemorySwap": 16 << 20}, "You should always set the Memory limit when using Memoryswap limit"),
        ({"MemoryReservation": 1}, "Minimum memory reservation allowed is 6MB"),
        (
            {"Memory": 8 << 20, "MemoryReservation": 9 << 20},
            "Minimum memory limit can not be less than memory reservation",
        ),
        ({"MemorySwappiness": 101}, "Invalid value: 101, valid memory swappiness range is 0-100"),
        ({"NanoCpus": 3 * 10**9}, "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"),
        ({"NanoCpus": -1}, "Range of CPUs is from 0.01"),
        ({"NanoCpus": 1, "CpuPeriod": 5000}, "Conflicting options: Nano CPUs and CPU Period cannot both be set"),
        ({"NanoCpus": 1, "CpuQuota": 5000}, "Conflicting options: Nano CPUs and CPU Quota cannot both be set"),
        ({"CpuPeriod": 10}, "CPU cfs period can not be less than 1ms"),
        ({"CpuQuota": 10}, "CPU cfs quota can not be less than 1ms"),
        ({"CpusetCpus": "0-9"}, "Requested CPUs are not available - requested 0-9, available: 0-1"),
        ({"CpusetCpus": "x"}, "Invalid value x for cpuset cpus"),
        ({"CpusetCpus": "0-99999999999"}, "Invalid value 0-99999999999 for cpuset cpus"),
        ({"CpusetMems": "3"}, "Requested memory nodes are not available - requested 3, available: 0"),
        ({"BlkioWeight": 5}, "Range of blkio weight is from 10 to 1000"),
    ],
)
def test_limits_that_cannot_be(host: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        checks.check_limits(HostConfig(**host), FACTS)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ({"IpcMode": "magic"}, "invalid IPC mode: magic"),
        ({"IpcMode": "container:"}, "invalid IPC mode: container:"),
        ({"PidMode": "none"}, "invalid PID mode: none"),
        ({"UTSMode": "container:x"}, "invalid UTS mode: container:x"),
        ({"UsernsMode": "private"}, "invalid userns mode: private"),
        ({"CgroupnsMode": "x"}, "invalid cgroup namespace mode: x"),
        ({"Isolation": "hyperv"}, 'Invalid isolation: "hyperv" - linux only supports'),
        ({"SecurityOpt": ["nothing"]}, 'invalid --security-opt 1: "nothing"'),
        ({"SecurityOpt": ["a=b"]}, 'invalid --security-opt 2: "a=b"'),
        ({"SecurityOpt": ["seccomp={"]}, "decoding seccomp profile failed"),
        ({"SecurityOpt": ["seccomp=[]"]}, "decoding seccomp profile failed"),
        ({"SecurityOpt": ["no-new-privileges=maybe"]}, "invalid --security-opt"),
        ({"OomScoreAdj": 1001}, "Invalid value 1001, range for oom score adj is [-1000, 1000]"),
        ({"Sysctls": {"vm.swappiness": "1"}}, "sysctl 'vm.swappiness' is not allowed"),
        ({"Sysctls": {"net/../kernel/panic": "1"}}, "is not allowed"),
        ({"Sysctls": {"net.ipv4.ip_forward": "1"}, "NetworkMode": "host"}, "not allowed in host network namespace"),
        ({"Ulimits": [Ulimit(Name="fun", Soft=1, Hard=1)]}, "invalid ulimit type: fun"),
        ({"Ulimits": [Ulimit(Name="core", Soft=2, Hard=1)]}, "ulimit soft limit must be less than or equal"),
        ({"Ulimits": [Ulimit(Name="core", Soft=-1, Hard=1)]}, "ulimit soft limit must be less than or equal"),
        ({"DeviceCgroupRules": ["c 1:2"]}, "invalid device cgroup rule format: 'c 1:2'"),
        ({"Devices": [DeviceMapping(PathOnHost="/dev/null", CgroupPermissions="x")]}, "invalid device mode: x"),
        ({"MaskedPaths": ["proc"]}, "want an absolute path"),
        (
            {"DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}]},
            'could not select device driver "" with capabilities: [[gpu]]',
        ),
    ],
)
def test_options_that_cannot_be(host: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        checks.check_options(HostConfig(**host))
    assert message in str(caught.value)


def test_options_that_can_be() -> None:
    checks.check_options(
        HostConfig(
            IpcMode="container:x",
            PidMode="host",
            Sysctls={"net.core.somaxconn": "1", "kernel.msgmax": "2", "fs.mqueue.msg_max": "3"},
            SecurityOpt=["no-new-privileges", "label=disable", "apparmor:unconfined", "seccomp=unconfined"],
            DeviceCgroupRules=["c 13:* rwm", "a *:* r"],
        )
    )


def test_security_options() -> None:
    found = parse_security_options(["no-new-privileges:false", "apparmor=x", "seccomp=builtin"])
    assert (found.no_new_privileges, found.apparmor, found.seccomp) == (False, "x", "")


def test_swap_defaults_to_twice_the_memory() -> None:
    warnings: list[str] = []
    changed = checks.fit_limits(HostConfig(Memory=64 << 20), FACTS, v2=False, warn=warnings.append)
    assert changed["MemorySwap"] == 128 << 20
    assert changed["OomKillDisable"] is False
    assert warnings == []


def test_what_the_kernel_lacks_is_discarded_with_a_warning() -> None:
    warnings: list[str] = []
    host = HostConfig(BlkioWeight=500, CpuRealtimePeriod=1000, KernelMemory=1 << 30)
    changed = checks.fit_limits(host, FACTS, v2=False, warn=warnings.append)
    assert (changed["BlkioWeight"], changed["CpuRealtimePeriod"]) == (0, 0)
    assert len(warnings) == 3
    assert "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded." in warnings


def test_limits_in_the_oci_spec() -> None:
    found = oci_resources(
        Resources(Memory=64 << 20, MemorySwap=-1, NanoCpus=1_500_000_000, CpusetCpus="0", PidsLimit=-1)
    )
    assert found["memory"] == {"limit": 64 << 20, "swap": -1}
    assert found["cpu"] == {"period": 100_000, "quota": 150_000, "cpus": "0"}
    assert found["pids"] == {"limit": -1}
    assert oci_resources(Resources()) == {}


def test_devices() -> None:
    nodes, rules = devices.gather(
        [DeviceMapping(PathOnHost="/dev/null", PathInContainer="/dev/x", CgroupPermissions="r")]
    )
    assert nodes[0]["path"] == "/dev/x"
    assert (nodes[0]["type"], nodes[0]["major"], nodes[0]["minor"]) == ("c", 1, 3)
    assert rules == [{"allow": True, "type": "c", "major": 1, "minor": 3, "access": "r"}]
    for path, why in (("/dev/nosuch", "no such file or directory"), ("/etc/passwd", "not a device node")):
        with pytest.raises(InvalidParameter) as caught:
            devices.gather([DeviceMapping(PathOnHost=path)])
        assert str(caught.value) == f'error gathering device information while adding custom device "{path}": {why}'


def test_cpu_sets() -> None:
    assert parse_set("0-2,7") == {0, 1, 2, 7}
    assert checks.show_set({7, 0, 1, 2}) == "0-2,7"
    for wrong in ("2-1", "-1", "a", "1,,2"):
        with pytest.raises(ValueError):
            parse_set(wrong)


@pytest.mark.parametrize(
    ("v2", "lifted"),
    [
        (False, [("pids", "pids.max", "max"), ("cpu", "cpu.cfs_quota_us", "-1")]),
        (True, [("pids", "pids.max", "max"), ("cpu", "cpu.max", "max")]),
    ],
)
def test_limits_that_are_taken_away(v2: bool, lifted: list[tuple[str, str, str]]) -> None:
    limits = oci_resources(Resources(PidsLimit=-1, CpuQuota=-1, CpuShares=512))
    assert take_lifted(limits, v2=v2) == lifted
    assert limits == {"cpu": {"shares": 512}}
    assert take_lifted(oci_resources(Resources(PidsLimit=5)), v2=v2) == []

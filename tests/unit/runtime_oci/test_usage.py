"""Readings from control groups of both versions, as trees of files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plugin_sdk.runtime import BlockIo, LinkUsage
from plugins.runtime_oci.cgroups import Cgroups
from plugins.runtime_oci.usage import Meter, own_group, read_cpu

DEV = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
tunl0:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0
  eth0:    5000      50    1    2    0     0          0         0     6000      60    3    4    0     0       0          0
"""


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    write(tmp_path / "proc" / str(os.getpid()) / "net", dev=DEV)
    return tmp_path / "proc"


def meter(groups: Cgroups, places: dict[str, Path], proc: Path) -> Meter:
    made = Meter(groups, os.getpid(), "c0ffee", proc=proc)
    made.__dict__["_places"] = places
    return made


def test_version_2(tmp_path: Path, proc: Path) -> None:
    group = tmp_path / "cgroup"
    write(
        group,
        cpu__stat="usage_usec 300\nuser_usec 200\nsystem_usec 100\nnr_periods 7\nnr_throttled 3\nthrottled_usec 50\n",
        memory__current="4096\n",
        memory__max="max\n",
        memory__stat="anon 1000\ninactive_file 96\n",
        pids__current="3\n",
        pids__max="max\n",
        io__stat="254:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n8:16 \n",
    )
    usage = meter(Cgroups(unified=tmp_path), {"": group}, proc).read()
    assert (usage.cpu.total, usage.cpu.user, usage.cpu.kernel) == (300_000, 200_000, 100_000)
    assert (usage.cpu.periods, usage.cpu.throttled_periods, usage.cpu.throttled) == (7, 3, 50_000)
    assert usage.cpu.per_cpu == () and usage.v2 and usage.block_operations is None
    assert usage.memory.usage == 4096 and usage.memory.stats["inactive_file"] == 96 and usage.memory.max_usage is None
    assert usage.memory.limit == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert (usage.pids, usage.pids_limit) == (3, 0)
    assert usage.block_bytes is not None
    assert usage.block_bytes[:2] == [BlockIo(254, 0, "read", 10), BlockIo(254, 0, "write", 20)]
    (group / "memory.max").write_text("8192\n")
    (group / "pids.max").write_text("20\n")
    usage = meter(Cgroups(unified=tmp_path), {"": group}, proc).read()
    assert usage.memory.limit == 8192 and usage.pids_limit == 20


def test_version_1(tmp_path: Path, proc: Path) -> None:
    places = {name: tmp_path / name for name in ("cpuacct", "cpu", "memory", "blkio", "pids")}
    write(
        places["cpuacct"],
        cpuacct__usage="500\n",
        cpuacct__usage_percpu="200 300 0 0 \n",
        cpuacct__stat="user 2\nsystem 1\n",
    )
    write(places["cpu"], cpu__stat="nr_periods 5\nnr_throttled 2\nthrottled_time 9\n")
    write(
        places["memory"],
        memory__usage_in_bytes="4096\n",
        memory__max_usage_in_bytes="5000\n",
        memory__failcnt="1\n",
        memory__stat="hierarchical_memory_limit 8192\ntotal_inactive_file 96\n",
    )
    write(places["blkio"], blkio__throttle__io_service_bytes_recursive="8:0 Read 7\n8:0 Total 7\nTotal 7\n")
    write(places["pids"], pids__current="2\n", pids__max="max\n")
    usage = meter(Cgroups(dict.fromkeys(places, tmp_path)), places, proc).read()
    assert (usage.cpu.total, usage.cpu.user, usage.cpu.kernel) == (500, 20_000_000, 10_000_000)
    assert usage.cpu.throttled == 9 and list(usage.cpu.per_cpu) == [200, 300, 0, 0][: usage.cpu.online]
    assert (usage.memory.usage, usage.memory.limit, usage.memory.max_usage, usage.memory.failcnt) == (
        4096,
        8192,
        5000,
        1,
    )
    assert usage.block_bytes == [BlockIo(8, 0, "Read", 7), BlockIo(8, 0, "Total", 7)] and usage.block_operations == []
    assert usage.links == {"eth0": LinkUsage(5000, 50, 1, 2, 6000, 60, 3, 4)}


def test_one_that_has_ended_is_left_out(tmp_path: Path, proc: Path) -> None:
    groups = Cgroups(unified=tmp_path)
    write(tmp_path / "lives", cpu__stat="usage_usec 1\n")
    alive, gone = (meter(groups, {"": tmp_path / name}, proc) for name in ("lives", "gone"))
    found = read_cpu({"alive": alive, "gone": gone})
    assert found.keys() == {"alive"} and found["alive"].total == 1000
    with pytest.raises(OSError, match="gone"):
        gone.read()


def test_the_group_of_a_container_whose_init_moved_or_ended() -> None:
    own = Path("/sys/fs/cgroup/docker/c0ffee")
    assert own_group(own, "c0ffee") == own
    assert own_group(own / "init.scope", "c0ffee") == own
    scope = Path("/sys/fs/cgroup/system.slice/docker-c0ffee.scope")
    assert own_group(scope / "container", "c0ffee") == scope
    assert own_group(Path("/sys/fs/cgroup"), "c0ffee") is None
    assert own_group(None, "c0ffee") is None

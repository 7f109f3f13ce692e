"""Getting the kernel ready for moves between cgroups."""

import os
import time
from pathlib import Path

import pytest

from plugins.runtime_oci.migration import LASTS, Readiness, own_procs


def wait_for(procs: Path) -> bytes:
    end = time.monotonic() + 5
    while not procs.read_bytes() and time.monotonic() < end:
        time.sleep(0.005)
    return procs.read_bytes()


def test_the_daemon_is_moved_to_where_it_is_and_only_for_a_while(tmp_path: Path) -> None:
    procs = tmp_path / "cgroup.procs"
    procs.write_bytes(b"")
    readiness = Readiness(procs)
    time.sleep(0.02)
    assert procs.read_bytes() == b"", "nothing happens until something is expected"
    readiness.soon()
    assert wait_for(procs).startswith(str(os.getpid()).encode())
    time.sleep(LASTS * 3)
    written = procs.read_bytes()
    time.sleep(LASTS)
    assert procs.read_bytes() == written
    readiness.close()


@pytest.mark.parametrize(
    ("membership", "expected"),
    [
        ("5:pids:/a/b\n0::/x\n", "pids/a/b/cgroup.procs"),
        ("0::/user.slice\n", "user.slice/cgroup.procs"),
        ("5:cpu:/\n", None),
    ],
)
def test_the_own_cgroup_is_found(tmp_path: Path, membership: str, expected: str | None) -> None:
    (tmp_path / "cgroup").write_text(membership)
    if expected is not None:
        (tmp_path / "mounts" / expected).parent.mkdir(parents=True)
        (tmp_path / "mounts" / expected).write_text("")
    found = own_procs(tmp_path, tmp_path / "mounts")
    assert found == (tmp_path / "mounts" / expected if expected else None)


def test_without_a_cgroup_nothing_is_done(tmp_path: Path) -> None:
    readiness = Readiness(None)
    readiness.soon()
    readiness.close()

"""`--userns-remap`: which IDs it means, and what they are inside and outside."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugin_sdk import IdMap, IdRange, InvalidParameter
from plugin_sdk.containers import HostConfig
from plugins.runtime_oci import remap
from plugins.runtime_oci.remap import check_remapped, oci_ranges, ranges, read_remap


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """subuid and subgid of our own, which give root IDs by its name and daemon's by its number."""
    for name, first in (("subuid", 100_000), ("subgid", 300_000)):
        (tmp_path / name).write_text(f"root:{first}:1000\n1:{first + 5000}:500\nroot:{first + 9000}:65536\nbad line\n")
    monkeypatch.setattr(remap, "SUBUID", tmp_path / "subuid")
    monkeypatch.setattr(remap, "SUBGID", tmp_path / "subgid")
    return tmp_path


def test_no_remapping() -> None:
    assert read_remap("") is None


@pytest.mark.parametrize("choice", ["root", "0", "root:root", "0:0", "root:0"])
def test_all_ranges_of_a_user_one_behind_the_other(files: Path, choice: str) -> None:
    ids = read_remap(choice)
    assert ids is not None
    assert ids.Uids == [IdRange(Inside=0, Host=100_000, Size=1000), IdRange(Inside=1000, Host=109_000, Size=65536)]
    assert ids.Gids[0] == IdRange(Inside=0, Host=300_000, Size=1000)
    assert ids.root == (100_000, 300_000)
    assert oci_ranges(ids.Uids)[1] == {"containerID": 1000, "hostID": 109_000, "size": 65536}


def test_a_number_in_the_file_and_another_group(files: Path) -> None:
    ids = read_remap("daemon:root")
    assert ids is not None and ids.root == (105_000, 300_000)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("no-such-user", "there is no user 'no-such-user'"),
        ("root:no-such-group", "there is no group 'no-such-group'"),
        ("99999999", "there is no user '99999999'"),
        ("bin", "gives bin no IDs: add a line such as bin:100000:65536"),
        ("root:", "want default, USER, USER:GROUP, UID or UID:GID"),
        (":root", "want default, USER, USER:GROUP, UID or UID:GID"),
    ],
)
def test_choices_that_cannot_be(files: Path, choice: str, words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        read_remap(choice)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="none: No such file"):
        ranges(tmp_path / "none", "root", 0)


def test_a_range_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "subuid"
    file.write_text("root:100000:10\nroot:100009:10\n")
    with pytest.raises(InvalidParameter, match="gives root the IDs 100009 to 100018 twice"):
        ranges(file, "root", 0)


def test_ids_inside_and_outside() -> None:
    parts = [IdRange(Inside=0, Host=100_000, Size=1000), IdRange(Inside=1000, Host=500_000, Size=10)]
    ids = IdMap(Uids=parts, Gids=parts[:1])
    assert ids.outside(1005, 999) == (500_005, 100_999)
    assert ids.inside(500_005, 100_999) == (1005, 999)
    assert ids.inside(0, 500_000) == (65534, 65534)
    with pytest.raises(ValueError, match="ID 1010 is not mapped"):
        ids.outside(1010, 0)


@pytest.mark.parametrize("host", [{"Privileged": True}, {"NetworkMode": "host"}, {"PidMode": "host"}])
def test_what_needs_the_hosts_namespace(host: dict[str, object]) -> None:
    with pytest.raises(InvalidParameter, match="user namespaces"):
        check_remapped(HostConfig(**host))

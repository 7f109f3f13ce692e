"""USER[:GROUP] in the container's own files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plugin_sdk import InvalidParameter
from plugin_sdk.rootfs import open_in_root as open_in
from plugins.runtime_oci.openroot import read_in
from plugins.runtime_oci.users import identify, resolve

PASSWD = (
    "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1001::/home/bob:/bin/sh\nnohome:x:7:8::\nbroken line\n2000:x:5:6::/n:\n"
)
GROUP = "root:x:0:root\nstaff:x:50:bob,root\nwheel:x:10:\nbobs:x:1001:\n"


@pytest.mark.parametrize(
    ("user", "uid", "gid", "groups", "home"),
    [
        ("", 0, 0, (0, 50), "/root"),
        ("root", 0, 0, (0, 50), "/root"),
        ("bob", 1000, 1001, (1001, 50), "/home/bob"),
        ("1000", 1000, 1001, (1001, 50), "/home/bob"),
        ("bob:wheel", 1000, 10, (10,), "/home/bob"),
        ("bob:77", 1000, 77, (77,), "/home/bob"),
        ("4242", 4242, 0, (0,), "/"),
        ("4242:4243", 4242, 4243, (4243,), "/"),
        ("nohome", 7, 8, (8,), "/"),
        ("2000", 5, 6, (6,), "/n"),
    ],
)
def test_users(user: str, uid: int, gid: int, groups: tuple[int, ...], home: str) -> None:
    found = resolve(PASSWD, GROUP, user)
    assert (found.uid, found.gid, found.groups, found.home) == (uid, gid, groups, home)


def test_added_groups_come_by_name_and_number() -> None:
    assert resolve(PASSWD, GROUP, "bob", ["wheel", "99", "50"]).groups == (1001, 50, 10, 99)


@pytest.mark.parametrize(
    ("user", "extra", "message"),
    [
        ("nobody", [], "unable to find user nobody: no matching entries in passwd file"),
        ("bob:nogroup", [], "unable to find group nogroup: no matching entries in group file"),
        ("", ["nogroup"], "Unable to find group nogroup: no matching entries in group file"),
        ("4294967295", [], "uids and gids must be in range 0-2147483647"),
        ("0:99999999999999999999", [], "uids and gids must be in range 0-2147483647"),
    ],
)
def test_users_that_are_none(user: str, extra: list[str], message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        resolve(PASSWD, GROUP, user, extra)
    assert str(caught.value) == message


def test_an_image_without_files_has_numbers_only(tmp_path: Path) -> None:
    assert identify(tmp_path, "12:13").uid == 12
    with pytest.raises(InvalidParameter):
        identify(tmp_path, "root")


def test_a_symlink_does_not_lead_out_of_the_container(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (tmp_path / "secret").write_text("spy:x:66:66::/:\n")
    for target in ("../../secret", str(tmp_path / "secret"), "/proc/self/root/etc/passwd"):
        (root / "etc/passwd").unlink(missing_ok=True)
        (root / "etc/passwd").symlink_to(target)
        assert read_in(root, "/etc/passwd") == ""
    (root / "etc/passwd").unlink()
    (root / "real").write_text("in:x:67:67::/:\n")
    (root / "etc/passwd").symlink_to("/../../real")
    assert identify(root, "in").uid == 67


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    os.mkfifo(tmp_path / "etc/passwd")
    assert identify(tmp_path, "").uid == 0
    with pytest.raises(OSError):
        open_in(tmp_path, "/etc/nothing")

"""Groups of a container whose creation failed."""

from __future__ import annotations

from pathlib import Path

from plugins.runtime_oci.cgroups import Cgroups, remove


def test_empty_groups_go_in_all_hierarchies_and_others_stay(tmp_path: Path) -> None:
    groups = Cgroups({"cpu": tmp_path / "cpu", "pids": tmp_path / "pids"}, tmp_path / "unified")
    for folder in ("cpu/docker/x", "unified/docker/x", "pids/docker/x/busy"):
        (tmp_path / folder).mkdir(parents=True)
    remove(groups, "/docker/x")
    remove(groups, "/docker/x")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/docker/*")) == ["pids/docker/x"]
    for path in ("", "/", "system.slice:docker:x"):
        remove(groups, path)
    assert (tmp_path / "cpu/docker").is_dir()

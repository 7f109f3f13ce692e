"""Which quota back end is chosen, and what project quotas tell the kernel."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from plugin_sdk import InvalidParameter, NotSupported
from plugins.storage_overlay2.quota import Quotas
from plugins.storage_overlay2.quota.choice import mark, size_of
from plugins.storage_overlay2.quota.project import disk_quota


class Backend:
    inner = ""
    least = 1

    def __init__(self, name: str, reason: str) -> None:
        self.name, self._reason = name, reason

    def available(self, root: Path) -> str:
        return self._reason


def test_the_first_that_is_possible(tmp_path: Path) -> None:
    quotas = Quotas(tmp_path)
    quotas._backends = [Backend("a", "no a"), Backend("b", ""), Backend("c", "")]  # type: ignore[list-item]
    assert quotas.chosen == "none"
    assert quotas.choose().name == "b" == quotas.chosen


def test_a_refusal_names_the_file_system_and_what_would_help(tmp_path: Path) -> None:
    quotas = Quotas(tmp_path)
    quotas._backends = [Backend("a", "no a; mend a"), Backend("b", "no b")]  # type: ignore[list-item]
    with pytest.raises(NotSupported, match=r"limited on \w+ here \(no a; mend a; no b\)"):
        quotas.choose()


def test_each_layer_keeps_its_back_end(tmp_path: Path) -> None:
    quotas = Quotas(tmp_path)
    assert quotas.of(tmp_path) is None
    backend = quotas._backends[-1]
    mark(tmp_path, backend, 5)
    assert os.readlink(tmp_path / "limit") == "5 disk image" and quotas.of(tmp_path) is backend
    os.unlink(tmp_path / "limit")
    os.symlink("5 magic", tmp_path / "limit")
    with pytest.raises(NotSupported, match="'magic'"):
        quotas.of(tmp_path)


def test_sizes() -> None:
    assert (size_of("10G"), size_of("1024"), size_of("0")) == (10 << 30, 1024, 0)
    for bad in ("", "ten", "-1", "5x"):
        with pytest.raises(InvalidParameter, match="invalid size"):
            size_of(bad)


def test_the_kernels_structure() -> None:
    packed = disk_quota(77, 1025)
    assert len(packed) == 112, "sizeof(struct fs_disk_quota)"
    version, flags, mask, project, hard, soft = struct.unpack_from("=bbHIQQ", packed)
    assert (version, flags, mask, project, hard, soft) == (1, 2, 12, 77, 3, 3)
    assert not any(packed[24:])

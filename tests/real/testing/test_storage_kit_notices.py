"""The kit of storage drivers notices what is wrong: the example `vfs`, broken in one place at a time."""

from __future__ import annotations

import dataclasses
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from plugin_sdk import EngineError
from plugin_sdk.storage import LayerInfo
from plugin_sdk.testing.kit import Outcome
from plugin_sdk.testing.kits import storage
from plugin_sdk.testing.subjects import made_by

pytestmark = pytest.mark.real

EXAMPLE = Path(__file__).parents[3] / "examples/storage_vfs"
Breaker = Callable[[pytest.MonkeyPatch, Any], None]


@pytest.fixture
def vfs(monkeypatch: pytest.MonkeyPatch, real_host: None) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    import storage_vfs.driver

    yield storage_vfs.driver
    for name in [name for name in sys.modules if name.startswith("storage_vfs")]:
        del sys.modules[name]


def naive(patch: pytest.MonkeyPatch, vfs: Any) -> None:
    """What an author writes first."""

    def unpack(archive: Path, tree: Path) -> int:
        with tarfile.open(archive) as tar:
            tar.extraction_filter = lambda member, path: member
            tar.extractall(tree)
        return 7

    patch.setattr(vfs.unpacking, "unpack", unpack)


def wrong_chain(patch: pytest.MonkeyPatch, vfs: Any) -> None:
    patch.setattr(vfs, "_chain_id", lambda parent, diff_id: diff_id)


def no_check_of_the_digest(patch: pytest.MonkeyPatch, vfs: Any) -> None:
    right = vfs.Vfs._apply
    patch.setattr(vfs.Vfs, "_apply", lambda self, parent, diff, expected: right(self, parent, diff, ""))


def removes_what_is_used(patch: pytest.MonkeyPatch, vfs: Any) -> None:
    patch.setattr(vfs.Vfs, "remove_layer", lambda self, chain_id: self._layers.pop(chain_id, None) and None)


def shares_one_tree(patch: pytest.MonkeyPatch, vfs: Any) -> None:
    patch.setattr(vfs.Vfs, "mount", lambda self, name: self._tree(self._writable[name]) or self._home(name) / "fs")


def forgets(patch: pytest.MonkeyPatch, vfs: Any) -> None:
    right = vfs.Vfs.__init__

    def init(self: Any, root: Path) -> None:
        right(self, root)
        self._writable = {}

    patch.setattr(vfs.Vfs, "__init__", init)


def no_deletions(patch: pytest.MonkeyPatch, vfs: Any) -> None:
    right = vfs.trees.compare
    patch.setattr(vfs.trees, "compare", lambda *told: [each for each in right(*told) if each.kind != 2])


def no_parents(patch: pytest.MonkeyPatch, vfs: Any) -> None:
    right = vfs.trees.compare
    patch.setattr(vfs.trees, "compare", lambda *told: [each for each in right(*told) if each.itself])


def no_usage(patch: pytest.MonkeyPatch, vfs: Any) -> None:
    right = vfs.trees.compare
    patch.setattr(vfs.trees, "compare", lambda *told: [dataclasses.replace(each, size=0) for each in right(*told)])


def keeps_a_broken_upload(patch: pytest.MonkeyPatch, vfs: Any) -> None:
    right = vfs._spool

    def spool(diff: Any, target: Path) -> tuple[str, int]:
        try:
            found: tuple[str, int] = right(diff, target)
        except EngineError:
            target.write_bytes(bytes(1024))
            return "sha256:" + "5" * 64, 1024
        return found

    patch.setattr(vfs, "_spool", spool)


def other_archive(patch: pytest.MonkeyPatch, vfs: Any) -> None:
    def diff(self: Any, name: str, out: Any) -> None:
        out.write(bytes(1024))

    patch.setattr(vfs.Vfs, "_diff", diff)


def takes_a_name_twice(patch: pytest.MonkeyPatch, vfs: Any) -> None:
    right = vfs.Vfs.create

    def create(self: Any, name: str, parent: str, *, options: Any = None) -> None:
        self.remove(name)
        right(self, name, parent, options=options)

    patch.setattr(vfs.Vfs, "create", create)


def takes_any_option(patch: pytest.MonkeyPatch, vfs: Any) -> None:
    right = vfs.Vfs.create

    def create(self: Any, name: str, parent: str, *, options: Any = None) -> None:
        right(self, name, parent)

    patch.setattr(vfs.Vfs, "create", create)


def follows_links(patch: pytest.MonkeyPatch, vfs: Any) -> None:
    def pack(tree: Path, differences: Any, out: Any) -> None:
        with tarfile.open(fileobj=out, mode="w|", dereference=True) as tar:
            for each in differences:
                tar.add(tree / each.path, arcname=each.path)

    patch.setattr(vfs.packing, "pack", pack)


def another_layer(patch: pytest.MonkeyPatch, vfs: Any) -> None:
    patch.setattr(vfs.Vfs, "layer", lambda self, chain_id: LayerInfo(chain_id, chain_id, "", 0))


@pytest.mark.parametrize(
    ("check", "breaker"),
    [
        ("digests", wrong_chain),
        ("layers-are-known", another_layer),
        ("wrong-digest", no_check_of_the_digest),
        ("whiteouts", naive),
        ("opaque-root", naive),
        ("containers-are-apart", shares_one_tree),
        ("name-is-taken", takes_a_name_twice),
        ("unknown-option", takes_any_option),
        ("remove-layer", removes_what_is_used),
        ("archive-comes-back", other_archive),
        ("commit", no_deletions),
        ("diff-of-a-container", no_deletions),
        ("changes", no_parents),
        ("usage", no_usage),
        ("broken-upload", keeps_a_broken_upload),
        ("restart", forgets),
        ("hostile-archives", naive),
        ("links-stay-inside", naive),
        ("container-links", follows_links),
    ],
)
async def test_it_is_noticed(monkeypatch: pytest.MonkeyPatch, vfs: Any, check: str, breaker: Breaker) -> None:
    checks = {each.name: each for each in storage.KIT.checks}
    sound = await storage.KIT.run_one(checks[check], made_by(vfs.Vfs, storage.KIT))
    assert sound.outcome is Outcome.HOLDS, sound.detail
    breaker(monkeypatch, vfs)
    result = await storage.KIT.run_one(checks[check], made_by(vfs.Vfs, storage.KIT))
    assert result.outcome is Outcome.BROKEN
    assert "expected" in result.detail

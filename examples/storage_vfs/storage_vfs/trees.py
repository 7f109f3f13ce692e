"""What differs between two trees. Blocking; symbolic links are never followed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from plugin_sdk.rootfs import exists_in_root, make_folders, open_in_root
from plugin_sdk.storage import Change, ChangeKind

FOLDERS = ("dev", "proc", "sys", "etc")
FILES = ("etc/hosts", "etc/hostname", "etc/resolv.conf")
"""What every runtime mounts onto: put into a container's tree, so that it is no change of the container's."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One path that differs.

    Attributes:
        path: relative to the root.
        size: bytes of a file that was added or modified.
        itself: it was changed, and not only something below it.
    """

    path: str
    kind: ChangeKind
    size: int = 0
    itself: bool = True


def add_mount_points(tree: Path) -> list[str]:
    """Make the mount points that are missing; gives their paths."""
    made = []
    for name in FOLDERS:
        if not exists_in_root(tree, name, follow=False):
            os.close(make_folders(tree, name))
            made.append(name)
    for name in FILES:
        if not exists_in_root(tree, name, follow=False) and exists_in_root(tree, "etc"):
            os.close(open_in_root(tree, name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
            made.append(name)
    return made


def compare(lower: Path | None, upper: Path, made: set[str]) -> list[Difference]:
    """Differences of `upper`, sorted by path. What was `made` for the container and is still empty is none."""
    before = dict(_entries(lower)) if lower is not None else {}
    after = dict(_entries(upper))
    found: dict[str, Difference] = {}
    for path, facts in after.items():
        old = before.get(path)
        if old is None:
            if path in made and (stat.S_ISDIR(facts.st_mode) or not facts.st_size):
                continue
            found[path] = Difference(path, ChangeKind.ADDED, _size(facts))
        elif not _same(old, facts) or (stat.S_ISLNK(facts.st_mode) and not _same_link(lower, upper, path)):
            found[path] = Difference(path, ChangeKind.MODIFIED, _size(facts))
    for path in before:
        if path not in after and not any(parent in found and _gone(found, parent) for parent in _parents(path)):
            found[path] = Difference(path, ChangeKind.DELETED)
    # As with overlays, and as `docker diff` shows it: folders on the way to a change are changed too.
    for path in list(found):
        for parent in _parents(path):
            found.setdefault(parent, Difference(parent, ChangeKind.MODIFIED, itself=False))
    return [found[path] for path in sorted(found) if not _only_mount_points(found[path], found, made)]


def as_changes(differences: list[Difference]) -> list[Change]:
    """In the contract's words."""
    return sorted((Change(f"/{each.path}", each.kind) for each in differences), key=lambda change: change.path)


def _entries(tree: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Path and facts of all entries, a folder before what it holds."""
    for folder, folders, files, descriptor in os.fwalk(tree, follow_symlinks=False):
        base = os.path.relpath(folder, tree)
        for name in (*folders, *files):
            try:
                facts = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            except FileNotFoundError:
                continue  # the container removed it meanwhile
            yield name if base == "." else f"{base}/{name}", facts


def _same(old: os.stat_result, new: os.stat_result) -> bool:
    facts = ("st_mode", "st_uid", "st_gid", "st_rdev")
    if any(getattr(old, name) != getattr(new, name) for name in facts):
        return False
    if stat.S_ISDIR(new.st_mode):
        return True  # what was put into it or taken out of it is told by itself
    return (old.st_size, old.st_mtime_ns) == (new.st_size, new.st_mtime_ns)


def _same_link(lower: Path | None, upper: Path, path: str) -> bool:
    try:
        return lower is not None and os.readlink(lower / path) == os.readlink(upper / path)
    except OSError:
        return False


def _size(facts: os.stat_result) -> int:
    return facts.st_size if stat.S_ISREG(facts.st_mode) else 0


def _parents(path: str) -> list[str]:
    return [str(parent) for parent in PurePosixPath(path).parents if str(parent) != "."]


def _gone(found: dict[str, Difference], path: str) -> bool:
    return found[path].kind is ChangeKind.DELETED


def _only_mount_points(each: Difference, found: dict[str, Difference], made: set[str]) -> bool:
    return not each.itself and each.path in made and not any(p.startswith(f"{each.path}/") for p in found)

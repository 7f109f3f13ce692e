"""Bind mounts: their sources on the host, and how the runtime shall mount them."""

from __future__ import annotations

import os
from pathlib import Path

from plugin_sdk import EngineError, IdMap, InvalidParameter, sysmount
from plugin_sdk.containers import MountPoint
from plugin_sdk.rootfs import open_in_root

_RECURSIVE_READ_ONLY_KERNEL = (5, 12)


def first_missing(paths: list[str]) -> str:
    """The first path that does not exist, or "". Blocking."""
    return next((path for path in paths if not os.path.lexists(path)), "")


def bind_source(mount: MountPoint, ids: IdMap | None) -> str:
    """Blocking. Makes a missing source folder for `-v`, the container's root's; raises InvalidParameter for `--mount`."""
    if not os.path.lexists(mount.Source):
        if mount.Options.get("MustExist"):
            raise InvalidParameter(
                f'invalid mount config for type "bind": bind source path does not exist: {mount.Source}'
            )
        try:
            Path(mount.Source).mkdir(mode=0o755, parents=True, exist_ok=True)
            if ids is not None:
                os.chown(mount.Source, *ids.root, follow_symlinks=False)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise EngineError(f"error while creating mount source path '{mount.Source}': mkdir: {reason}") from None
    if mount.Propagation.removeprefix("r") in ("shared", "slave"):
        _check_propagation(mount)
    return mount.Source


def _check_propagation(mount: MountPoint) -> None:
    place, facts = sysmount.mount_of(mount.Source)
    wanted = mount.Propagation.removeprefix("r")
    if "shared" in facts or (wanted == "slave" and "master" in facts):
        return
    kind = "shared mount" if wanted == "shared" else "shared or slave mount"
    raise EngineError(f"path {mount.Source} is mounted on {place} but it is not a {kind}")


def bind_options(mount: MountPoint) -> tuple[str, ...]:
    """Options of the OCI mount."""
    recursive = not mount.Options.get("NonRecursive")
    options = ["rbind" if recursive else "bind", mount.Propagation or "rprivate"]
    if not mount.RW:
        options.append("ro")
        if recursive and not mount.Options.get("ReadOnlyNonRecursive") and can_recurse():
            options.append("rro")
    return tuple(options)


def can_recurse() -> bool:
    """The kernel can make mounts read-only together with those below them."""
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int("".join(filter(str.isdigit, minor)) or 0)) >= _RECURSIVE_READ_ONLY_KERNEL


def unpin(place: Path) -> None:
    """Let go of all that `pin` holds in a folder. Blocking; nothing there is fine."""
    if not place.is_dir():
        return
    for target in place.iterdir():
        sysmount.unmount(str(target))
        if target.is_dir():
            target.rmdir()
        else:
            target.unlink()
    place.rmdir()


def alone(mount: MountPoint, place: Path, number: int) -> str:
    """`bind_source` for a folder without the mounts below it, held in the folder `place`. Blocking.

    Not left to the runtime: crun 1.8 takes the mounts below along whatever it is told.
    """
    private = mount.Propagation.removeprefix("r") not in ("shared", "slave")
    return pin(mount.Source, "", place, number, recursive=False, private=private)


def pin(source: str, subpath: str, place: Path, number: int, *, recursive: bool = True, private: bool = True) -> str:
    """Hold a folder or file within a volume by a bind mount, so that no link can lead elsewhere afterwards. Blocking.

    Gives its path, in the folder `place`. Raises InvalidParameter when there is nothing.
    """
    try:
        found = open_in_root(source, subpath)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InvalidParameter(f"cannot access path {source}/{subpath}: {reason}") from None
    try:
        origin = f"/proc/self/fd/{found}"
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        target = place / str(number)
        if os.path.isdir(origin):
            target.mkdir(exist_ok=True)
        else:
            target.touch()
        sysmount.mount(origin, str(target), "", sysmount.MS_BIND | (sysmount.MS_REC if recursive else 0))
        if private:
            sysmount.mount("", str(target), "", sysmount.MS_PRIVATE | sysmount.MS_REC)
        return str(target)
    finally:
        os.close(found)

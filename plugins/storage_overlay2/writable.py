"""Writable layers on disk and their mounts. Blocking.

writable/NAME/fs      the upper folder
              work    overlayfs's own
              merged  the mount point
              parent  a symbolic link whose text is the parent's chain ID
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from plugin_sdk import Conflict, EngineError, IdMap, InvalidParameter, NotFound, NotSupported, userns

from . import mountpoints, mounts
from .layers import Layers
from .stack import Stack

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_NO_PARENT = "none"

ENDS_WITHIN = 60.0
"""Seconds that a mount waits for the end of the same layer's previous mount."""


class Writables:
    """All writable layers."""

    def __init__(self, layers: Layers, log: logging.Logger) -> None:
        self._layers = layers
        self._log = log
        self._home = layers.root / "writable"
        self._base = layers.root / "base"
        self._parents: dict[str, str] = {}
        self._options = mounts.features_off()
        self._ending: dict[str, threading.Thread] = {}
        self._detaching = threading.Lock()
        self._mapping = threading.Lock()
        self._mapped = layers.root / "mapped"
        self._unreadable: list[Path] = []

    def open(self) -> None:
        """Make the folders and learn what is there."""
        mounts.unmount(str(self._mapped))  # of a daemon that was killed
        # What containers make may be set-user-ID root's, and is for no other user of the host to run.
        self._home.mkdir(mode=0o710, exist_ok=True)
        self._home.chmod(0o710)
        for name in os.listdir(self._home):
            try:
                parent = os.readlink(self._home / name / "parent")
            except OSError as error:
                self._log.error("writable layer %s is unreadable and removed: %s", name, error)
                self._unreadable.append(self._home / name)
                continue
            self._parents[name] = "" if parent == _NO_PARENT else parent

    def parents(self) -> dict[str, str]:
        """Names to parents; a snapshot."""
        return dict(self._parents)

    def parent(self, name: str) -> str:
        """Raises NotFound."""
        try:
            return self._parents[name]
        except KeyError:
            raise NotFound(f"writable layer {name} does not exist") from None

    def user(self, chain: str) -> str:
        """A writable layer that lies on a chain, or ""."""
        return next((f"container {name}" for name, parent in self._parents.copy().items() if parent == chain), "")

    def folder(self, name: str) -> Path:
        """Its folder."""
        return self._home / name

    def create(self, name: str, parent: str) -> None:
        """See `StorageDriver.create`."""
        if not _NAME.fullmatch(name):
            raise InvalidParameter(f"invalid name {name!r} of a writable layer")
        if name in self._parents:
            raise Conflict(f"writable layer {name} already exists")
        try:
            self._layers.stack(parent)
        except NotFound as error:
            raise EngineError(f"{error}: the image is damaged, load or pull it again") from None
        with self._layers.pinned(parent), self._layers.scratch() as building:
            like = os.stat(self._init(parent))
            (building / "fs").mkdir()
            if like.st_uid or like.st_gid:
                os.chown(building / "fs", like.st_uid, like.st_gid)
            os.chmod(building / "fs", like.st_mode & 0o7777)
            (building / "work").mkdir(mode=0o700)
            (building / "merged").mkdir(mode=0o755)
            os.symlink(parent or _NO_PARENT, building / "parent")
            os.chmod(building, 0o711)
            try:
                os.rename(building, self.folder(name))
            except OSError as error:
                raise Conflict(f"writable layer {name} already exists") from error
            self._parents[name] = parent

    def _init(self, parent: str) -> Path:
        """The init layer on a chain, made at its first use."""
        home = self._layers.path(self._layers.get(parent)) if parent else self._base
        init = home / "init"
        if not init.exists():
            with self._layers.scratch() as building:
                tree = building / "init"
                tree.mkdir(mode=0o755)
                mountpoints.build(tree, self._layers.view(parent))
                home.mkdir(exist_ok=True)
                try:
                    os.rename(tree, init)
                except OSError:
                    if not init.exists():  # another thread was not faster, so it is a failure
                        raise
        return init

    def lower(self, name: str) -> list[Path]:
        """Folders below a writable layer, the uppermost first."""
        parent = self.parent(name)
        return [self._init(parent), *(self._layers.path(layer) / "fs" for layer in self._layers.stack(parent))]

    def below(self, name: str) -> Stack:
        """The merged view of them."""
        return Stack([str(path) for path in self.lower(name)])

    def mount(self, name: str, ids: IdMap | None = None) -> Path:
        """See `StorageDriver.mount`."""
        lower = self.lower(name)
        home = self.folder(name)
        target = home / "merged"
        with self._detaching:
            if mounts.is_mounted(str(target)):
                return target
            ending = self._ending.pop(name, None)
        if ending is not None:
            ending.join(ENDS_WITHIN)  # one upper folder must not be in two overlays at a time
        root = self._layers.root
        here = f"writable/{name}"
        parts = ([str(path.relative_to(root)) for path in lower], f"{here}/fs", f"{here}/work")
        try:
            if ids is None:
                mounts.mount_overlay(root, f"{here}/merged", *parts, extra=self._options)
            else:
                self._mount_mapped(str(target), parts, ids)
        except OSError as error:
            raise EngineError(
                f"cannot mount the file system of {name}, {len(lower)} layers: {error.strerror}; see the kernel's log"
            ) from error
        return target

    def _mount_mapped(self, target: str, parts: tuple[list[str], str, str], ids: IdMap) -> None:
        """An overlay has no owners of its own to map, so those of its layers are: all are below one folder, which is shown
        with other owners for as long as the mount takes (the overlay then holds what it needs)."""
        with self._mapping:
            # The runtime goes to the root file system as the namespace's root.
            os.chown(self._home, -1, ids.root[1])
            self._mapped.mkdir(mode=0o700, exist_ok=True)
            try:
                mounts.attach_mapped(self._layers.root, self._mapped, userns.descriptor(ids))
            except OSError as error:
                kind = mounts.file_system(self._layers.root)[1]
                raise NotSupported(
                    f"--userns-remap needs ID-mapped mounts, which {kind} at {self._layers.root} does not offer with this"
                    f" kernel ({error.strerror}): use Linux 5.19 or later, and put the data root (--data-root) on ext4,"
                    f" xfs or btrfs"
                ) from error
            try:
                # The overlay makes files in its work folder as whoever mounts it.
                userns.in_thread_as(ids, mounts.mount_overlay, self._mapped, target, *parts, extra=self._options)
            finally:
                mounts.unmount(str(self._mapped))

    def unmount(self, name: str) -> None:
        """See `StorageDriver.unmount`. What is pending is written to the disk behind the caller's back."""
        # Held for two short calls, so that who mounts it again finds the mount, or the thread to wait for.
        with self._detaching:
            kept = mounts.detach(f"{self.folder(name)}/merged")
            if kept is not None:
                ending = threading.Thread(target=os.close, args=(kept,), name="overlay-end", daemon=True)
                ending.start()
                self._ending[name] = ending

    def remove(self, name: str) -> Callable[[], None] | None:
        """Unmount it and take it out of its place; gives what is left to do for its files to go."""
        if not _NAME.fullmatch(name):
            return None
        kept = mounts.detach(f"{self.folder(name)}/merged")
        self._parents.pop(name, None)
        self._ending.pop(name, None)
        try:
            doomed = self._layers.doom(self.folder(name))
        except FileNotFoundError:
            doomed = None
        if doomed is None and kept is None:
            return None

        def finish() -> None:
            try:
                if doomed is not None:
                    self._layers.bury(doomed)
            finally:
                if kept is not None:
                    os.close(kept)  # after the files: they need not be written out any more

        return finish

    def drop_unreadable(self) -> None:
        """Remove what `open` could make nothing of."""
        for folder in self._unreadable:
            mounts.unmount(f"{folder}/merged")
            shutil.rmtree(folder, ignore_errors=True)

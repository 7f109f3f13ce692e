"""Writable layers on disk and their mounts. Blocking.

writable/NAME/fs      the upper folder
              work    overlayfs's own
              merged  the mount point
              parent  a symbolic link whose text is the parent's chain ID
              bare    there when the mount points that containers need are left out
              limit   a symbolic link that says how its size is limited, if it is; `fs` and `work` may then
                      lie in a folder of the quota back end
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from plugin_sdk import Conflict, EngineError, IdMap, InvalidParameter, NotFound, NotSupported, userns

from . import mountpoints, mounts
from .layers import Layers
from .quota import QuotaBackend, Quotas
from .quota.choice import mark
from .stack import Stack

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_NO_PARENT = "none"
_BARE = "bare"

ENDS_WITHIN = 60.0
"""Seconds that a mount waits for the end of the same layer's previous mount."""


class Writables:
    """All writable layers."""

    def __init__(self, layers: Layers, quotas: Quotas, log: logging.Logger) -> None:
        self._layers = layers
        self._quotas = quotas
        self._log = log
        self._home = layers.root / "writable"
        self._base = layers.root / "base"
        self._parents: dict[str, str] = {}
        self._options = mounts.features_off()
        self._ending: dict[str, threading.Thread] = {}
        self._detaching = threading.Lock()
        self._mapping = threading.Lock()
        self._mapped = layers.root / "mapped"
        self._mapped_upper = layers.root / "mapped-upper"
        self._limited: dict[str, QuotaBackend] = {}
        self._limiting: dict[str, threading.Lock] = {}
        self._readers: Counter[str] = Counter()
        self._unreadable: list[Path] = []
        self._bare: set[str] = set()

    def open(self) -> None:
        """Make the folders and learn what is there."""
        self._hide_mapped()  # of a daemon that was killed
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
            if (self._home / name / _BARE).exists():
                self._bare.add(name)
            try:
                limited = self._quotas.of(self._home / name)
            except NotSupported as error:
                self._log.error("%s", error)
                continue
            if limited is not None:
                self._limited[name] = limited

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

    def create(self, name: str, parent: str, *, size: int = 0, bare: bool = False) -> None:
        """See `StorageDriver.create`. With a size, it can hold no more than so many bytes."""
        if not _NAME.fullmatch(name):
            raise InvalidParameter(f"invalid name {name!r} of a writable layer")
        if name in self._parents:
            raise Conflict(f"writable layer {name} already exists")
        try:
            self._layers.stack(parent)
        except NotFound as error:
            raise EngineError(f"{error}: the image is damaged, load or pull it again") from None
        backend = self._quotas.fit(size) if size else None
        with self._layers.pinned(parent), self._layers.scratch() as building:
            try:
                self._build(building, parent, bare, backend, size)
            except BaseException:
                if backend is not None:
                    self._quotas.forget(building)
                raise
            try:
                os.rename(building, self.folder(name))
            except OSError as error:
                raise Conflict(f"writable layer {name} already exists") from error
            if backend is not None:
                self._limited[name] = backend
            if bare:
                self._bare.add(name)
            self._parents[name] = parent

    def _build(self, building: Path, parent: str, bare: bool, backend: QuotaBackend | None, size: int) -> None:
        like = os.stat(self._init(parent))
        if backend is not None:
            # First, so that who clears up after a crash knows what it is.
            mark(building, backend, size)
            backend.begin(building, size)
        inside = building / backend.inner if backend is not None else building
        (inside / "fs").mkdir()
        if like.st_uid or like.st_gid:
            os.chown(inside / "fs", like.st_uid, like.st_gid)
        os.chmod(inside / "fs", like.st_mode & 0o7777)
        (inside / "work").mkdir(mode=0o700)
        (building / "merged").mkdir(mode=0o755)
        if bare:
            (building / _BARE).touch()
        os.symlink(parent or _NO_PARENT, building / "parent")
        if backend is not None:
            backend.finish(building, size)
        os.chmod(building, 0o711)

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
        trees = [self._layers.path(layer) / "fs" for layer in self._layers.stack(parent)]
        return trees if trees and name in self._bare else [self._init(parent), *trees]

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
        with self.upper(name) as upper:
            self._overlay(name, lower, upper, ids)
        return target

    def _overlay(self, name: str, lower: list[Path], upper: Path, ids: IdMap | None) -> None:
        root = self._layers.root
        inside = upper.parent.relative_to(root)
        parts = [str(path.relative_to(root)) for path in lower]
        try:
            if ids is not None:
                self._mount_mapped(name, parts, upper, ids)
                return
            mounts.mount_overlay(
                root, f"writable/{name}/merged", parts, f"{inside}/fs", f"{inside}/work", extra=self._options
            )
        except OSError as error:
            raise EngineError(
                f"cannot mount the file system of {name}, {len(lower)} layers: {error.strerror}; see the kernel's log"
            ) from error

    @contextmanager
    def upper(self, name: str) -> Iterator[Path]:
        """Its upper folder, for as long as the block runs. Raises NotFound."""
        self.parent(name)
        backend = self._limited.get(name)
        if backend is None:
            yield self.folder(name) / "fs"
            return
        # One lock for each: to mount a disk may take long.
        lock = self._limiting.setdefault(name, threading.Lock())
        with lock:
            self._readers[name] += 1
        try:
            with lock:
                backend.ready(self.folder(name))
            yield self.folder(name) / backend.inner / "fs"
        finally:
            with lock:
                self._readers[name] -= 1
            self._rest(name)

    def _rest(self, name: str) -> None:
        """What a back end keeps in use for a layer that nobody uses is given back."""
        backend = self._limited.get(name)
        if backend is None:
            return
        with self._limiting.setdefault(name, threading.Lock()):
            if not self._readers[name] and not mounts.is_mounted(f"{self.folder(name)}/merged"):
                del self._readers[name]
                backend.rest(self.folder(name))

    def upper_path(self, name: str) -> Path:
        """Where the upper folder is, or would be."""
        backend = self._limited.get(name)
        return (self.folder(name) / backend.inner if backend else self.folder(name)) / "fs"

    def _mount_mapped(self, name: str, lower: list[str], upper: Path, ids: IdMap) -> None:
        """An overlay has no owners of its own to map, so those of its layers are: their folder, and the upper layer's, which
        may be another file system's, are shown with other owners for as long as the mount takes."""
        with self._mapping:
            # The runtime goes to the root file system as the namespace's root.
            os.chown(self._home, -1, ids.root[1])
            try:
                for source, place in ((self._layers.root, self._mapped), (upper.parent, self._mapped_upper)):
                    place.mkdir(mode=0o700, exist_ok=True)
                    self._show_mapped(source, place, ids)
                # The overlay makes files in its work folder as whoever mounts it.
                userns.in_thread_as(
                    ids,
                    mounts.mount_overlay,
                    self._mapped,
                    f"{self.folder(name)}/merged",
                    lower,
                    f"{self._mapped_upper}/fs",
                    f"{self._mapped_upper}/work",
                    extra=self._options,
                )
            finally:
                self._hide_mapped()

    @staticmethod
    def _show_mapped(source: Path, place: Path, ids: IdMap) -> None:
        namespace = userns.descriptor(ids)
        try:
            mounts.attach_mapped(source, place, namespace)
        except OSError as error:
            kind = mounts.file_system(source)[1]
            raise NotSupported(
                f"--userns-remap needs ID-mapped mounts, which {kind} at {source} does not offer with this kernel"
                f" ({error.strerror}): use Linux 5.19 or later, and put the data root (--data-root) on ext4, xfs or btrfs"
            ) from error

    def _hide_mapped(self) -> None:
        for place in (self._mapped, self._mapped_upper):
            mounts.unmount(str(place))

    def unmount(self, name: str) -> None:
        """See `StorageDriver.unmount`. What is pending is written to the disk behind the caller's back."""
        # Held for two short calls, so that who mounts it again finds the mount, or the thread to wait for.
        with self._detaching:
            kept = mounts.detach(f"{self.folder(name)}/merged")
            if kept is not None:
                ending = threading.Thread(target=self._end, args=(name, kept), name="overlay-end", daemon=True)
                ending.start()
                self._ending[name] = ending

    def _end(self, name: str, kept: int) -> None:
        os.close(kept)
        self._rest(name)

    def remove(self, name: str) -> Callable[[], None] | None:
        """Unmount it and take it out of its place; gives what is left to do for its files to go."""
        if not _NAME.fullmatch(name):
            return None
        kept = mounts.detach(f"{self.folder(name)}/merged")
        self._parents.pop(name, None)
        self._bare.discard(name)
        ending = self._ending.pop(name, None)
        if (backend := self._limited.get(name)) is not None:
            if ending is not None:
                ending.join(ENDS_WITHIN)
            with self._limiting.setdefault(name, threading.Lock()):
                backend.forget(self.folder(name))
            # Not before: a removal that failed is tried again.
            self._limited.pop(name, None)
            self._limiting.pop(name, None)
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

    def settle(self) -> None:
        """Give back what an earlier daemon kept in use for nobody, and remove what `open` could make nothing of."""
        for name in [*self._limited]:
            self._rest(name)
        for folder in self._unreadable:
            mounts.unmount(f"{folder}/merged")
            shutil.rmtree(folder, ignore_errors=True)

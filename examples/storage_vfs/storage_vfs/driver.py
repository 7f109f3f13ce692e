"""The storage driver "vfs": every layer is a whole tree, every container a copy of one.

    layers/1a2b3c4d/fs         all files of the stack that ends with this layer
                    diff.tar   the layer's own archive, as it came
                    layer.json what it is
    writable/NAME/fs           a container's root file system
                  parent.json  the layer below, and the mount points that were put in
    tmp/                       half-made and half-removed things

A tree is made under tmp/ and renamed: it is there whole or not at all. Nothing is mounted. It is slow and takes space, and
works on any file system; what a driver must do is easiest to read here.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets
import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from plugin_sdk import Conflict, EngineError, InvalidParameter, NotFound
from plugin_sdk.rootfs import copy_tree, root_descriptor
from plugin_sdk.storage import Change, LayerInfo
from plugin_sdk.streams import apart
from storage_vfs import packing, trees, unpacking

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_CHUNK = 1 << 20


class Vfs:
    """Fulfils `plugin_sdk.storage.StorageDriver`. The constructor blocks.

    Short methods are plain functions where the contract has coroutines: the engine runs them in threads of this plugin.
    Those that may wait for a client have a thread each (`apart`).
    """

    def __init__(self, root: Path, log: logging.Logger | None = None) -> None:
        self._root, self._log = root, log or logging.getLogger(__name__)
        self._lock = threading.Lock()
        self._layers: dict[str, tuple[LayerInfo, Path]] = {}
        self._writable: dict[str, str] = {}
        self._pins: Counter[str] = Counter()
        for name in ("layers", "writable", "tmp"):
            (root / name).mkdir(mode=0o711, exist_ok=True)
        self._leftovers = list((root / "tmp").iterdir())
        for folder in (root / "layers").iterdir():
            info = LayerInfo(**json.loads((folder / "layer.json").read_bytes()))
            self._layers[info.chain_id] = (info, folder)
        for folder in (root / "writable").iterdir():
            self._writable[folder.name] = json.loads((folder / "parent.json").read_bytes())["parent"]

    def sweep(self) -> None:
        """Remove what an earlier daemon left under tmp/."""
        for folder in self._leftovers:
            shutil.rmtree(folder, ignore_errors=True)

    # Read-only layers

    async def apply(self, parent: str, diff: BinaryIO, *, expected: str = "") -> LayerInfo:
        """See `StorageDriver.apply`."""
        return await apart(self._apply, parent, diff, expected)

    def _apply(self, parent: str, diff: BinaryIO, expected: str) -> LayerInfo:
        with self._pinned(parent), self._scratch() as building:
            archive = building / "diff.tar"
            digest, size = _spool(diff, archive)
            if expected and digest != expected:
                raise InvalidParameter(f"the layer's digest is {digest}, not {expected} as it should be")
            chain = _chain_id(parent, digest)
            with self._lock:
                if chain in self._layers:
                    return self._layers[chain][0]
            self._copy(self._tree(parent), building / "fs")
            with _plain_words("the layer"):
                held = unpacking.unpack(archive, building / "fs")
            info = LayerInfo(chain, digest, parent, held, size)
            (building / "layer.json").write_text(json.dumps(asdict(info)))
            with self._lock:
                if chain in self._layers:
                    return self._layers[chain][0]
                home = self._root / "layers" / secrets.token_hex(8)
                building.rename(home)
                self._layers[chain] = (info, home)
            return info

    def layer(self, chain_id: str) -> LayerInfo:
        """See `StorageDriver.layer`."""
        return self._known(chain_id)[0]

    def layers(self) -> Sequence[LayerInfo]:
        """See `StorageDriver.layers`."""
        with self._lock:
            return [info for info, _ in self._layers.values()]

    def remove_layer(self, chain_id: str) -> None:
        """See `StorageDriver.remove_layer`."""
        with self._lock:
            if chain_id not in self._layers:
                return
            users = [info.chain_id for info, _ in self._layers.values() if info.parent == chain_id]
            users += [f"container {name}" for name, parent in self._writable.items() if parent == chain_id]
            if users or self._pins[chain_id]:
                raise Conflict(
                    f"layer {chain_id} is in use by {users[0] if users else 'an operation that is going on'}"
                )
            _, home = self._layers.pop(chain_id)
            doomed = self._doom(home)
        shutil.rmtree(doomed, ignore_errors=True)

    # Writable layers

    def create(self, name: str, parent: str, *, options: dict[str, str] | None = None, bare: bool = False) -> None:
        """See `StorageDriver.create`. There are no options."""
        for option in options or {}:
            raise InvalidParameter(f"--storage-opt {option}: unknown option for vfs")
        if not _NAME.fullmatch(name):
            raise InvalidParameter(f"{name!r} cannot be the name of a writable layer")
        if name in self._writable:
            raise Conflict(f"writable layer {name} already exists")
        with self._pinned(parent), self._scratch() as building:
            self._copy(self._tree(parent), building / "fs")
            made = [] if bare else trees.add_mount_points(building / "fs")
            (building / "parent.json").write_text(json.dumps({"parent": parent, "made": made}))
            with self._lock:
                if name in self._writable:
                    raise Conflict(f"writable layer {name} already exists")
                building.rename(self._root / "writable" / name)
                self._writable[name] = parent

    def writable(self) -> dict[str, str]:
        """See `StorageDriver.writable`."""
        with self._lock:
            return dict(self._writable)

    def mount(self, name: str) -> Path:
        """See `StorageDriver.mount`: the tree itself is the root file system."""
        return self._home(name) / "fs"

    def unmount(self, name: str) -> None:
        """See `StorageDriver.unmount`: there is nothing to undo."""

    def remove(self, name: str) -> None:
        """See `StorageDriver.remove`."""
        with self._lock:
            if self._writable.pop(name, None) is None:
                return
            doomed = self._doom(self._root / "writable" / name)
        shutil.rmtree(doomed, ignore_errors=True)

    # What was changed

    async def diff(self, name: str, out: BinaryIO) -> None:
        """See `StorageDriver.diff`."""
        await apart(self._diff, name, out)

    def _diff(self, name: str, out: BinaryIO) -> None:
        with _plain_words(name):
            if name in self._writable:
                packing.pack(self._upper(name), self._differences(name), out)
                return
            with self._pinned(name), (self._known(name)[1] / "diff.tar").open("rb") as archive:
                shutil.copyfileobj(archive, out, _CHUNK)

    async def commit(self, name: str) -> LayerInfo:
        """See `StorageDriver.commit`."""
        return await apart(self._commit, name)

    def _commit(self, name: str) -> LayerInfo:
        self._home(name)
        with self._scratch() as folder, (folder / "diff.tar").open("w+b") as archive:
            self._diff(name, archive)
            archive.seek(0)
            return self._apply(self._writable[name], archive, "")

    async def changes(self, name: str) -> list[Change]:
        """See `StorageDriver.changes`."""
        return trees.as_changes(await apart(self._differences, name))

    async def usage(self, name: str) -> int:
        """See `StorageDriver.usage`: the files that were added or changed."""
        differences = await apart(self._differences, name)
        return sum(each.size for each in differences)

    def _differences(self, name: str) -> list[trees.Difference]:
        home = self._home(name)
        made = json.loads((home / "parent.json").read_bytes())["made"]
        with _plain_words(name), self._pinned(self._writable.get(name, "")):
            return trees.compare(self._tree(self._writable.get(name, "")), home / "fs", set(made))

    # For people

    def metadata(self, name: str) -> dict[str, str]:
        """See `StorageDriver.metadata`."""
        folder = self._home(name) if name in self._writable else self._known(name)[1]
        return {"Dir": str(folder / "fs")}

    def status(self) -> list[tuple[str, str]]:
        """See `StorageDriver.status`."""
        return [("Layers", str(len(self._layers))), ("Copy on write", "false")]

    # Folders

    def _known(self, chain_id: str) -> tuple[LayerInfo, Path]:
        found = self._layers.get(chain_id)
        if found is None:
            raise NotFound(f"layer {chain_id or '(none)'} does not exist")
        return found

    def _home(self, name: str) -> Path:
        if name not in self._writable:
            raise NotFound(f"writable layer {name} does not exist")
        return self._root / "writable" / name

    def _upper(self, name: str) -> Path:
        return self._home(name) / "fs"

    def _tree(self, chain_id: str) -> Path | None:
        return self._known(chain_id)[1] / "fs" if chain_id else None

    @contextmanager
    def _pinned(self, chain_id: str) -> Iterator[None]:
        """Nobody removes the layer meanwhile. Raises NotFound."""
        with self._lock:
            if chain_id:
                self._known(chain_id)
            self._pins[chain_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._pins[chain_id] -= 1

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        folder = self._root / "tmp" / secrets.token_hex(8)
        folder.mkdir(mode=0o711)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _doom(self, home: Path) -> Path:
        doomed = self._root / "tmp" / f"gone-{secrets.token_hex(8)}"
        home.rename(doomed)
        return doomed

    @staticmethod
    def _copy(source: Path | None, target: Path) -> None:
        target.mkdir(mode=0o755)
        if source is not None:
            with root_descriptor(source) as old, root_descriptor(target) as new:
                copy_tree(old, new)


def _spool(diff: BinaryIO, target: Path) -> tuple[str, int]:
    """Keep an archive as it comes; gives its digest and its size."""
    digest, size = hashlib.sha256(), 0
    with target.open("wb") as file:
        while data := diff.read(_CHUNK):
            digest.update(data)
            file.write(data)
            size += len(data)
    return f"sha256:{digest.hexdigest()}", size


def _chain_id(parent: str, diff_id: str) -> str:
    """Source: OCI image spec, "Layer ChainID"."""
    return "sha256:" + hashlib.sha256(f"{parent} {diff_id}".encode()).hexdigest() if parent else diff_id


@contextmanager
def _plain_words(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EngineError(f"vfs: {what}: {error.filename or ''} {error.strerror or error}") from error

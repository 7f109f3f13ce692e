"""Read-only layers on disk. Blocking; safe to call from several threads.

    layers/ab12cd34/fs         the tree, a lower folder of overlays
                    kept/      what later members of its archive replaced, if any
                    init/      mount points that containers need and this stack lacks, made at the first use
                    journal    what it takes to rebuild the archive
                    layer.json what it is
    tmp/                       half-made and half-removed things; emptied at start

A layer is built under tmp/ and renamed: it is there whole or not at all. That its content has reached the disk is not
waited for: it is seen to a while later (`Layers.settle`), and a layer that a power cut may have caught before is compared
with its digest at the next start (`Layers.verify`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from plugin_sdk import Conflict, EngineError, InvalidParameter, NotFound
from plugin_sdk.files import write_atomic
from plugin_sdk.storage import LayerInfo

from . import journal, mounts
from .extract import Extractor
from .journal import Writer
from .source import Reader, Source, SourceFailed
from .stack import Stack

if TYPE_CHECKING:
    from collections.abc import Iterator

_META = "layer.json"


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer as kept.

    Attributes:
        folder: name below layers/.
        boot: ID of the machine's boot in which it was made; "" once it is known to be on the disk.
        kept: as in `extract.Extracted`, paths as latin-1 text.
    """

    folder: str
    chain_id: str
    diff_id: str
    parent: str
    size: int
    tar_size: int
    boot: str = ""
    kept: list[tuple[int, str, str]] = field(default_factory=list)

    @property
    def info(self) -> LayerInfo:
        """As the contract has it."""
        return LayerInfo(self.chain_id, self.diff_id, self.parent, self.size, self.tar_size)


def chain_id(parent: str, diff_id: str) -> str:
    """Source: OCI image spec, "Layer ChainID"."""
    return "sha256:" + hashlib.sha256(f"{parent} {diff_id}".encode()).hexdigest() if parent else diff_id


class Layers:
    """All layers below one folder."""

    def __init__(self, root: Path, log: logging.Logger) -> None:
        self.root = root
        self._log = log
        self._lock = threading.Lock()
        self._layers: dict[str, Layer] = {}
        self._pins: Counter[str] = Counter()
        self._leftovers: list[Path] = []
        self._boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()

    def open(self) -> None:
        """Make the folders, drop what was half done, learn what is there. One unreadable layer is passed over."""
        for name in ("layers", "tmp"):
            (self.root / name).mkdir(mode=0o700, exist_ok=True)
        self._leftovers = list((self.root / "tmp").iterdir())
        for folder in (self.root / "layers").iterdir():
            try:
                found = Layer(**json.loads((folder / _META).read_bytes()))
                if found.folder != folder.name:
                    raise ValueError(f"it says that it is {found.folder}")
                self._layers[found.chain_id] = found
            except (OSError, ValueError, TypeError) as error:
                self._log.error("layer in %s is unreadable and left out: %s", folder, error)

    def get(self, chain: str) -> Layer:
        """Raises NotFound."""
        found = self._layers.get(chain)
        if found is None:
            raise NotFound(f"layer {chain or '(none)'} does not exist")
        return found

    def all(self) -> list[Layer]:
        """A snapshot."""
        return list(self._layers.values())

    def path(self, layer: Layer) -> Path:
        """Its folder."""
        return self.root / "layers" / layer.folder

    def stack(self, chain: str) -> list[Layer]:
        """The layers of a chain, the uppermost first. Raises NotFound, naming the missing one."""
        found: list[Layer] = []
        while chain:
            found.append(self.get(chain))
            chain = found[-1].parent
        return found

    def view(self, chain: str) -> Stack:
        """The merged view of a chain."""
        return Stack([f"{self.path(layer)}/fs" for layer in self.stack(chain)])

    @contextmanager
    def pinned(self, chain: str) -> Iterator[None]:
        """Keep a chain from being removed. Raises NotFound."""
        with self._lock:
            if chain:
                self.get(chain)
            self._pins[chain] += 1
        try:
            yield
        finally:
            with self._lock:
                self._pins[chain] -= 1
                if not self._pins[chain]:
                    del self._pins[chain]

    def apply(self, parent: str, diff: Reader, expected: str, cancelled: threading.Event) -> Layer:
        """See `StorageDriver.apply`. Gives up soon after `cancelled` is set."""
        with self.pinned(parent), self.scratch() as building:
            (building / "fs").mkdir(mode=0o755)
            source = Source(_Cancellable(diff, cancelled))
            try:
                made = self._unpack(building, parent, source)
            except SourceFailed as failure:
                assert failure.__cause__ is not None
                raise failure.__cause__ from None
            finally:
                source.close()
            if expected and made.diff_id != expected:
                raise InvalidParameter(
                    f"the layer's content has the digest {made.diff_id}, not {expected} as it should"
                )
            if cancelled.is_set():
                raise EngineError("cancelled")
            return self._install(building, made)

    def _unpack(self, building: Path, parent: str, source: Source) -> Layer:
        writer = journal.JournalWriter(building / "journal")
        root = os.open(building / "fs", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            extracted = Extractor(root, f"{building}/kept", self.view(parent), source, writer).run()
        finally:
            os.close(root)
            writer.close()
        diff_id = source.digest()
        kept = [(number, path.decode("latin-1"), name) for number, path, name in extracted.kept]
        chain = chain_id(parent, diff_id)
        return Layer(secrets.token_hex(4), chain, diff_id, parent, extracted.size, source.size, self._boot, kept)

    def _install(self, building: Path, made: Layer) -> Layer:
        (building / _META).write_bytes(json.dumps(asdict(made)).encode())
        with self._lock:
            existing = self._layers.get(made.chain_id)
            if existing is not None:
                return existing
            os.rename(building, self.path(made))
            self._layers[made.chain_id] = made
        return made

    def remove(self, chain: str, users: Callable[[str], str]) -> None:
        """Remove a layer.

        Args:
            users: says what else lies on a chain, or "".

        Raises:
            Conflict: something lies on it.
        """
        with self._lock:
            layer = self._layers.get(chain)
            if layer is None:
                return
            child = next((other.chain_id for other in self._layers.values() if other.parent == chain), "")
            user = f"layer {child}" if child else users(chain)
            if user or self._pins[chain] > 0:
                raise Conflict(f"layer {chain} is in use by {user or 'an operation that is going on'}")
            del self._layers[chain]
            doomed = self.doom(self.path(layer))
        self.bury(doomed)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder to build something in; what is still there afterwards is removed."""
        folder = self.root / "tmp" / secrets.token_hex(8)
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            if folder.exists():
                shutil.rmtree(folder, ignore_errors=True)

    def doom(self, path: Path) -> Path:
        """Take a tree out of its place at once; `bury` removes it."""
        doomed = self.root / "tmp" / f"gone-{secrets.token_hex(8)}"
        os.rename(path, doomed)
        return doomed

    def bury(self, doomed: Path) -> None:
        """Remove a doomed tree."""
        shutil.rmtree(doomed, onerror=lambda _, path, info: self._log.warning("cannot remove %s: %s", path, info[1]))

    def clear_leftovers(self, forget: Callable[[Path], None]) -> None:
        """Remove what an earlier daemon left half made or half removed; `forget` is called for each folder first."""
        for folder in self._leftovers:
            for point in ("merged", "disk"):
                mounts.unmount(f"{folder}/{point}")
            try:
                forget(folder)
            except (OSError, EngineError) as error:
                self._log.warning("what limits %s cannot be given back: %s", folder, error)
            shutil.rmtree(folder, ignore_errors=True)

    def rebuild(self, layer: Layer, out: Writer) -> None:
        """Write the layer's archive, byte for byte. Raises EngineError when it is damaged."""
        home = self.path(layer)
        tree = os.open(home / "fs", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        kept = [(number, path.encode("latin-1"), name) for number, path, name in layer.kept]

        def opened(number: int, path: bytes) -> int:
            for limit, replaced, name in kept:
                if number < limit and (path == replaced or path.startswith(replaced + b"/")):
                    return os.open(os.fsencode(home / "kept" / name) + path[len(replaced) :], _FILE)
            return os.open(path, _FILE, dir_fd=tree)

        try:
            journal.replay(home / "journal", opened, out)
        except OSError as error:
            if error.filename is None:
                raise
            raise EngineError(f"layer {layer.chain_id} is damaged: {error}") from error
        finally:
            os.close(tree)

    def settle(self) -> None:
        """See to it that all layers are on the disk, and note it."""
        fresh = [layer for layer in self.all() if layer.boot == self._boot]
        if fresh:
            mounts.sync_file_system(self.root)
            for layer in fresh:
                self._settled(layer)

    def verify(self) -> None:
        """Settle the layers that were made in an earlier boot of the machine.

        They may have been cut off by a power failure: those not yet known to be on the disk are rebuilt and compared
        with their digest. A damaged one is moved away, with all that lies on it, and reported.
        """
        for layer in [layer for layer in self.all() if layer.boot not in ("", self._boot)]:
            if layer.chain_id in self._layers and not self._sound(layer):
                self._log.error("layer %s was damaged by a crash of the machine and is removed", layer.chain_id)
                self._remove_with_children(layer)
            else:
                self._settled(layer)

    def _sound(self, layer: Layer) -> bool:
        digest = _Digest()
        try:
            self.rebuild(layer, digest)
        except (OSError, EngineError):
            return False
        return digest.value() == layer.diff_id

    def _remove_with_children(self, layer: Layer) -> None:
        with self._lock:
            doomed = [layer]
            for parent in doomed:
                doomed += [other for other in self._layers.values() if other.parent == parent.chain_id]
            for each in doomed:
                self._layers.pop(each.chain_id, None)
            gone = [self.doom(self.path(each)) for each in doomed]
        for folder in gone:
            self.bury(folder)

    def _settled(self, layer: Layer) -> None:
        known = replace(layer, boot="")
        with self._lock:
            if layer.chain_id in self._layers:
                write_atomic(self.path(layer) / _META, json.dumps(asdict(known)).encode())
                self._layers[layer.chain_id] = known


_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class _Cancellable:
    def __init__(self, stream: Reader, cancelled: threading.Event) -> None:
        self._stream, self._cancelled = stream, cancelled

    def read(self, size: int) -> bytes:
        if self._cancelled.is_set():
            raise EngineError("cancelled")
        return self._stream.read(size)


class _Digest:
    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def write(self, data: memoryview) -> int:
        self._hash.update(data)
        return len(data)

    def value(self) -> str:
        return "sha256:" + self._hash.hexdigest()

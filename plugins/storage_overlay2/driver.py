"""The storage driver "overlay2": what the contract asks for, on threads."""

from __future__ import annotations

import asyncio
import errno
import logging
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, ParamSpec, TypeVar

from plugin_sdk import EngineError, IdMap, InvalidParameter, NotFound, NotSupported, Unavailable
from plugin_sdk.aio import blocking
from plugin_sdk.storage import Change, LayerInfo
from plugin_sdk.streams import Inlet, apart

from . import changes, mounts
from .layers import Layers
from .quota import Quotas
from .quota.choice import size_of
from .tarwrite import TreeWriter
from .writable import Writables

P = ParamSpec("P")
T = TypeVar("T")
Spawn = Callable[[Coroutine[Any, Any, Any], str], object]

SETTLE_AFTER = 20.0
"""Seconds after the last new layer at which layers are written out."""


class Overlay2:
    """Fulfils `StorageDriver`.

    Args:
        root: folder for all of it.
        size: bytes that a container may write unless it says otherwise; 0: no limit.
        spawn: runs a coroutine in the background.
    """

    def __init__(self, root: Path, log: logging.Logger, spawn: Spawn, *, size: int = 0) -> None:
        self._root = root
        self._spawn = spawn
        self._layers = Layers(root, log)
        self._quotas = Quotas(root)
        self._writables = Writables(self._layers, self._quotas, log)
        self._size = size
        self._backing = ""
        self._settling = False

    def open(self) -> None:
        """Check the backing file system and learn what is there. Blocking. Raises EngineError with the reason."""
        self._backing = mounts.probe(self._root)
        self._layers.open()
        self._writables.open()
        self._quotas.open()
        if self._size:
            try:
                self._quotas.fit(self._size)
            except NotSupported as error:
                # A wrong setting stops the daemon; otherwise it would go on without this driver.
                raise InvalidParameter(str(error)) from None

    async def recover(self) -> None:
        """Remove what a crash left half done, and check the layers that one of the machine may have caught."""
        await apart(self._layers.clear_leftovers, self._quotas.forget)
        await apart(self._layers.verify)
        await apart(self._writables.settle)

    async def apply(self, parent: str, diff: BinaryIO, *, expected: str = "") -> LayerInfo:
        """See `StorageDriver`."""
        cancelled = threading.Event()
        work = asyncio.ensure_future(apart(_clear, self._layers.apply, parent, diff, expected, cancelled))
        try:
            layer = await asyncio.shield(work)
        except asyncio.CancelledError:
            cancelled.set()
            await asyncio.wait([work], timeout=10.0)
            raise
        if not self._settling:
            self._settling = True
            self._spawn(self._settle(), "write layers out")
        return layer.info

    async def _settle(self) -> None:
        await asyncio.sleep(SETTLE_AFTER)
        self._settling = False
        await apart(self._layers.settle)

    def layer(self, chain_id: str) -> LayerInfo:
        """See `StorageDriver`."""
        return self._layers.get(chain_id).info

    def layers(self) -> Sequence[LayerInfo]:
        """See `StorageDriver`."""
        return [layer.info for layer in self._layers.all()]

    async def remove_layer(self, chain_id: str) -> None:
        """See `StorageDriver`."""
        await apart(_clear, self._layers.remove, chain_id, self._writables.user)

    async def create(
        self, name: str, parent: str, *, options: dict[str, str] | None = None, bare: bool = False
    ) -> None:
        """See `StorageDriver`. The option `size` limits what it can hold: 10G; 0 for no limit."""
        size = 0 if bare else self._limit(options or {})
        if size:
            # It may make a file system: not for the threads of short work.
            await apart(_clear, self._writables.create, name, parent, size=size, bare=bare)
        else:
            await blocking(_clear, self._writables.create, name, parent, bare=bare)

    def _limit(self, options: Mapping[str, str]) -> int:
        size = self._size
        for option, value in options.items():
            if option.lower() != "size":
                raise InvalidParameter(f"Unknown option {option}")
            size = size_of(value)
        return size

    def writable(self) -> dict[str, str]:
        """See `StorageDriver`."""
        return self._writables.parents()

    async def mount(self, name: str, *, ids: IdMap | None = None) -> Path:
        """See `StorageDriver`."""
        return await blocking(_clear, self._writables.mount, name, ids)

    async def unmount(self, name: str) -> None:
        """See `StorageDriver`."""
        await blocking(_clear, self._writables.unmount, name)

    async def remove(self, name: str) -> None:
        """See `StorageDriver`. The files go in the background."""
        finish = await blocking(_clear, self._writables.remove, name)
        if finish is not None:
            self._spawn(apart(finish), f"remove files of {name}")

    async def diff(self, name: str, out: BinaryIO) -> None:
        """See `StorageDriver`."""
        await apart(_clear, self._diff, name, out)

    def _diff(self, name: str, out: BinaryIO) -> None:
        if name in self._writables.parents():
            with self._writables.upper(name) as upper:
                TreeWriter(out).write(f"{upper}")
        else:
            with self._layers.pinned(name):
                self._layers.rebuild(self._layers.get(name), out)

    async def commit(self, name: str) -> LayerInfo:
        """See `StorageDriver`."""
        parent = self._writables.parent(name)
        pipe = Inlet()
        # A plain thread ends the pipe in every case, so neither side can wait for ever.
        threading.Thread(target=self._feed, args=(name, pipe), name="commit", daemon=True).start()
        try:
            return await self.apply(parent, pipe)  # type: ignore[arg-type]
        finally:
            pipe.close()

    def _feed(self, name: str, pipe: Inlet) -> None:
        try:
            with self._writables.upper(name) as upper:
                TreeWriter(_Fill(pipe)).write(f"{upper}")
            pipe.end()
        except BaseException as error:  # noqa: BLE001 - raised by the reading side
            pipe.fail(error)

    async def changes(self, name: str) -> list[Change]:
        """See `StorageDriver`."""
        return await apart(_clear, self._changes, name)

    def _changes(self, name: str) -> list[Change]:
        with self._writables.upper(name) as upper:
            return changes.changes(f"{upper}", self._writables.below(name))

    async def usage(self, name: str) -> int:
        """See `StorageDriver`."""
        return await apart(_clear, self._usage, name)

    def _usage(self, name: str) -> int:
        with self._writables.upper(name) as upper:
            return changes.usage(f"{upper}")

    def metadata(self, name: str) -> dict[str, str]:
        """See `StorageDriver`."""
        if name in self._writables.parents():
            home, upper = self._writables.folder(name), self._writables.upper_path(name)
            return {
                "LowerDir": ":".join(str(path) for path in self._writables.lower(name)),
                "MergedDir": f"{home}/merged",
                "UpperDir": f"{upper}",
                "WorkDir": f"{upper.parent}/work",
            }
        top, *rest = [f"{self._layers.path(layer)}/fs" for layer in self._layers.stack(name)]
        return {"UpperDir": top} | ({"LowerDir": ":".join(rest)} if rest else {})

    def status(self) -> list[tuple[str, str]]:
        """See `StorageDriver`."""
        return [
            ("Backing Filesystem", self._backing),
            ("Supports d_type", "true"),
            ("Using metacopy", "false"),
            ("Native Overlay Diff", "true"),
            ("userxattr", "false"),
            ("Size limits", self._quotas.chosen),
        ]


class _Fill:
    """The writing end of an inlet, as a file."""

    def __init__(self, inlet: Inlet) -> None:
        self._inlet = inlet

    def write(self, data: memoryview) -> int:
        self._inlet.put(bytes(data))
        return len(data)


def _clear(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call; what this machine or the other end of a stream is to blame for becomes an EngineError in plain words."""
    with _plain_words():
        return function(*args, **kwargs)


@contextmanager
def _plain_words() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"storage: {error.filename or error} is gone") from error
    except ConnectionError as error:
        raise Unavailable(f"the other end of the stream has gone: {error}") from error
    except OSError as error:
        hint = "; free some space under the data root" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise EngineError(f"storage: {error}{hint}") from error
    except RecursionError as error:
        raise EngineError("storage: folders are nested too deeply") from error

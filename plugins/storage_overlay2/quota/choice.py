"""Which back end limits writable layers, and which one limits a given layer."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from plugin_sdk import InvalidParameter, NotSupported
from plugin_sdk.files import parse_size

from ..mounts import file_system
from .backend import QuotaBackend
from .btrfs import BtrfsQuota
from .image import DiskImage
from .project import ProjectQuota

MARK = "limit"
"""In a limited layer's folder: a symbolic link whose text is "SIZE BACKEND"."""


class Quotas:
    """The back ends in the order of preference: the file system's own counting before a file system within."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._backends: list[QuotaBackend] = [ProjectQuota(), BtrfsQuota(), DiskImage()]
        self._chosen: QuotaBackend | None = None

    def open(self) -> None:
        """Choose, so that info can tell. Blocking."""
        with suppress(NotSupported):
            self.choose()

    def choose(self) -> QuotaBackend:
        """The one for new layers. Blocking. Raises NotSupported with each one's reason."""
        if self._chosen is None:
            reasons = []
            for backend in self._backends:
                reason = backend.available(self._root)
                if not reason:
                    self._chosen = backend
                    break
                reasons.append(reason)
        if self._chosen is None:
            raise NotSupported(
                f"--storage-opt size: the size of containers cannot be limited on {file_system(self._root)[1]} here"
                f" ({'; '.join(reasons)}); mend one of them, or leave the option out"
            )
        return self._chosen

    def fit(self, size: int) -> QuotaBackend:
        """The one for a new layer of this size. Raises NotSupported, InvalidParameter for a size that is too small."""
        backend = self.choose()
        if size < backend.least:
            raise InvalidParameter(f"--storage-opt size: with a {backend.name} the least is {backend.least >> 20} MiB")
        return backend

    @property
    def chosen(self) -> str:
        """Name of the back end, "none" where no one is possible."""
        return self._chosen.name if self._chosen else "none"

    def forget(self, home: Path) -> None:
        """Give back what the limit of a layer, whole or half made, holds. Raises OSError, EngineError."""
        backend = self.of(home)
        if backend is not None:
            backend.forget(home)

    def of(self, home: Path) -> QuotaBackend | None:
        """The one that limits a layer. Raises NotSupported for one that this engine does not know."""
        try:
            _, _, name = os.readlink(home / MARK).partition(" ")
        except OSError:
            return None
        for backend in self._backends:
            if backend.name == name:
                return backend
        raise NotSupported(f"the size of {home.name} is limited by {name!r}, which this engine does not know")


def mark(home: Path, backend: QuotaBackend, size: int) -> None:
    """Note how a layer is limited."""
    os.symlink(f"{size} {backend.name}", home / MARK)


def size_of(text: str) -> int:
    """Bytes of `--storage-opt size=TEXT`; 0 lifts the default. Raises InvalidParameter."""
    try:
        return parse_size(text)
    except InvalidParameter:
        raise InvalidParameter(
            f"invalid size: '{text}'; want a number with an optional unit, for example 10G"
        ) from None

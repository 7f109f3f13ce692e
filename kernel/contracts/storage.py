"""Storage drivers: image layers by chain ID, writable layers by name.

A chain ID names a stack of layers (OCI image spec, "Layer ChainID"): that of the lowest layer is its diff ID; above,
sha256(parent chain ID + " " + diff ID).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO, Protocol

from kernel.contracts.common import IdMap, deadline


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """One read-only layer.

    Attributes:
        chain_id: of the stack that ends with this layer.
        diff_id: digest of its uncompressed tar.
        parent: chain ID below, "" for the lowest.
        size: bytes of the files in this layer alone.
        tar_size: bytes of its uncompressed tar, 0 when the driver does not know before it writes one.
    """

    chain_id: str
    diff_id: str
    parent: str
    size: int
    tar_size: int = 0


class ChangeKind(IntEnum):
    """As in `GET /containers/ID/changes`."""

    MODIFIED = 0
    ADDED = 1
    DELETED = 2


@dataclass(frozen=True, slots=True)
class Change:
    """One path (absolute, within the root file system) that differs from the layer below."""

    path: str
    kind: ChangeKind


class StorageDriver(Protocol):
    """Keeps layers and mounts their stacks. Blocking work belongs in threads; all calls may come concurrently.

    Every call survives a kill -9 in the middle: a layer is there whole or not at all.
    """

    @deadline(3600.0)
    async def apply(self, parent: str, diff: BinaryIO, *, expected: str = "") -> LayerInfo:
        """Make a layer from an uncompressed tar with OCI whiteouts; an existing one is fine.

        Args:
            parent: chain ID below, "" for none.
            diff: read in a worker thread, to its end.
            expected: diff ID that it must have.

        Raises:
            InvalidParameter: not a tar, unsafe paths, or another diff ID than expected; nothing is left behind.
            NotFound: no such parent.
        """

    def layer(self, chain_id: str) -> LayerInfo:
        """Raises NotFound."""

    def layers(self) -> Sequence[LayerInfo]:
        """All read-only layers."""

    async def remove_layer(self, chain_id: str) -> None:
        """Raises Conflict while another layer lies on it; removing what is not there is fine."""

    async def create(
        self, name: str, parent: str, *, options: dict[str, str] | None = None, bare: bool = False
    ) -> None:
        """Make a writable layer on a stack.

        Args:
            options: `--storage-opt`, for example {"size": "10G"}.
            bare: nothing is to be seen in it but the stack's own files, not even mount points that containers need.

        Raises Conflict when the name is taken, InvalidParameter or NotSupported for options.
        """

    def writable(self) -> dict[str, str]:
        """Names of all writable layers to their parents' chain IDs."""

    async def mount(self, name: str, *, ids: IdMap | None = None) -> Path:
        """Mount a writable layer; a mounted one is fine. Gives the root file system's path.

        Args:
            ids: the mount shows the files as a user namespace's, whose ID 0 owns what the layers have as 0. Only given
                where there is such a namespace, so a driver without this may leave the parameter out.

        Raises NotSupported when the file system below cannot do that.
        """

    async def unmount(self, name: str) -> None:
        """Undo; what is not mounted is fine. A busy mount is detached lazily."""

    async def remove(self, name: str) -> None:
        """Remove a writable layer, unmounting it first; removing what is not there is fine."""

    @deadline(3600.0)
    async def diff(self, name: str, out: BinaryIO) -> None:
        """Write a writable layer (or, by chain ID, a read-only one) as an uncompressed tar, in a worker thread.

        A read-only layer gives back the very bytes of its diff ID where the driver kept what that takes;
        otherwise a tar of the same content.
        """

    @deadline(3600.0)
    async def commit(self, name: str) -> LayerInfo:
        """Make a read-only layer of what a writable layer holds now."""

    @deadline(3600.0)
    async def changes(self, name: str) -> list[Change]:
        """What a writable layer changed, sorted by path."""

    @deadline(3600.0)
    async def usage(self, name: str) -> int:
        """Bytes that the writable layer holds."""

    def metadata(self, name: str) -> dict[str, str]:
        """`GraphDriver.Data` of inspect, for a writable layer's name or a chain ID."""

    def status(self) -> list[tuple[str, str]]:
        """`DriverStatus` of info."""


class Storage(Protocol):
    """Service: which storage driver is meant.

    Attributes:
        default: name of the driver for new images and containers (`--storage-driver`).
    """

    default: str

    def driver(self, name: str = "") -> StorageDriver:
        """The driver of that name, or the default one. Raises NotFound."""

"""Images and the service that owns them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO, Protocol

from kernel.contracts.common import Wire
from kernel.contracts.container_config import ContainerConfig


class HistoryStep(Wire):
    """One step of an image's making (OCI image config, `history`)."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class Image(Wire):
    """An image as stored.

    Attributes:
        Id: "sha256:..." digest of `Raw`.
        Raw: the OCI/Docker image config document, byte for byte.
        DiffIDs: of its layers, the lowest first; digests of the uncompressed tars.
        ChainID: of the top layer, "" without layers.
        Tags: "name:tag" references that point here, sorted.
        Digests: "name@sha256:..." references.
        Size: bytes of all layers.
        Parent: image that a commit or build came from, or "".
    """

    Id: str
    Raw: str
    Created: str = ""
    Author: str = ""
    Architecture: str = ""
    Variant: str = ""
    Os: str = "linux"
    Config: ContainerConfig
    History: list[HistoryStep] = []
    DiffIDs: list[str] = []
    ChainID: str = ""
    Tags: list[str] = []
    Digests: list[str] = []
    Size: int = 0
    Parent: str = ""
    Comment: str = ""
    DockerVersion: str = ""
    LastTagTime: str = ""


class ImageStore(Protocol):
    """Service: the images. `ref` is a reference, an ID ("sha256:..." or hex), or a unique prefix of an ID."""

    def get(self, ref: str) -> Image:
        """Raises NotFound ("No such image: REF") or InvalidParameter ("invalid reference format")."""

    def list(self) -> Sequence[Image]:
        """All, newest first; a snapshot."""

    async def add(self, config: dict[str, Any], layers: Sequence[str], *, parent: str = "") -> Image:
        """Store an image whose layers (diff IDs, the lowest first) the storage driver already has.

        `config` is the image config document; its rootfs is filled in. Adding an existing image gives the old one.
        """

    async def import_layer(self, parent: str, diff: BinaryIO) -> str:
        """Apply a layer, plain or compressed, on the parent chain ID ("" for none); gives its diff ID."""

    async def tag(self, ref: str, name: str) -> None:
        """Point `name` ("repo" means "repo:latest") at the image. Raises InvalidParameter for a bad reference."""

    async def untag(self, name: str) -> None:
        """Drop one reference; the image stays."""

    async def remove(self, ref: str, *, force: bool = False, prune: bool = True) -> Sequence[dict[str, str]]:
        """Untag, and delete with the last tag: [{"Untagged": ...}, {"Deleted": ...}]. Raises Conflict while in use."""

"""Registries: repositories of manifests and blobs, by the OCI distribution protocol."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from kernel.contracts.common import Wire, deadline
from kernel.errors import InvalidParameter

if TYPE_CHECKING:
    from kernel.reference import Reference

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
MANIFEST_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
PLUGIN_CONFIG = "application/vnd.docker.plugin.v1+json"
LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"

MANIFEST_LIMIT = 4 << 20
"""Bytes of a manifest that are accepted."""

RepositoryKind = Literal["image", "plugin"]


class Credentials(Wire):
    """What a client sends in `X-Registry-Auth`; all empty: anonymous."""

    username: str = ""
    password: str = ""
    auth: str = ""
    serveraddress: str = ""
    identitytoken: str = ""
    registrytoken: str = ""

    @classmethod
    def decode(cls, header: str | None) -> Credentials:
        """From the header: base64url of JSON, padded or not; empty means anonymous. Raises InvalidParameter."""
        if not header:
            return cls()
        try:
            raw = base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))
            return cls.model_validate(json.loads(raw) or {})
        except (binascii.Error, ValueError) as error:
            raise InvalidParameter(f"invalid X-Registry-Auth header: {error}") from None


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or an index, byte for byte.

    Attributes:
        digest: "sha256:..." of `raw`.
    """

    digest: str
    media_type: str
    raw: bytes

    def document(self) -> dict[str, Any]:
        """Decoded. Raises InvalidParameter when it is no JSON object."""
        try:
            document = json.loads(self.raw)
        except (ValueError, RecursionError) as error:
            raise InvalidParameter(f"manifest {self.digest} is not JSON: {error}") from None
        if not isinstance(document, dict):
            raise InvalidParameter(f"manifest {self.digest} is no JSON object")
        return document


class Repository(Protocol):
    """One repository of a registry, with the client's credentials.

    Raises, everywhere: NotFound (no such repository, manifest or blob; a pull that is denied, since registries do not
    tell which), Unauthorized, Forbidden (a push that is denied), Unavailable (cannot be reached, or is too busy;
    DeadlineExceeded included), TooLarge, NotSupported, InvalidParameter (content that does not match its digest, a bad
    answer, a digest other than sha256 and sha512). All messages name the registry and what was asked for.
    """

    async def manifest(self, reference: str, accept: Sequence[str] = ()) -> Manifest:
        """By tag or digest; `accept` are media types, all four known ones by default. A digest is verified. Raises
        TooLarge above MANIFEST_LIMIT bytes, and InvalidParameter when it is of another media type than it says."""

    def blob(self, digest: str, size: int | None = None) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """A blob's bytes. The last step of the iteration raises InvalidParameter when they do not match the digest.
        A broken connection is taken up where it broke (Range), a few times.

        Args:
            size: bytes that it must have; give it whenever a descriptor says it, since without it a hostile registry can
                send for ever: one byte more or less raises InvalidParameter.
        """

    async def blob_size(self, digest: str) -> int | None:
        """Bytes of a blob that the repository has; None when it does not."""

    @deadline(3600.0)
    async def put_blob(self, chunks: AsyncIterator[bytes]) -> tuple[str, int]:
        """Upload; gives digest and size, which are found out on the way."""

    async def mount_blob(self, digest: str, source: Reference) -> bool:
        """Have the registry take a blob over from another of its repositories, without sending it. False: it does not;
        upload it then."""

    async def put_manifest(self, reference: str, media_type: str, raw: bytes) -> str:
        """By tag or digest; gives the digest."""

    async def close(self) -> None:
        """Let go of connections."""


class Registry(Protocol):
    """Service: all registries."""

    def repository(
        self, reference: Reference, credentials: Credentials, *, kind: RepositoryKind = "image", push: bool = False
    ) -> Repository:
        """The repository of a reference (its tag and digest are not looked at); asks nothing yet."""

    async def login(self, credentials: Credentials) -> str:
        """Check credentials with `credentials.serveraddress`; gives an identity token or "". Raises Unauthorized."""

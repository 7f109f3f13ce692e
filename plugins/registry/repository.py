"""One repository of a registry: manifests, blobs, and the mirrors in front of it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

from plugin_sdk import EngineError, InvalidParameter, NotFound
from plugin_sdk.reference import Reference
from plugin_sdk.registry import (
    MANIFEST,
    MANIFEST_LIMIT,
    MANIFEST_LIST,
    OCI_INDEX,
    OCI_MANIFEST,
    Credentials,
    Manifest,
    RepositoryKind,
)

from . import digests
from .answers import Asked
from .client import Client
from .download import Download
from .hosts import Endpoint, Hosts
from .tokens import Authorizer, Identity, TokenCache
from .transport import Transport, document
from .upload import Upload

T = TypeVar("T")

_log = logging.getLogger("engine.registry")

ACCEPT = (MANIFEST, MANIFEST_LIST, OCI_MANIFEST, OCI_INDEX)
_VAGUE = ("", "text/plain", "application/json", "application/octet-stream")
_PARSE_INLINE = 64 << 10


class RemoteRepository:
    """Fulfils `Repository`."""

    def __init__(
        self,
        reference: Reference,
        credentials: Credentials,
        *,
        kind: RepositoryKind,
        push: bool,
        hosts: Hosts,
        cache: TokenCache,
        transport: Transport,
        attempts: int,
    ) -> None:
        self._reference = Reference(reference.domain, reference.path)
        self._identity = Identity.of(credentials)
        self._kind, self._push = kind, push
        self._hosts, self._cache, self._transport = hosts, cache, transport
        self._attempts = attempts
        self._asked = Asked(self._reference.familiar_name, push=push)
        self._clients: list[Client] = []

    async def manifest(self, reference: str, accept: Sequence[str] = ()) -> Manifest:
        """See `Repository`."""
        suffix = self._suffix(reference)
        wanted = tuple(accept) or ACCEPT
        asked = replace(self._asked, manifest=suffix)
        path = f"{self._reference.path}/manifests/{reference}"

        async def get(client: Client) -> Manifest:
            request = client.request("GET", path, asked, headers={"Accept": ", ".join(wanted)})
            async with request as response:
                raw = await document(response, MANIFEST_LIMIT)
                told = response.headers.get("Docker-Content-Digest", "")
                declared = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            name = f"manifest for {asked.name}{suffix}"
            digest = await _verified(name, raw, reference if suffix.startswith("@") else told)
            return Manifest(digest, await _media_type(name, raw, declared, wanted), raw)

        return await self._first(get)

    def _suffix(self, reference: str) -> str:
        """ ":TAG" or "@DIGEST", checked: it goes into a URL."""
        if ":" in reference:
            digests.check(reference)
            return f"@{reference}"
        return self._reference.with_tag(reference).suffix

    @asynccontextmanager
    async def blob(self, digest: str, size: int | None = None) -> AsyncIterator[AsyncIterator[bytes]]:
        """See `Repository`."""
        asked = replace(self._asked, blob=digest)
        path = f"{self._reference.path}/blobs/{digest}"

        async def get(client: Client) -> Download:
            download = Download(client, path, asked, size=size, attempts=self._attempts)
            await download.open()
            return download

        download = await self._first(get)
        try:
            yield download.pieces()
        finally:
            await download.close()

    async def blob_size(self, digest: str) -> int | None:
        """See `Repository`."""
        digests.check(digest)
        asked = replace(self._asked, blob=digest)

        async def head(client: Client) -> int:
            path = f"{self._reference.path}/blobs/{digest}"
            async with client.request("HEAD", path, asked) as response:
                length = response.headers.get("Content-Length", "")
            if not length.isdecimal():
                raise InvalidParameter(
                    f"registry {client.host} does not tell the size of blob {digest} of {asked.name}"
                )
            return int(length)

        try:
            return await self._first(head)
        except NotFound:
            return None

    async def put_blob(self, chunks: AsyncIterator[bytes]) -> tuple[str, int]:
        """See `Repository`."""
        return await (await self._upload()).send(chunks)

    async def mount_blob(self, digest: str, source: Reference) -> bool:
        """See `Repository`."""
        digests.check(digest)
        if source.domain != self._reference.domain:
            return False
        return await (await self._upload(source)).mount(digest, source.path)

    async def put_manifest(self, reference: str, media_type: str, raw: bytes) -> str:
        """See `Repository`."""
        suffix = self._suffix(reference)
        asked = replace(self._asked, manifest=suffix)
        digest = await digests.of(raw)
        client = await self._origin()
        path = f"{self._reference.path}/manifests/{reference}"
        put = client.request("PUT", path, asked, expect=(201,), headers={"Content-Type": media_type}, data=raw)
        async with put as response:
            told = response.headers.get("Docker-Content-Digest", digest)
        if suffix.startswith("@") and not reference.startswith("sha256:"):
            return reference
        if told != digest:
            raise InvalidParameter(
                f"registry {client.host} stored the manifest of {asked.name}{suffix} as {told[:200]!r}, sent was {digest}"
            )
        return digest

    async def close(self) -> None:
        """See `Repository`."""
        await self._transport.close()

    async def _first(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """The answer of the first endpoint that has one: mirrors may lack things, or be away."""
        clients = await self._endpoints()
        for client in clients[:-1]:
            try:
                return await work(client)
            except EngineError as error:
                _log.info("mirror %s does not help: %s", client.host, error)
        return await work(clients[-1])

    async def _endpoints(self) -> list[Client]:
        if not self._clients:
            mirrors = self._kind == "image" and not self._push
            found = await self._hosts.endpoints(self._reference.domain, mirrors=mirrors)
            self._clients = [await self._client(endpoint, [self._scope()]) for endpoint in found]
        return self._clients

    async def _client(self, endpoint: Endpoint, scopes: Sequence[str]) -> Client:
        identity = Identity() if endpoint.mirror else self._identity
        trust = await self._hosts.trust(endpoint.host)
        authorizer = Authorizer(
            self._transport, self._hosts, self._cache, identity, scopes, self._asked, secure=not trust.insecure
        )
        return Client(endpoint, self._transport, self._hosts, authorizer)

    async def _origin(self) -> Client:
        return (await self._endpoints())[-1]

    async def _upload(self, source: Reference | None = None) -> Upload:
        client = await self._origin()
        if source is not None:
            endpoint = (await self._hosts.endpoints(self._reference.domain, mirrors=False))[-1]
            client = await self._client(endpoint, [self._scope(), f"{self._resource}:{source.path}:pull"])
        return Upload(client, f"{self._reference.path}/blobs/uploads/", self._asked)

    @property
    def _resource(self) -> str:
        return "repository(plugin)" if self._kind == "plugin" else "repository"

    def _scope(self) -> str:
        return f"{self._resource}:{self._reference.path}:{'pull,push' if self._push else 'pull'}"


async def _verified(name: str, raw: bytes, wanted: str) -> str:
    """The digest, which is the wanted one where that is known."""
    algorithm = digests.check(wanted) if wanted else "sha256"
    digest = await digests.of(raw, algorithm)
    if wanted and digest != wanted:
        raise InvalidParameter(f"{name}: manifest verification failed for digest {wanted}: the content is {digest}")
    return digest


async def _media_type(name: str, raw: bytes, declared: str, wanted: Sequence[str]) -> str:
    """What it is, on which header and content must agree: or it could be read in two ways (CVE-2021-41190)."""
    try:
        parsed = json.loads(raw) if len(raw) <= _PARSE_INLINE else await asyncio.to_thread(json.loads, raw)
    except (ValueError, RecursionError) as error:
        raise InvalidParameter(f"{name} is not JSON: {str(error)[:100]}") from None
    if not isinstance(parsed, dict):
        raise InvalidParameter(f"{name} is no JSON object")
    said = parsed.get("mediaType", "")
    if declared in _VAGUE:
        declared = said if isinstance(said, str) else ""
    if said and said != declared:
        raise InvalidParameter(f"{name} is declared as {declared[:200]!r} and says that it is {str(said)[:200]!r}")
    if "manifests" in parsed and ("layers" in parsed or "config" in parsed):
        raise InvalidParameter(f"{name} is both a manifest and an index")
    if declared not in wanted:
        raise InvalidParameter(f"{name} has the media type {declared[:200]!r}; wanted is one of {', '.join(wanted)}")
    return declared

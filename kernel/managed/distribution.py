"""Managed plugins in registries: a v2 manifest whose config is the plugin's `config.json`, and the layers of its rootfs.

Source: Docker's plugin distribution: config media type `application/vnd.docker.plugin.v1+json`, layers
`application/vnd.docker.image.rootfs.diff.tar.gzip`; OCI manifests and indexes are accepted too.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kernel import compression
from kernel.contracts import registry as wire
from kernel.contracts.managed import ManagedPlugin, PluginLayer, Report
from kernel.errors import EngineError, InvalidParameter, NotSupported, Unavailable
from kernel.managed import platforms, schema
from kernel.managed.platforms import host_platform
from kernel.managed.store import Records
from kernel.reference import parse
from kernel.streams import Outlet

if TYPE_CHECKING:
    from kernel.context import Services
    from kernel.contracts.registry import Credentials, Manifest, Repository
    from kernel.managed.layers import Layers
    from kernel.reference import Reference

MAX_LAYERS = 127
_INDEXES = (wire.MANIFEST_LIST, wire.OCI_INDEX)
_NAMED = "application/vnd.docker.container.image."


@dataclass(frozen=True, slots=True)
class Offer:
    """A plugin as a registry has it, before its layers are fetched.

    Attributes:
        raw, config: its config.json, byte for byte and read.
        blobs: digest and size of its layers, the lowest first.
        digest: of the manifest (of the index, where there is one).
    """

    reference: Reference
    raw: bytes
    config: dict[str, Any]
    blobs: list[tuple[str, int]]
    digest: str


class Distribution:
    """Pulls and pushes."""

    def __init__(self, services: Services, records: Records, layers: Layers) -> None:
        self._services, self._records, self._layers = services, records, layers

    def repository(self, reference: Reference, credentials: Credentials, *, push: bool = False) -> Repository:
        """Raises Unavailable when no plugin provides registries."""
        found = self._services.find(wire.Registry)
        if found is None:
            raise Unavailable("plugins in registries need the service Registry, and no enabled plugin provides it")
        return found.repository(reference, credentials, kind="plugin", push=push)

    async def look(self, text: str, credentials: Credentials) -> Offer:
        """What a registry offers under a reference, for this machine's platform.

        Raises:
            NotSupported: it is not for this platform; names both. InvalidParameter: it is no plugin.
        """
        reference = parse(text).tagged()
        repository = self.repository(reference, credentials)
        try:
            return await self._look(repository, reference)
        finally:
            await repository.close()

    async def _look(self, repository: Repository, reference: Reference) -> Offer:
        top = await repository.manifest(reference.digest or reference.tag)
        manifest = await _for_this_machine(repository, reference, top)
        document = manifest.document()
        config = document.get("config")
        blobs = document.get("layers")
        if not isinstance(config, dict) or not isinstance(blobs, list) or not 0 < len(blobs) <= MAX_LAYERS:
            raise InvalidParameter(f"{reference}: its manifest is not that of a plugin")
        kind = str(config.get("mediaType", ""))
        if kind != wire.PLUGIN_CONFIG:
            what = "image" if kind.startswith(_NAMED) or "image.config" in kind else "unknown"
            raise InvalidParameter(f'Encountered remote "{kind}"({what}) when fetching')
        raw = await _small(repository, str(config.get("digest", "")))
        told = schema.parse(raw)
        if told["Architecture"]:
            platforms.check(reference.familiar, f"{told['Os'] or 'linux'}/{told['Architecture']}")
        return Offer(reference, raw, told, [_blob(blob) for blob in blobs], top.digest)

    async def fetch(self, offer: Offer, credentials: Credentials, report: Report) -> list[PluginLayer]:
        """Its layers, downloaded, checked and applied. A failure leaves nothing behind."""
        repository = self.repository(offer.reference, credentials)
        stack: list[PluginLayer] = []
        try:
            for digest, size in offer.blobs:
                layer = await self._layer(repository, digest, size, stack, report)
                stack.append(layer.model_copy(update={"Digest": digest, "Size": size}))
        except BaseException:
            await asyncio.shield(self._layers.drop(stack, self._records.list()))
            raise
        finally:
            await repository.close()
        await report({"status": f"Digest: {offer.digest}"})
        await report({"status": f"Status: Downloaded newer image for {offer.reference.familiar}"})
        return stack

    async def _layer(
        self, repository: Repository, digest: str, size: int, below: list[PluginLayer], report: Report
    ) -> PluginLayer:
        label = digest.partition(":")[2][:12]
        spare = await asyncio.to_thread(self._layers.spare)
        try:
            have = told = 0
            async with repository.blob(digest, size) as chunks:
                async for chunk in chunks:
                    await asyncio.to_thread(spare.write, chunk)
                    have += len(chunk)
                    if have - told > 1 << 20:
                        told = have
                        detail = {"current": have, "total": size}
                        await report({"status": "Downloading", "progressDetail": detail, "id": label})
            await report({"status": "Download complete", "progressDetail": {}, "id": label})
            await asyncio.to_thread(spare.seek, 0)
            return await self._layers.apply(compression.plain(spare), below)  # type: ignore[arg-type]
        finally:
            spare.close()

    async def push(self, plugin: ManagedPlugin, credentials: Credentials, report: Report) -> ManagedPlugin:
        """Upload what the registry lacks, then the manifest; gives the record with the digests."""
        reference = parse(plugin.Name).tagged()
        repository = self.repository(reference, credentials, push=True)
        try:
            await report({"status": f"The push refers to repository [{reference.name}]"})
            stack = [await self._push_layer(repository, plugin, layer, report) for layer in plugin.Layers]
            raw = await asyncio.to_thread(self._config, plugin)
            digest, size = await repository.put_blob(_once(raw))
            descriptor = {"mediaType": wire.PLUGIN_CONFIG, "size": size, "digest": digest}
            manifest = {
                "schemaVersion": 2,
                "mediaType": wire.MANIFEST,
                "config": descriptor,
                "layers": [
                    {"mediaType": wire.LAYER_GZIP, "size": layer.Size, "digest": layer.Digest} for layer in stack
                ],
            }
            content = json.dumps(manifest, indent=3).encode()
            digest = await repository.put_manifest(reference.tag, wire.MANIFEST, content)
            await report({"status": f"{reference.tag}: digest: {digest} size: {len(content)}"})
        finally:
            await repository.close()
        return plugin.model_copy(update={"Layers": stack, "ManifestDigest": digest})

    async def _push_layer(
        self, repository: Repository, plugin: ManagedPlugin, layer: PluginLayer, report: Report
    ) -> PluginLayer:
        label = (layer.Digest or layer.DiffID).partition(":")[2][:12]
        if layer.Digest and await repository.blob_size(layer.Digest) is not None:
            await report({"status": "Layer already exists", "progressDetail": {}, "id": label})
            return layer
        await report({"status": "Pushing", "progressDetail": {}, "id": label})
        async with Outlet() as outlet:
            work = asyncio.ensure_future(self._compressed(plugin, layer, outlet))
            try:
                digest, size = await repository.put_blob(aiter(outlet))
            finally:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
        await report({"status": "Pushed", "progressDetail": {}, "id": label})
        return layer.model_copy(update={"Digest": digest, "Size": size})

    async def _compressed(self, plugin: ManagedPlugin, layer: PluginLayer, outlet: Outlet) -> None:
        # No name and no time in the header: the same layer always has the same digest.
        zipped: Any = gzip.GzipFile(filename="", fileobj=outlet, mode="wb", compresslevel=6, mtime=0)
        try:
            await self._layers.driver(plugin.Driver).diff(layer.ChainID, zipped)
            await asyncio.to_thread(zipped.close)
        except BaseException as error:
            outlet.end(error if isinstance(error, EngineError) else EngineError(f"the layer cannot be read: {error}"))
            raise
        outlet.end()

    def _config(self, plugin: ManagedPlugin) -> bytes:
        """What was pulled goes out byte for byte; what was made here gets its layers and platform. Blocking."""
        raw = (self._records.folder / plugin.Id / "config.json").read_bytes()
        if plugin.ManifestDigest and plugin.Config.get("rootfs"):
            return raw
        document = json.loads(raw)
        document["rootfs"] = {"type": "layers", "diff_ids": [layer.DiffID for layer in plugin.Layers]}
        document.setdefault("os", plugin.Config["Os"])
        document.setdefault("architecture", plugin.Config["Architecture"])
        return json.dumps(document).encode()


async def _for_this_machine(repository: Repository, reference: Reference, top: Manifest) -> Manifest:
    document = top.document()
    entries = document.get("manifests")
    if top.media_type not in _INDEXES and not isinstance(entries, list):
        return top
    offered: list[str] = []
    for entry in entries if isinstance(entries, list) else ():
        told = entry.get("platform") if isinstance(entry, dict) else None
        name = f"{told.get('os', '')}/{told.get('architecture', '')}" if isinstance(told, dict) else ""
        if name == host_platform():
            return await repository.manifest(str(entry.get("digest", "")))
        offered.append(name or "no platform")
    raise NotSupported(
        f"plugin {reference.familiar} is not for {host_platform()}, this machine's platform: it is for"
        f" {', '.join(offered) or 'none'}"
    )


def _blob(told: Any) -> tuple[str, int]:
    digest, size = (told.get("digest"), told.get("size")) if isinstance(told, dict) else (None, None)
    if not isinstance(digest, str) or not isinstance(size, int):
        raise InvalidParameter("the plugin's manifest names a layer without digest or size")
    return digest, size


async def _small(repository: Repository, digest: str) -> bytes:
    parts = b""
    async with repository.blob(digest) as chunks:
        async for chunk in chunks:
            parts += chunk
            if len(parts) > schema.MAX_BYTES:
                raise InvalidParameter(f"config blob {digest} is larger than {schema.MAX_BYTES} bytes")
    return parts


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content

"""What a registry has under a name, without pulling it: `GET /distribution/NAME/json`."""

from __future__ import annotations

import json
from typing import Any

from plugin_sdk import InvalidParameter, TooLarge
from plugin_sdk.reference import Reference
from plugin_sdk.registry import MANIFEST_LIST, OCI_INDEX, Credentials, Manifest, Registry, Repository

_CONFIG_LIMIT = 4 << 20


async def inspect(registry: Registry, reference: Reference, credentials: Credentials) -> dict[str, Any]:
    """`DistributionInspect`: the manifest's or index's descriptor, and the platforms it serves."""
    repository = registry.repository(reference, credentials)
    try:
        manifest = await repository.manifest(reference.digest or reference.tag)
        return {
            "Descriptor": {"mediaType": manifest.media_type, "digest": manifest.digest, "size": len(manifest.raw)},
            "Platforms": await _platforms(repository, manifest),
        }
    finally:
        await repository.close()


async def _platforms(repository: Repository, manifest: Manifest) -> list[dict[str, Any]]:
    document = manifest.document()
    if manifest.media_type in (MANIFEST_LIST, OCI_INDEX):
        entries = document.get("manifests")
        found = [entry.get("platform") for entry in _listed(entries) if isinstance(entry, dict)]
        return [_platform(platform) for platform in found if isinstance(platform, dict)]
    config = document.get("config")
    digest, size = (config.get("digest"), config.get("size")) if isinstance(config, dict) else (None, None)
    if not isinstance(digest, str) or not isinstance(size, int):
        raise InvalidParameter(f"manifest {manifest.digest} names no config")
    if size > _CONFIG_LIMIT:
        raise TooLarge(f"config {digest} is larger than the {_CONFIG_LIMIT} bytes that are accepted")
    async with repository.blob(digest, size) as pieces:
        raw = b"".join([piece async for piece in pieces])
    try:
        described = json.loads(raw)
    except (ValueError, RecursionError):
        raise InvalidParameter(f"config {digest} is not JSON") from None
    platform = _platform(described) if isinstance(described, dict) else {}
    return [platform] if platform else []


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _platform(source: dict[str, Any]) -> dict[str, Any]:
    keys = ("architecture", "os", "os.version", "os.features", "variant")
    return {key: source[key] for key in keys if source.get(key)}

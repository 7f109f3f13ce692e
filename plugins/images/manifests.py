"""Which images an archive holds: docker-archive (`manifest.json`) or OCI layout (`index.json`). Blocking."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from plugin_sdk import InvalidParameter, Wire
from plugin_sdk.images import Image
from plugin_sdk.reference import parse

from .archive import Archive
from .records import digest, host_architecture, image_of

_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_NESTING = 4

W = TypeVar("W", bound=Wire)


@dataclass(frozen=True, slots=True)
class Found:
    """One image of an archive.

    Attributes:
        raw: its configuration document.
        image: the same, read.
        layers: names of its layers' files in the archive, the lowest first.
        names: familiar references.
        parent: ID of the image that it was made from, or "".
    """

    raw: bytes
    image: Image
    layers: list[str]
    names: list[str]
    parent: str = ""


class _Entry(Wire):
    Config: str
    RepoTags: list[str] = []
    Layers: list[str] = []
    Parent: str = ""


class _Platform(Wire):
    architecture: str = ""
    os: str = ""


class _Descriptor(Wire):
    digest: str
    mediaType: str = ""
    platform: _Platform | None = None
    annotations: dict[str, str] = {}


class _Index(Wire):
    manifests: list[_Descriptor] = []


class _Manifest(Wire):
    config: _Descriptor | None = None
    layers: list[_Descriptor] = []
    manifests: list[_Descriptor] = []
    mediaType: str = ""


def read(archive: Archive) -> list[Found]:
    """All images. Raises InvalidParameter, saying what is wrong."""
    if "manifest.json" in archive:
        return _docker(archive)
    if "index.json" in archive:
        return list(_oci(archive))
    raise InvalidParameter("invalid archive: does not contain a manifest.json")


def _docker(archive: Archive) -> list[Found]:
    entries = archive.json("manifest.json")
    if not isinstance(entries, list):
        raise InvalidParameter("invalid archive: manifest.json is not a list")
    found = []
    for entry in (_read(_Entry, each, "manifest.json") for each in entries):
        names = [_name(tag) for tag in entry.RepoTags]
        found.append(_found(archive.document(entry.Config), entry.Layers, names, entry.Parent))
    return found


def _oci(archive: Archive) -> Iterator[Found]:
    index = _read(_Index, archive.json("index.json"), "index.json")
    by_digest: dict[str, Found] = {}
    for descriptor in index.manifests:
        name = descriptor.annotations.get("io.containerd.image.name", "")
        if not name:
            short = descriptor.annotations.get("org.opencontainers.image.ref.name", "")
            name = short if ":" in short or "/" in short else ""  # a bare tag names no image
        manifest = _manifest(archive, descriptor, _NESTING)
        if manifest is None or manifest.config is None:
            continue
        raw = _blob(archive, manifest.config.digest)
        layers = [_blob_name(layer.digest) for layer in manifest.layers]
        image = _found(raw, layers, [_name(name)] if name else [])
        earlier = by_digest.get(image.image.Id)
        if earlier is not None:
            earlier.names.extend(image.names)
        else:
            by_digest[image.image.Id] = image
    yield from by_digest.values()


def _manifest(archive: Archive, descriptor: _Descriptor, nesting: int) -> _Manifest | None:
    """The manifest that a descriptor leads to; of several platforms, this machine's or else the first."""
    raw = _blob(archive, descriptor.digest)
    manifest = _read(_Manifest, _json(raw, descriptor.digest), descriptor.digest)
    if manifest.config is not None or not (manifest.manifests or descriptor.mediaType in _INDEXES):
        return manifest
    if not nesting:
        raise InvalidParameter("invalid archive: its indexes are nested too deeply")
    known = [each for each in manifest.manifests if _blob_name(each.digest) in archive]
    usable = [each for each in known if each.platform is None or each.platform.os != "unknown"]
    here = [each for each in usable if each.platform and each.platform.architecture == host_architecture()]
    return _manifest(archive, (here or usable)[0], nesting - 1) if usable else None


def _blob_name(name: str) -> str:
    algorithm, _, value = name.partition(":")
    return f"blobs/{algorithm}/{value}"


def _blob(archive: Archive, name: str) -> bytes:
    content = archive.document(_blob_name(name))
    if name.startswith("sha256:") and digest(content) != name:
        raise InvalidParameter(f"invalid archive: blob {name} has the digest {digest(content)}")
    return content


def _json(raw: bytes, name: str) -> Any:
    try:
        return json.loads(raw)
    except ValueError as error:
        raise InvalidParameter(f"invalid archive: {name} is not JSON: {error}") from None


def _read(model: type[W], document: Any, name: str) -> W:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidParameter(f"invalid archive: {name}: {where or 'document'}: {first['msg']}") from None


def _name(text: str) -> str:
    reference = parse(text)
    if reference.digest:
        raise InvalidParameter(f'invalid tag "{text}": a digest is no tag')
    return reference.tagged().familiar


def _found(raw: bytes, layers: list[str], names: list[str], parent: str = "") -> Found:
    image = image_of(raw)
    if len(layers) != len(image.DiffIDs):
        raise InvalidParameter(
            f"invalid manifest, layers length mismatch: expected {len(image.DiffIDs)}, got {len(layers)}"
        )
    return Found(raw, image, list(layers), names, parent)

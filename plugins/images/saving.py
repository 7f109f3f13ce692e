"""`docker save`: a tar that is a docker-archive and an OCI layout at once, as modern dockerd writes it.

Source: moby image spec v1.2 (`manifest.json`, `repositories`), OCI image layout.
"""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryFile
from typing import Any

from plugin_sdk import EngineError, NotFound
from plugin_sdk.images import Image
from plugin_sdk.reference import is_image_id, parse
from plugin_sdk.streams import Outlet, apart
from plugin_sdk.times import parse_ns

from .records import digest, encode
from .store import Images

_LAYER = "application/vnd.oci.image.layer.v1.tar"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass(slots=True)
class Selection:
    """One image to save, under these familiar names."""

    image: Image
    names: list[str] = field(default_factory=list)


def select(store: Images, refs: Sequence[str]) -> list[Selection]:
    """What `refs` mean: an ID without names, a name with its tag, a repository with all its tags. Raises NotFound."""
    chosen: dict[str, Selection] = {}
    for ref in refs:
        for image, name in _meant(store, ref):
            entry = chosen.setdefault(image.Id, Selection(image))
            if name and name not in entry.names:
                entry.names.append(name)
    return [chosen[image_id] for image_id in sorted(chosen)]


def _meant(store: Images, ref: str) -> list[tuple[Image, str]]:
    if not is_image_id(ref):
        reference = parse(ref)
        if not reference.tag and not reference.digest:
            tags = [(image, tag) for image in store.list() for tag in image.Tags]
            found = [(image, tag) for image, tag in tags if parse(tag).name == reference.name]
            if found:
                return found
    image, name = store.find(ref)
    return [(image, name if "@" not in name else "")]


async def save(store: Images, folder: Path, chosen: Sequence[Selection], out: Outlet) -> None:
    """Write the archive, and end `out` in every case."""
    try:
        await _save(store, folder, chosen, out)
    except BaseException as error:
        out.end(error if isinstance(error, Exception) else EngineError("cancelled"))
        if not isinstance(error, BrokenPipeError | EngineError):
            raise
    else:
        out.end()
        for each in chosen:
            store.tell("save", each.image)


async def _save(store: Images, folder: Path, chosen: Sequence[Selection], out: Outlet) -> None:
    chains = {chain: each for each in chosen for chain in store.chains(each.image)}
    with store.holding(chains):
        layers: dict[str, str] = {}
        sizes: dict[str, int] = {}
        for each in chosen:
            for diff_id, chain in zip(each.image.DiffIDs, store.chains(each.image), strict=True):
                layers.setdefault(diff_id, chain)
                sizes.setdefault(diff_id, store.driver.layer(chain).tar_size)
        await apart(out.write, _folder("blobs/") + _folder("blobs/sha256/"))
        for diff_id in sorted(layers):
            sizes[diff_id] = await _layer(store, folder, diff_id, layers[diff_id], sizes[diff_id], out)
        await apart(_write_documents, chosen, sizes, out)


async def _layer(store: Images, folder: Path, diff_id: str, chain: str, size: int, out: Outlet) -> int:
    name = _blob(diff_id)
    if size:
        await apart(out.write, _header(name, size))
        await store.driver.diff(chain, out)  # type: ignore[arg-type]
    else:
        with TemporaryFile(dir=folder) as file:  # the driver does not know: find out first
            await store.driver.diff(chain, file)
            size = file.tell()
            file.seek(0)
            await apart(out.write, _header(name, size))
            await apart(copyfileobj, file, out, 1 << 20)
    if rest := -size % tarfile.BLOCKSIZE:
        await apart(out.write, bytes(rest))
    return size


def _write_documents(chosen: Sequence[Selection], sizes: dict[str, int], out: Outlet) -> None:
    documents: dict[str, tuple[bytes, int]] = {}
    index: list[dict[str, Any]] = []
    entries: list[dict[str, Any]] = []
    repositories: dict[str, dict[str, str]] = {}
    for each in chosen:
        image, raw = each.image, each.image.Raw.encode()
        created = _seconds(image.Created)
        descriptors = [{"mediaType": _LAYER, "digest": diff, "size": sizes[diff]} for diff in image.DiffIDs]
        config = {"mediaType": _CONFIG, "digest": image.Id, "size": len(raw)}
        manifest = encode({"schemaVersion": 2, "mediaType": _MANIFEST, "config": config, "layers": descriptors})
        documents[_blob(image.Id)] = (raw, created)
        documents[_blob(digest(manifest))] = (manifest, 0)
        entry: dict[str, Any] = {
            "Config": _blob(image.Id),
            "RepoTags": each.names or None,
            "Layers": [_blob(diff) for diff in image.DiffIDs],
        }
        if image.Parent:
            entry["Parent"] = image.Parent
        entry["LayerSources"] = dict(zip(image.DiffIDs, descriptors, strict=True))
        entries.append(entry)
        target = {"mediaType": _MANIFEST, "digest": digest(manifest), "size": len(manifest)}
        index += [target | {"annotations": _annotations(name)} for name in each.names] or [target]
        for name in each.names:
            reference = parse(name)
            top = image.DiffIDs[-1].removeprefix("sha256:") if image.DiffIDs else ""
            repositories.setdefault(reference.familiar_name, {})[reference.tag] = top
    documents["index.json"] = (encode({"schemaVersion": 2, "mediaType": _INDEX, "manifests": index}), 0)
    documents["manifest.json"] = (encode_list(entries), 0)
    documents["oci-layout"] = (b'{"imageLayoutVersion": "1.0.0"}', 0)
    if repositories:
        documents["repositories"] = (encode(repositories), 0)
    for name, (content, created) in documents.items():
        out.write(_header(name, len(content), created) + content + bytes(-len(content) % tarfile.BLOCKSIZE))
    out.write(bytes(2 * tarfile.BLOCKSIZE))


def encode_list(entries: list[dict[str, Any]]) -> bytes:
    """A list of documents as JSON."""
    return b"[" + b",".join(encode(entry) for entry in entries) + b"]"


def _annotations(name: str) -> dict[str, str]:
    reference = parse(name)
    return {"io.containerd.image.name": str(reference), "org.opencontainers.image.ref.name": reference.tag}


def _blob(name: str) -> str:
    return f"blobs/sha256/{name.removeprefix('sha256:')}"


def _seconds(created: str) -> int:
    return max(0, parse_ns(created) // 10**9) if created else 0


def _header(name: str, size: int, mtime: int = 0) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mtime = size, mtime
    return info.tobuf(tarfile.PAX_FORMAT)


def _folder(name: str) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    return info.tobuf(tarfile.USTAR_FORMAT)


def check(chosen: Sequence[Selection], store: Images) -> None:
    """Refuse, before the answer has begun, images whose layers are not all there. Raises NotFound."""
    for each in chosen:
        for chain in store.chains(each.image):
            try:
                store.driver.layer(chain)
            except NotFound:
                raise NotFound(f"image {each.image.Id} lacks its layer {chain}: load or pull it again") from None

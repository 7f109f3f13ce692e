"""`docker load`: every image of an archive, or none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

from plugin_sdk import InvalidParameter, NotFound, compression
from plugin_sdk.images import Image
from plugin_sdk.streams import apart

from . import manifests
from .archive import Archive, Section
from .manifests import Found
from .store import Images

Report = Callable[[dict[str, Any]], Awaitable[None]]
_TICK = 0.2


async def load(store: Images, folder: Path, upload: BinaryIO, report: Report, *, quiet: bool) -> None:
    """Load an uploaded archive: docker-archive or OCI layout, plain or compressed.

    A failure, or a client that leaves, leaves nothing behind.

    Args:
        folder: for temporary files.
        upload: a real file.

    Raises:
        InvalidParameter: what is wrong with the archive.
    """
    with TemporaryFile(dir=folder) as spare:
        archive = await apart(_open, upload, spare)
        found = await apart(manifests.read, archive)
        if not found:
            raise InvalidParameter("invalid archive: it holds no image")
        images = await _store(store, archive, found, report, quiet)
    for image, each in zip(images, found, strict=True):
        await _tell(store, image, each, report)


def _open(upload: BinaryIO, spare: BinaryIO) -> Archive:
    """The upload, or what it is decompressed."""
    head = upload.read(16)
    if not head:
        raise InvalidParameter("unexpected EOF: the archive is empty")
    upload.seek(0)
    if not compression.kind(head):
        return Archive(upload)
    source = compression.plain(upload)
    while data := source.read(1 << 20):
        spare.write(data)
    spare.seek(0)
    return Archive(spare)


async def _store(store: Images, archive: Archive, found: list[Found], report: Report, quiet: bool) -> Sequence[Image]:
    chains = [chain for each in found for chain in store.chains(each.image)]
    try:
        with store.holding(chains):
            for each in found:
                await _layers(store, archive, each, report, quiet)
            return await store.add_raw([(each.raw, _parent(store, each, found), each.names) for each in found])
    except BaseException:
        await asyncio.shield(store.sweep(chains))
        raise


async def _layers(store: Images, archive: Archive, found: Found, report: Report, quiet: bool) -> None:
    parent = ""
    for name, diff_id, chain in zip(found.layers, found.image.DiffIDs, store.chains(found.image), strict=True):
        try:
            store.driver.layer(chain)
        except NotFound:
            section = archive.open(name)
            work = store.driver.apply(parent, compression.plain(section), expected=diff_id)  # type: ignore[arg-type]
            await _watched(work, section, "" if quiet else diff_id.removeprefix("sha256:")[:12], report)
        parent = chain


async def _watched(work: Awaitable[object], section: Section, label: str, report: Report) -> None:
    """Await work on a section, telling from time to time how far it is."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait([task], timeout=_TICK)
            if label and section.size > 1 << 20:
                detail = {"current": section.position, "total": section.size}
                await report({"status": "Loading layer", "progressDetail": detail, "id": label})
        await task
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])


def _parent(store: Images, found: Found, others: list[Found]) -> str:
    """Its parent, if that is here or comes with it, and really lies below it."""
    if not found.parent:
        return ""
    candidates = [each.image for each in others if each.image.Id == found.parent]
    try:
        parent = candidates[0] if candidates else store.get(found.parent)
    except (NotFound, InvalidParameter):
        return ""
    below = parent.DiffIDs == found.image.DiffIDs[: len(parent.DiffIDs)]
    return parent.Id if below and parent.Id != found.image.Id else ""


async def _tell(store: Images, image: Image, found: Found, report: Report) -> None:
    store.tell("load", image)
    for name in found.names:
        await report({"stream": f"Loaded image: {name}\n"})
    if not found.names:
        await report({"stream": f"Loaded image ID: {image.Id}\n"})

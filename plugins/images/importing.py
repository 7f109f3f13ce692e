"""`docker import`: a root file system becomes an image of one layer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from plugin_sdk import EngineError, InvalidParameter, Unavailable
from plugin_sdk.changes import apply_changes
from plugin_sdk.containers import ContainerConfig
from plugin_sdk.images import Image
from plugin_sdk.reference import parse
from plugin_sdk.streams import Inlet
from plugin_sdk.times import now

from .records import config_document, encode, host_architecture
from .store import Images


@dataclass(frozen=True, slots=True)
class Wish:
    """What the new image shall be: name in familiar form or "", platform "os[/arch[/variant]]" or ""."""

    name: str
    message: str
    changes: Sequence[str]
    platform: str = ""


def wish(repo: str, tag: str, message: str, changes: Sequence[str], platform: str) -> Wish:
    """Check a request before anything is read. Raises InvalidParameter."""
    name = ""
    if repo:
        reference = parse(repo)
        if reference.digest:
            raise InvalidParameter("cannot import digest reference")
        name = (reference.with_tag(tag) if tag else reference.tagged()).familiar
    apply_changes(ContainerConfig(), changes)
    if platform and not all(platform.split("/")[:3]):
        raise InvalidParameter(f'"{platform}" is an invalid platform: want os[/arch[/variant]]')
    system = platform.partition("/")[0]
    if platform and system.lower() != "linux":
        raise InvalidParameter(f'operating system "{system}" is not supported: this engine runs linux')
    return Wish(name, message or "Imported from -", changes, platform)


async def import_image(store: Images, upload: AsyncIterator[bytes], wanted: Wish) -> Image:
    """Make the image from an uploaded tar, plain or compressed; it is unpacked while it comes in.

    Raises InvalidParameter; then, and when the client leaves, nothing is left behind.
    """
    inlet = Inlet()
    feeding = asyncio.create_task(_feed(inlet, upload))
    try:
        diff_id = await store.import_layer("", inlet)  # type: ignore[arg-type]
        await feeding
    finally:
        inlet.fail(Unavailable("the upload was cut off"))
        inlet.close()
        feeding.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await feeding
    document = _document(wanted, diff_id)
    try:
        image = (await store.add_raw([(encode(document), "", [wanted.name] if wanted.name else [])]))[0]
    except EngineError:
        await store.discard(diff_id)
        raise
    store.tell("import", image)
    return image


async def _feed(inlet: Inlet, upload: AsyncIterator[bytes]) -> None:
    try:
        async for chunk in upload:
            await inlet.aput(chunk)
    except BrokenPipeError:
        return  # whoever reads has seen enough, and says so
    except BaseException as error:
        inlet.fail(error if isinstance(error, EngineError) else Unavailable(f"the upload was cut off: {error}"))
        raise
    inlet.end()


def _document(wanted: Wish, diff_id: str) -> dict[str, object]:
    created = now()
    system, architecture, variant = (*wanted.platform.lower().split("/"), "", "", "")[:3]
    document: dict[str, object] = {
        "architecture": architecture or host_architecture(),
        "comment": wanted.message,
        "config": config_document(apply_changes(ContainerConfig(), wanted.changes)),
        "container_config": config_document(ContainerConfig()),
        "created": created,
        "history": [{"created": created, "comment": wanted.message}],
        "os": system or "linux",
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }
    return document | ({"variant": variant} if variant else {})

"""The images, their names, and which layers they need; fulfils `ImageStore`."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

from plugin_sdk import (
    Collection,
    Conflict,
    EngineError,
    Event,
    EventBus,
    Holder,
    InvalidParameter,
    NotFound,
    StateStore,
    compression,
)
from plugin_sdk.images import Image
from plugin_sdk.reference import Reference, is_image_id, may_be_id_prefix, parse
from plugin_sdk.storage import Storage, StorageDriver
from plugin_sdk.text import by_prefix
from plugin_sdk.times import now

from . import removal
from .records import chain_ids, encode, image_of

Holders = Callable[[str], Iterable[Holder]]


class Images:
    """Fulfils `ImageStore`.

    Args:
        holders: who uses an image, by its ID.
    """

    def __init__(
        self, state: StateStore, storage: Storage, events: EventBus, holders: Holders, log: logging.Logger
    ) -> None:
        self._state = state
        self._storage = storage
        self._events = events
        self._holders = holders
        self._log = log
        self._images: Collection[Image] = state.collection("images", Image, key=lambda image: image.Id)
        self._names: dict[str, str] = {}
        self._chains: dict[str, list[str]] = {}
        self._held: Counter[str] = Counter()
        self._fresh: set[str] = set()
        self._orphans: set[str] = set()
        self._changing = asyncio.Lock()
        for image in self._images.values():
            self._remember(image)

    def _remember(self, image: Image) -> None:
        self._chains[image.Id] = chain_ids(image.DiffIDs)
        for name in (*image.Tags, *image.Digests):
            self._names[name] = image.Id

    # --- looking up

    def get(self, ref: str) -> Image:
        """See `ImageStore`."""
        return self.find(ref)[0]

    def find(self, ref: str) -> tuple[Image, str]:
        """The image, and the name (familiar, with tag or digest) by which it was found: "" for an ID."""
        if is_image_id(ref):
            image = self._images.get("sha256:" + ref.removeprefix("sha256:"))
            if image is None:
                raise NotFound(f"No such image: {ref}")
            return image, ""
        reference = parse(ref).tagged()
        found = self._named(reference)
        if found is not None:
            return found
        if may_be_id_prefix(ref):
            prefix = "sha256:" + ref.removeprefix("sha256:")
            image = by_prefix(prefix, self._images.values(), lambda each: each.Id)
            if image is not None:
                return image, ""
        raise NotFound(f"No such image: {reference.familiar}")

    def _named(self, reference: Reference) -> tuple[Image, str] | None:
        wanted = [reference.familiar]
        if reference.tag and reference.digest:  # the digest decides
            wanted = [f"{reference.familiar_name}@{reference.digest}"]
        for name in wanted:
            image = self._images.get(self._names.get(name, ""))
            if image is not None:
                return image, name
        return None

    def list(self) -> Sequence[Image]:
        """See `ImageStore`."""
        return sorted(self._images.values(), key=lambda image: image.Created, reverse=True)

    def children(self, image_id: str) -> Sequence[Image]:
        """Images whose parent it is."""
        return [image for image in self._images.values() if image.Parent == image_id]

    def users(self, image_id: str) -> Sequence[Holder]:
        """Who uses it."""
        return [*self._holders(image_id)]

    def chains(self, image: Image) -> Sequence[str]:
        """Chain IDs of its layers, the lowest first."""
        return self._chains.get(image.Id) or chain_ids(image.DiffIDs)

    @property
    def driver(self) -> StorageDriver:
        """The storage driver that holds the layers."""
        return self._storage.driver()

    # --- making

    async def add(self, config: dict[str, Any], layers: Sequence[str], *, parent: str = "") -> Image:
        """See `ImageStore`."""
        document = {**config, "rootfs": {"type": "layers", "diff_ids": [*layers]}}
        return (await self.add_raw([(encode(document), parent, ())]))[0]

    async def add_raw(self, wanted: Iterable[tuple[bytes, str, Sequence[str]]]) -> Sequence[Image]:
        """Store images and their names, all or none.

        Args:
            wanted: (configuration document, parent's ID or "", names in familiar form) of each.
        """
        made: list[str] = []
        tagged: list[tuple[str, str]] = []
        async with self._changing:
            changed: dict[str, Image] = {}
            for raw, parent, names in wanted:
                image = self._draft(raw, parent, changed)
                changed[image.Id] = image
                made.append(image.Id)
                tagged += [(image.Id, name) for name in names]
            for image_id, name in tagged:
                self._move_name(changed, name, image_id)
            await self._write(changed)
        for image_id in made:
            self._fresh.difference_update(self._chains[image_id])
        for image_id, name in tagged:
            self.tell("tag", changed[image_id], name)
        return [changed[image_id] for image_id in made]

    def _draft(self, raw: bytes, parent: str, changed: Mapping[str, Image]) -> Image:
        image = image_of(raw)
        existing = changed.get(image.Id) or self._images.get(image.Id)
        driver = self.driver
        size = 0
        for chain in chain_ids(image.DiffIDs):
            try:
                size += driver.layer(chain).size
            except NotFound:
                raise InvalidParameter(f"image {image.Id} needs the layer {chain}, which is not there") from None
        if parent and parent not in changed and self._images.get(parent) is None:
            parent = ""
        return existing or image.model_copy(update={"Size": size, "Parent": parent})

    async def import_layer(self, parent: str, diff: BinaryIO) -> str:
        """See `ImageStore`. The layer stays until an image needs it, or until the next start without one."""
        with self.holding([parent] if parent else []):
            info = await self.driver.apply(parent, compression.plain(diff))  # type: ignore[arg-type]
            self._fresh.add(info.chain_id)
        return info.diff_id

    async def discard(self, chain: str) -> None:
        """An imported layer is not wanted after all."""
        self._fresh.discard(chain)
        await self.sweep([chain])

    @contextmanager
    def holding(self, chains: Iterable[str]) -> Iterator[None]:
        """Keep layers from being swept away while work with them goes on."""
        held = [*chains]
        self._held.update(held)
        try:
            yield
        finally:
            self._held.subtract(held)
            self._held = +self._held

    # --- names

    async def tag(self, ref: str, name: str) -> None:
        """See `ImageStore`."""
        reference = parse(name)
        if reference.digest:
            raise InvalidParameter("refusing to create a tag with a digest reference")
        familiar = reference.tagged().familiar
        async with self._changing:
            image = self.get(ref)
            changed = {image.Id: image}
            self._move_name(changed, familiar, image.Id)
            await self._write(changed)
        self.tell("tag", image, familiar)

    async def untag(self, name: str) -> None:
        """See `ImageStore`."""
        async with self._changing:
            image, familiar = self.find(name)
            if not familiar:
                raise InvalidParameter(f"{name} is an ID, not a name of an image")
            image = _without(image, {familiar})
            await self._write({image.Id: image})
        self.tell("untag", image)

    def _move_name(self, changed: dict[str, Image], name: str, image_id: str) -> None:
        holder = next((i.Id for i in changed.values() if name in i.Tags), "") or self._names.get(name, "")
        old = changed.get(holder) or self._images.get(holder)
        if old is not None and old.Id != image_id:
            changed[old.Id] = _without(old, {name})
        image = changed[image_id]
        tags = sorted({*image.Tags, name})
        changed[image_id] = image.model_copy(update={"Tags": tags, "LastTagTime": now()})

    # --- removing

    async def remove(self, ref: str, *, force: bool = False, prune: bool = True) -> Sequence[dict[str, str]]:
        """See `ImageStore`."""
        async with self._changing:
            image, name = self.find(ref)
            plan = removal.plan(self, image, name, ref, force=force, prune=prune)
            await self._write({image.Id: image for image in plan.changed}, [doomed.Id for doomed in plan.deleted])
        records = list(plan.records)
        for image in plan.untagged:
            self.tell("untag", image)
        for doomed in plan.deleted:
            self.tell("delete", doomed)
            records += [{"Deleted": chain} for chain in await self.sweep(chain_ids(doomed.DiffIDs))]
        return records

    # --- layers without an image

    async def sweep(self, candidates: Iterable[str]) -> Sequence[str]:
        """Remove those of these layers that nothing needs; gives their chain IDs."""
        needed = {chain for chains in self._chains.values() for chain in chains} | self._fresh | set(self._held)
        driver = self.driver
        present = {layer.chain_id: layer for layer in driver.layers()}
        self._orphans &= present.keys()
        doomed = [chain for chain in candidates if chain in present and chain not in needed]
        doomed.sort(key=lambda chain: _depth(present, chain), reverse=True)
        removed = []
        for chain in doomed:
            try:
                await driver.remove_layer(chain)
            except Conflict:
                self._orphans.add(chain)
            except EngineError as error:
                self._log.warning("cannot remove layer %s: %s", chain, error)
            else:
                self._orphans.discard(chain)
                removed.append(chain)
        return removed

    def holders_of_layer(self, chain: str) -> Sequence[Holder]:
        """Who needs a layer: images, and work that is about to make one."""
        found = [
            Holder("image", image_id, image_id[:19]) for image_id, chains in self._chains.items() if chain in chains
        ]
        return found or ([Holder("image", "", "being made")] if chain in self._fresh or self._held[chain] else [])

    @property
    def orphans(self) -> Sequence[str]:
        """Chain IDs of layers that containers still used when their image went."""
        return [*self._orphans]

    def damaged(self) -> Sequence[Image]:
        """Images that lack a layer."""
        present = {layer.chain_id for layer in self.driver.layers()}
        return [image for image in self._images.values() if not present.issuperset(self.chains(image))]

    # --- writing

    async def _write(self, changed: Mapping[str, Image], deleted: Sequence[str] = ()) -> None:
        writes: list[Any] = [(self._images, image) for image in changed.values()]
        writes += [(self._images, image_id) for image_id in deleted]
        await self._state.commit(writes)
        ours = {*changed, *deleted}
        self._names = {name: owner for name, owner in self._names.items() if owner not in ours}
        for image_id in deleted:
            self._chains.pop(image_id, None)
        for image in changed.values():
            self._remember(image)

    def tell(self, action: str, image: Image, name: str = "") -> None:
        """Publish an event."""
        attributes = {**image.Config.Labels, "name": name or image.Id}
        self._events.publish(Event("image", action, image.Id, attributes))


def _without(image: Image, names: set[str]) -> Image:
    return image.model_copy(
        update={
            "Tags": [tag for tag in image.Tags if tag not in names],
            "Digests": [digest for digest in image.Digests if digest not in names],
        }
    )


def _depth(present: Mapping[str, Any], chain: str) -> int:
    depth = 0
    while chain in present:
        chain = present[chain].parent
        depth += 1
    return depth

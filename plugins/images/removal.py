"""What removing an image means: which names go, which images, and what forbids it. Docker's rules and messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from plugin_sdk import Conflict, Holder, NotFound
from plugin_sdk.images import Image
from plugin_sdk.reference import parse


class Book(Protocol):
    """What is asked of the store."""

    def get(self, ref: str) -> Image:
        """An image."""

    def children(self, image_id: str) -> Sequence[Image]:
        """Images whose parent it is."""

    def users(self, image_id: str) -> Sequence[Holder]:
        """Who uses it."""


@dataclass(slots=True)
class Plan:
    """What is to be done.

    Attributes:
        records: for the client: {"Untagged": name} and {"Deleted": ID}.
        changed: images that lose names.
        untagged: one entry for each name that goes, for the events.
        deleted: images that go.
    """

    records: list[dict[str, str]] = field(default_factory=list)
    changed: list[Image] = field(default_factory=list)
    untagged: list[Image] = field(default_factory=list)
    deleted: list[Image] = field(default_factory=list)


def plan(book: Book, image: Image, name: str, ref: str, *, force: bool, prune: bool) -> Plan:
    """Plan a removal.

    Args:
        name: by which the image was found, "" for an ID.
        ref: as the client wrote it.

    Raises:
        Conflict: it is in use.
    """
    made = Plan()
    if not name:
        _check(book, image, force=force, names=() if single_name(image) else _names(image))
        _delete(book, image, made, prune=prune)
        return made
    users = [user for user in book.users(image.Id) if user.kind == "container"]
    if not force and single_name(image) and users:
        raise Conflict(
            f'conflict: unable to remove repository reference "{ref}" (must force) - container {users[0].id[:12]} is using'
            f" its referenced image {_short(image)}"
        )
    going = {name}
    repository = parse(name).name
    if "@" not in name and not any(parse(tag).name == repository for tag in image.Tags if tag != name):
        # With the repository's last tag go the digests by which it was pulled.
        going |= {digest for digest in image.Digests if parse(digest).name == repository}
    left = [each for each in _names(image) if each not in going]
    if left or _conflict(book, image, force=force, names=()) is not None:
        _drop(image, going, made)
        return made
    _delete(book, image, made, prune=prune)
    return made


def single_name(image: Image) -> bool:
    """It has one tag at most, and digests only of the same repository."""
    if len(_names(image)) <= 1:
        return True
    repositories = {parse(each).name for each in _names(image)}
    return len(image.Tags) <= 1 and len(repositories) == 1


def _names(image: Image) -> list[str]:
    return [*image.Tags, *image.Digests]


def _short(image: Image) -> str:
    return image.Id.removeprefix("sha256:")[:12]


def _drop(image: Image, going: set[str], made: Plan) -> None:
    made.records += [{"Untagged": name} for name in _names(image) if name in going]
    changed = image.model_copy(
        update={
            "Tags": [tag for tag in image.Tags if tag not in going],
            "Digests": [digest for digest in image.Digests if digest not in going],
        }
    )
    made.untagged += [changed for name in _names(image) if name in going]
    made.changed.append(changed)


def _delete(book: Book, image: Image, made: Plan, *, prune: bool) -> None:
    names = _names(image)
    made.records += [{"Untagged": name} for name in names] + [{"Deleted": image.Id}]
    made.untagged += [image] * len(names)
    made.deleted.append(image)
    if not prune or not image.Parent:
        return
    gone = {each.Id for each in made.deleted}
    try:
        parent = book.get(image.Parent)
    except NotFound:
        return
    others = [child for child in book.children(parent.Id) if child.Id not in gone]
    if not _names(parent) and not others and not book.users(parent.Id):
        _delete(book, parent, made, prune=True)


def _check(book: Book, image: Image, *, force: bool, names: Sequence[str]) -> None:
    conflict = _conflict(book, image, force=force, names=names)
    if conflict is not None:
        raise conflict


def _conflict(book: Book, image: Image, *, force: bool, names: Sequence[str]) -> Conflict | None:
    def refusal(remedy: str, reason: str) -> Conflict:
        return Conflict(f"conflict: unable to delete {_short(image)} ({remedy}) - {reason}")

    if book.children(image.Id):
        return refusal("cannot be forced", "image has dependent child images")
    users = book.users(image.Id)
    running = [user for user in users if user.kind != "container" or user.detail in ("running", "paused")]
    if running:
        kind = "running container" if running[0].kind == "container" else running[0].kind
        return refusal("cannot be forced", f"image is being used by {kind} {running[0].id[:12]}")
    if force:
        return None
    if names:
        return refusal("must be forced", "image is referenced in multiple repositories")
    if users:
        return refusal("must be forced", f"image is being used by stopped container {users[0].id[:12]}")
    return None

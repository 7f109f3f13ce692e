"""What `docker rmi` may remove: Docker's rules and its words."""

from collections.abc import Sequence

import pytest

from plugin_sdk import Conflict, Holder, NotFound
from plugin_sdk.containers import ContainerConfig
from plugin_sdk.images import Image
from plugins.images.removal import plan

A, B, C = ("sha256:" + letter * 64 for letter in "abc")


class Book:
    def __init__(self, *images: Image, users: dict[str, list[Holder]] | None = None) -> None:
        self.images = {image.Id: image for image in images}
        self.holders = users or {}

    def get(self, ref: str) -> Image:
        if ref not in self.images:
            raise NotFound(ref)
        return self.images[ref]

    def children(self, image_id: str) -> Sequence[Image]:
        return [image for image in self.images.values() if image.Parent == image_id]

    def users(self, image_id: str) -> Sequence[Holder]:
        return self.holders.get(image_id, [])


def image(image_id: str, *tags: str, digests: Sequence[str] = (), parent: str = "") -> Image:
    return Image(Id=image_id, Raw="{}", Config=ContainerConfig(), Tags=list(tags), Digests=list(digests), Parent=parent)


def container(detail: str) -> Holder:
    return Holder("container", "0123456789abcdef", "web", detail)


def test_the_last_name_takes_the_image_along() -> None:
    only = image(A, "x:1")
    made = plan(Book(only), only, "x:1", "x:1", force=False, prune=True)
    assert made.records == [{"Untagged": "x:1"}, {"Deleted": A}]
    assert made.deleted == [only]


def test_one_of_several_names_only_goes_itself() -> None:
    both = image(A, "x:1", "y:2")
    made = plan(Book(both), both, "x:1", "x:1", force=False, prune=True)
    assert made.records == [{"Untagged": "x:1"}]
    assert made.changed[0].Tags == ["y:2"] and not made.deleted


def test_an_id_takes_all_names_of_one_repository_but_not_of_several() -> None:
    digest = f"x@sha256:{'1' * 64}"
    one = image(A, "x:1", digests=[digest])
    assert plan(Book(one), one, "", A, force=False, prune=True).records == [
        {"Untagged": "x:1"},
        {"Untagged": digest},
        {"Deleted": A},
    ]
    both = image(A, "x:1", "y:2")
    with pytest.raises(Conflict) as refused:
        plan(Book(both), both, "", A, force=False, prune=True)
    assert str(refused.value) == (
        "conflict: unable to delete aaaaaaaaaaaa (must be forced) - image is referenced in multiple repositories"
    )
    assert plan(Book(both), both, "", A, force=True, prune=True).deleted == [both]


def test_the_last_tag_of_a_repository_takes_its_digests_along() -> None:
    digest = f"x@sha256:{'1' * 64}"
    both = image(A, "x:1", "y:2", digests=[digest])
    made = plan(Book(both), both, "x:1", "x:1", force=False, prune=True)
    assert made.changed[0].Tags == ["y:2"] and made.changed[0].Digests == []


def test_in_use_by_name() -> None:
    only = image(A, "x:1")
    book = Book(only, users={A: [container("exited")]})
    with pytest.raises(Conflict) as refused:
        plan(book, only, "x:1", "x:1", force=False, prune=True)
    assert str(refused.value) == (
        'conflict: unable to remove repository reference "x:1" (must force) - container 0123456789ab is using its'
        " referenced image aaaaaaaaaaaa"
    )
    assert plan(book, only, "x:1", "x:1", force=True, prune=True).deleted == [only]
    running = Book(only, users={A: [container("running")]})
    made = plan(running, only, "x:1", "x:1", force=True, prune=True)
    assert made.records == [{"Untagged": "x:1"}] and not made.deleted


@pytest.mark.parametrize(
    ("detail", "force", "message"),
    [
        ("running", True, "(cannot be forced) - image is being used by running container 0123456789ab"),
        ("paused", False, "(cannot be forced) - image is being used by running container 0123456789ab"),
        ("exited", False, "(must be forced) - image is being used by stopped container 0123456789ab"),
    ],
)
def test_in_use_by_id(detail: str, force: bool, message: str) -> None:
    only = image(A, "x:1")
    with pytest.raises(Conflict) as refused:
        plan(Book(only, users={A: [container(detail)]}), only, "", A, force=force, prune=True)
    assert str(refused.value) == f"conflict: unable to delete aaaaaaaaaaaa {message}"


def test_children_and_parents() -> None:
    base, step, top = image(A, "base:1"), image(B, parent=A), image(C, "top:1", parent=B)
    book = Book(base, step, top)
    with pytest.raises(Conflict, match="cannot be forced.*image has dependent child images"):
        plan(book, base, "", A, force=True, prune=True)
    assert plan(book, base, "base:1", "base:1", force=False, prune=True).records == [{"Untagged": "base:1"}]
    assert [each.Id for each in plan(book, top, "top:1", "top:1", force=False, prune=True).deleted] == [C, B]
    assert [each.Id for each in plan(book, top, "top:1", "top:1", force=False, prune=False).deleted] == [C]
    kept = Book(base, step, top, users={B: [container("exited")]})
    assert [each.Id for each in plan(kept, top, "top:1", "top:1", force=False, prune=True).deleted] == [C]

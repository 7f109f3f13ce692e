"""How images look on the wire: `GET /images/json`, inspect, history; and the filters of list and prune."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from plugin_sdk import InvalidParameter, NotFound
from plugin_sdk.images import Image
from plugin_sdk.reference import parse
from plugin_sdk.text import Filters, match_labels
from plugin_sdk.times import parse_ns, parse_until_ns

from .records import config_document, image_config
from .store import Images

LIST_FILTERS = ("before", "dangling", "label", "reference", "since", "until")
PRUNE_FILTERS = ("dangling", "label", "label!", "until")

Version = tuple[int, int]


def created_ns(image: Image) -> int:
    """When it was made; 0 when it does not say."""
    try:
        return parse_ns(image.Created) if image.Created else 0
    except InvalidParameter:
        return 0


def switch(filters: Filters, name: str) -> bool | None:
    """A yes/no filter. Raises InvalidParameter ("invalid filter 'dangling=[x]'")."""
    if name not in filters:
        return None
    words = {"1": True, "true": True, "t": True, "0": False, "false": False, "f": False}
    values = {words.get(value.lower()) for value in filters[name]}
    if len(values) != 1 or None in values:
        raise InvalidParameter(f"invalid filter '{name}=[{' '.join(filters[name])}]'")
    return values.pop()


def selected(store: Images, filters: Filters, *, all: bool) -> list[Image]:
    """Images that `GET /images/json` shows, newest first. Raises InvalidParameter or NotFound for filters."""
    dangling = switch(filters, "dangling")
    tests: list[Callable[[Image], bool]] = []
    for name, sign in (("before", -1), ("since", 1)):
        for ref in filters.get(name, ()):
            limit = created_ns(store.get(ref))
            tests.append(lambda image, limit=limit, sign=sign: (created_ns(image) - limit) * sign > 0)  # type: ignore[misc]
    for text in filters.get("until", ()):
        until = parse_until_ns(text)
        tests.append(lambda image, until=until: created_ns(image) < until)  # type: ignore[misc]
    if dangling is not None:
        tests.append(lambda image: dangling == (not image.Tags and not image.Digests))
    labels = filters.get("label", ())
    patterns = [reference_pattern(text) for text in filters.get("reference", ())]
    parents = Counter(image.Parent for image in store.list())
    found = []
    for image in store.list():
        if not image.Tags and not image.Digests and parents[image.Id] and (not all or dangling):
            continue  # a step on the way to another image
        if not match_labels(labels, image.Config.Labels) or not all_hold(tests, image):
            continue
        if patterns:
            image = _only(image, patterns)
            if not image.Tags and not image.Digests:
                continue
        found.append(image)
    return found


def all_hold(tests: Sequence[Callable[[Image], bool]], image: Image) -> bool:
    """Each test says yes."""
    return all(test(image) for test in tests)


def reference_pattern(pattern: str) -> Callable[[str], bool]:
    """A test of familiar references. Signs as in Go's path.Match: `*` and `?` stop at a slash; `[a-z]`.

    Raises InvalidParameter.
    """
    pieces = {"*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\[\^?[^\]]+\]|\*|\?|\\.)", pattern)
    text = "".join(
        pieces.get(part)
        or (part if part.startswith("[") and part.endswith("]") else re.escape(part.removeprefix("\\")))
        for part in parts
    )
    try:
        wanted = re.compile(text)
    except re.error:
        raise InvalidParameter(f"invalid filter 'reference=[{pattern}]': syntax error in pattern") from None

    def test(name: str) -> bool:
        return bool(wanted.fullmatch(name) or wanted.fullmatch(parse(name).familiar_name))

    return test


def _only(image: Image, patterns: Sequence[Callable[[str], bool]]) -> Image:
    def kept(names: Sequence[str]) -> list[str]:
        return [name for name in names if any(pattern(name) for pattern in patterns)]

    return image.model_copy(update={"Tags": kept(image.Tags), "Digests": kept(image.Digests)})


def prunable(filters: Filters) -> Callable[[Image], bool]:
    """A test for `POST /images/prune`, who uses an image aside. Raises InvalidParameter."""
    dangling = switch(filters, "dangling")
    until = [parse_until_ns(text) for text in filters.get("until", ())]
    if len(until) > 1:
        raise InvalidParameter("more than one until filter specified")

    def test(image: Image) -> bool:
        if (image.Tags or image.Digests) and dangling is not False:
            return False
        if until and created_ns(image) >= until[0]:
            return False
        labels = image.Config.Labels
        unwanted = filters.get("label!", ())
        return match_labels(filters.get("label", ()), labels) and not any(match_labels([u], labels) for u in unwanted)

    return test


def summary(store: Images, image: Image, version: Version, shared: int, containers: int) -> dict[str, Any]:
    """One entry of `GET /images/json`."""
    tags: list[str] | None = [*image.Tags]
    digests: list[str] | None = [*image.Digests]
    if version < (1, 43):
        if not tags and not digests:
            tags, digests = ["<none>:<none>"], ["<none>@<none>"]
        tags, digests = tags or None, digests or None
    entry = {
        "Containers": containers,
        "Created": created_ns(image) // 10**9,
        "Id": image.Id,
        "Labels": image.Config.Labels or None,
        "ParentId": image.Parent,
        "RepoDigests": digests,
        "RepoTags": tags,
        "SharedSize": shared,
        "Size": image.Size,
    }
    return entry | ({"VirtualSize": image.Size} if version < (1, 44) else {})


def shared_sizes(store: Images) -> dict[str, int]:
    """Bytes of each image's layers that other images have too."""
    count = Counter(chain for image in store.list() for chain in set(store.chains(image)))
    sizes: dict[str, int] = {}
    for image in store.list():
        common = [chain for chain in store.chains(image) if count[chain] > 1]
        sizes[image.Id] = sum(_layer_size(store, chain) for chain in common)
    return sizes


def _layer_size(store: Images, chain: str) -> int:
    try:
        return store.driver.layer(chain).size
    except NotFound:
        return 0


def inspect(store: Images, image: Image, driver_name: str, version: Version) -> dict[str, Any]:
    """`GET /images/{name}/json`."""
    shown: dict[str, Any] = {
        "Id": image.Id,
        "RepoTags": [*image.Tags],
        "RepoDigests": [*image.Digests],
        "Parent": image.Parent,
        # Builders write it into the history alone.
        "Comment": image.Comment or (image.History[-1].comment if image.History else ""),
        "Created": image.Created,
        "DockerVersion": image.DockerVersion,
        "Author": image.Author,
        "Config": image_config(image.Config) if version >= (1, 50) else config_document(image.Config),
        "Architecture": image.Architecture,
    }
    if version < (1, 45):
        shown |= {"Container": "", "ContainerConfig": None}
    if image.Variant:
        shown["Variant"] = image.Variant
    shown |= {"Os": image.Os, "Size": image.Size}
    if version < (1, 44):
        shown["VirtualSize"] = image.Size
    return shown | {
        "GraphDriver": {"Data": _graph(store, image), "Name": driver_name},
        "RootFS": {"Type": "layers", "Layers": [*image.DiffIDs]} if image.DiffIDs else {"Type": "layers"},
        "Metadata": {"LastTagTime": image.LastTagTime or "0001-01-01T00:00:00Z"},
    }


def _graph(store: Images, image: Image) -> dict[str, str] | None:
    if not image.ChainID:
        return None
    try:
        return store.driver.metadata(image.ChainID)
    except NotFound:
        return None


def history(store: Images, image: Image) -> list[dict[str, Any]]:
    """`GET /images/{name}/history`, the newest step first."""
    chains = list(store.chains(image))
    steps: list[dict[str, Any]] = []
    for step in image.History:
        size = _layer_size(store, chains.pop(0)) if not step.empty_layer and chains else 0
        created = parse_ns(step.created) // 10**9 if step.created else 0
        steps.append(
            {
                "Id": "<missing>",
                "Created": created,
                "CreatedBy": step.created_by,
                "Tags": None,
                "Size": size,
                "Comment": step.comment,
            }
        )
    steps.reverse()
    owner: Image | None = image
    for entry in steps:
        if owner is None:
            break
        entry |= {"Id": owner.Id, "Tags": [*owner.Tags] or None}
        try:
            owner = store.get(owner.Parent) if owner.Parent else None
        except NotFound:
            owner = None
    return steps

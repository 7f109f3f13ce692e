"""`GET /events`: which events a client wants, and how they look on the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson

from plugin_sdk import Event, EventBus, InvalidParameter
from plugin_sdk.text import Filters, match_labels

FILTERS = (
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
)
"""The filters that are understood."""

_BY_PREFIX = ("config", "container", "daemon", "network", "node", "plugin", "secret", "service", "volume")


def wanted(event: Event, filters: Filters) -> bool:
    """An event passes when it passes each kind of filter; of one kind, any value does."""
    if "type" in filters and event.type not in filters["type"]:
        return False
    if "scope" in filters and event.scope not in filters["scope"]:
        return False
    if "event" in filters and not _action_matches(event, filters["event"]):
        return False
    if "label" in filters and not match_labels(filters["label"], event.attributes):
        return False
    if "image" in filters and not _image_matches(event, filters["image"]):
        return False
    return all(_object_matches(event, kind, filters[kind]) for kind in _BY_PREFIX if kind in filters)


def _action_matches(event: Event, actions: list[str]) -> bool:
    # "exec_start: sh" is found by "exec_start", "health_status: healthy" by "health_status".
    return event.action in actions or event.action.partition(":")[0] in actions


def _object_matches(event: Event, kind: str, refs: list[str]) -> bool:
    """IDs and names match by their beginnings."""
    names = (event.actor, event.attributes.get("name", ""))
    return event.type == kind and any(name.startswith(ref) for ref in refs for name in names if name)


def _image_matches(event: Event, images: list[str]) -> bool:
    if event.type == "image":
        names = [event.actor, event.attributes.get("name", "")]
    elif event.type == "container":
        names = [event.attributes.get("image", "")]
    else:
        return False
    known = {*names, *(_without_tag(name) for name in names)} - {""}
    return any(image in known for image in images)


def _without_tag(name: str) -> str:
    head, colon, tag = name.rpartition(":")
    return head if colon and "/" not in tag and not name.startswith("sha256:") else name


def shown(event: Event) -> dict[str, Any]:
    """`EventMessage`, with the fields that clients of API 1.21 and before read for containers and images."""
    legacy: dict[str, Any] = {}
    if event.type in ("container", "image"):
        legacy = {"status": event.action, "id": event.actor}
    if event.type == "container" and (image := event.attributes.get("image")):
        legacy["from"] = image
    return {
        **legacy,
        "Type": event.type,
        "Action": event.action,
        "Actor": {"ID": event.actor, "Attributes": dict(event.attributes)},
        "scope": event.scope,
        "time": event.time_ns // 10**9,
        "timeNano": event.time_ns,
    }


async def stream(
    bus: EventBus, filters: Filters, since_ns: int, until_ns: int, listening: Callable[[int], None]
) -> AsyncIterator[bytes]:
    """JSON lines, oldest first: those kept since `since_ns`, then new ones until `until_ns` (0: no bound).

    `listening` is told +1 at the start and -1 at the end.
    """
    listening(+1)
    try:
        async for event in bus.subscribe(since_ns=since_ns if since_ns or until_ns else None, until_ns=until_ns):
            if wanted(event, filters):
                yield orjson.dumps(shown(event)) + b"\n"
    finally:
        listening(-1)


def check_span(since_ns: int, until_ns: int) -> None:
    """Raises InvalidParameter when the end lies before the beginning."""
    if since_ns and until_ns and since_ns > until_ns:
        raise InvalidParameter(
            f"`since` time ({since_ns // 10**9}.{since_ns % 10**9:09d}) cannot be after "
            f"`until` time ({until_ns // 10**9}.{until_ns % 10**9:09d})"
        )

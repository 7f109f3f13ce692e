"""Legacy links between containers of the default bridge, as inspect and ps show them.

A link is stored as the client gave it (`db`, `db:alias`). dockerd shows `/db:/me/alias`, and gives the linked container the
further name `/me/alias`. On other networks a link is an alias of the endpoint alone, and shown there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from plugin_sdk import EngineError
from plugin_sdk.containers import ContainerRecord

if TYPE_CHECKING:
    from .service import ContainerService

_DEFAULT_NETWORK = ("", "default", "bridge")


def shown(service: ContainerService, record: ContainerRecord) -> list[str]:
    """`HostConfig.Links` of inspect."""
    return [f"/{_target(service, ref)[1]}:/{record.Name}/{alias}" for ref, alias in _links(record)]


def names(service: ContainerService) -> dict[str, list[str]]:
    """Container ID to the names that other containers' links give it, `/me/alias`, sorted."""
    found: dict[str, list[str]] = {}
    for record in service.list():
        for ref, alias in _links(record):
            if target := _target(service, ref)[0]:
                found.setdefault(target, []).append(f"/{record.Name}/{alias}")
    return {target: sorted(given) for target, given in found.items()}


def _links(record: ContainerRecord) -> list[tuple[str, str]]:
    """(container, alias)."""
    if not record.HostConfig.Links or record.HostConfig.NetworkMode not in _DEFAULT_NETWORK:
        return []
    parts = (text.partition(":") for text in record.HostConfig.Links)
    return [(ref.removeprefix("/"), alias.rpartition("/")[2] or ref.removeprefix("/")) for ref, _, alias in parts]


def _target(service: ContainerService, ref: str) -> tuple[str, str]:
    """ID and name of the linked container; "" and the text itself when it is gone."""
    try:
        record = service.get(ref)
    except EngineError:
        return "", ref
    return record.Id, record.Name

"""Removing what is not in use, and links."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from plugin_sdk import Conflict, EngineError, Event, InvalidParameter, NotFound
from plugin_sdk.containers import ContainerStatus
from plugin_sdk.text import Filters

from . import filters
from .listing import all_pass

if TYPE_CHECKING:
    from .service import ContainerService


async def prune(service: ContainerService, wanted: Filters) -> tuple[list[str], int]:
    """Remove all stopped containers that pass the filters; gives their IDs and the bytes that were freed."""
    idle = (ContainerStatus.CREATED, ContainerStatus.EXITED, ContainerStatus.DEAD)
    tests = filters.prune_tests(wanted)
    removed: list[str] = []
    freed = 0
    for record in service.list():
        if record.State.Status not in idle or record.State.Starting or not all_pass(tests, record):
            continue
        written, _ = await service.sizes.of(record)
        try:
            await service.remove(record.Id)
        except (Conflict, NotFound):
            continue  # started or removed by somebody else meanwhile
        except EngineError as error:
            service.ctx.log.warning("prune: container %s stays: %s", record.Id[:12], error)
            continue
        removed.append(record.Id)
        freed += written
    if removed:
        await asyncio.gather(*(service.settled(container_id) for container_id in removed))
    service.ctx.events.publish(Event("container", "prune", "", {"reclaimed": str(freed)}))
    return removed, freed


async def remove_link(service: ContainerService, ref: str) -> None:
    """Remove the link `parent/alias`. Raises Conflict for a plain name, NotFound for no such link."""
    parent, slash, alias = ref.strip("/").rpartition("/")
    if not slash:
        service.get(ref)
        raise Conflict("Conflict, cannot remove the default link name of the container")
    record = service.get(parent)
    kept = [link for link in record.HostConfig.Links if link.rpartition(":")[2].rpartition("/")[2] != alias]
    if len(kept) == len(record.HostConfig.Links):
        raise NotFound(f"No such container: {ref}")
    if record.State.running:
        raise InvalidParameter(f"container {record.Name} is running: stop it before removing a link of it")
    host = record.HostConfig.model_copy(update={"Links": kept})
    await service.update(record.Id, lambda present: present.model_copy(update={"HostConfig": host}))

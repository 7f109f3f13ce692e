"""Routes of the containers plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter

from . import exec, files, lifecycle, streams

if TYPE_CHECKING:
    from ..service import ContainerService


def routes(service: ContainerService) -> APIRouter:
    """All of them; each module's `router(service)` makes its own."""
    whole = APIRouter()
    for module in (lifecycle, streams, exec, files):
        whole.include_router(module.router(service))
    return whole

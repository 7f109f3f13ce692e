"""Volumes: drivers in the shape of Docker's VolumeDriver protocol 1.0, and the service over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from kernel.contracts.common import Wire, deadline


class VolumeRecord(Wire):
    """A volume as the engine knows it.

    Attributes:
        Owner: ID of the container that it was made for, for an anonymous one.
    """

    Name: str
    Driver: str = "local"
    CreatedAt: str = ""
    Labels: dict[str, str] = {}
    Options: dict[str, str] = {}
    Scope: str = "local"
    Anonymous: bool = False
    Owner: str = ""


@dataclass(frozen=True, slots=True)
class DriverVolume:
    """A volume as its driver knows it."""

    name: str
    mountpoint: str = ""
    created_at: str = ""
    status: Mapping[str, Any] = field(default_factory=dict)


class VolumeDriver(Protocol):
    """Keeps volumes. Mount points are paths on the host."""

    @deadline(120.0)
    async def create(self, name: str, options: Mapping[str, str]) -> None:
        """Raises InvalidParameter for options. Creating an existing one with the same options is fine."""

    async def remove(self, name: str) -> None:
        """Removing what is not there is fine."""

    @deadline(120.0)
    async def mount(self, name: str, request: str) -> str:
        """Make it usable; gives the mount point. `request` is unique per start of a container: count by it."""

    async def unmount(self, name: str, request: str) -> None:
        """Undo one mount; an unknown request is fine."""

    async def path(self, name: str) -> str:
        """Mount point, "" while it has none."""

    async def get(self, name: str) -> DriverVolume:
        """Raises NotFound."""

    async def list(self) -> Sequence[DriverVolume]:
        """All of this driver's."""

    def scope(self) -> str:
        """ "local" or "global"."""


class Volumes(Protocol):
    """Service: the volumes of all drivers."""

    def get(self, name: str) -> VolumeRecord:
        """Raises NotFound ("get NAME: no such volume")."""

    def list(self) -> Sequence[VolumeRecord]:
        """All; a snapshot."""

    async def create(
        self,
        name: str = "",
        *,
        driver: str = "local",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> VolumeRecord:
        """Make one, or give the existing one of that name (Conflict when its driver differs). "" makes a name up."""

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Raises Conflict, naming the containers, while in use."""

    async def usage(self, name: str) -> int:
        """Bytes that the volume's content takes, for `system df`; -1 where its driver cannot tell. Raises NotFound."""

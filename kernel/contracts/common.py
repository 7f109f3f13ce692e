"""Small types that several contracts share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, model_validator

F = TypeVar("F", bound=Callable[..., Any])


def deadline(seconds: float) -> Callable[[F], F]:
    """Mark a contract's method: one call may take so long, whatever the driver's own deadline is."""

    def mark(method: F) -> F:
        method.engine_deadline = seconds  # type: ignore[attr-defined]
        return method

    return mark


class Wire(BaseModel):
    """Base of the models that carry the Docker Engine API's own field names.

    Reads JSON as the Go clients and servers do: key case does not matter, null means the zero value, unknown keys
    are ignored. Instances are frozen: they are shared by readers that take no lock; change one with
    `model_copy(update=...)`.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _fold(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        fields = cls.model_fields
        folded: dict[str, Any] = {}
        by_lower: dict[str, str] | None = None
        for key, value in data.items():
            if value is None:
                continue
            if key not in fields:
                if by_lower is None:
                    by_lower = {name.lower(): name for name in fields}
                key = by_lower.get(str(key).lower(), key)
            folded[key] = value
        return folded


class IdRange(Wire):
    """`Size` IDs, from `Inside` in a user namespace and from `Host` outside of it."""

    Inside: int
    Host: int
    Size: int


class IdMap(Wire):
    """A user namespace's IDs; source: user_namespaces(7)."""

    Uids: list[IdRange]
    Gids: list[IdRange]

    @property
    def root(self) -> tuple[int, int]:
        """The host's uid and gid of the namespace's root. Raises ValueError when it has none."""
        return self.outside(0, 0)

    def outside(self, uid: int, gid: int) -> tuple[int, int]:
        """The host's IDs of a namespace's. Raises ValueError for those that it does not have."""
        return _moved(uid, self.Uids, inward=False), _moved(gid, self.Gids, inward=False)

    def inside(self, uid: int, gid: int) -> tuple[int, int]:
        """A namespace's IDs of the host's; what it does not have shows as nobody (65534), as in the namespace."""
        found = []
        for number, ranges in ((uid, self.Uids), (gid, self.Gids)):
            try:
                found.append(_moved(number, ranges, inward=True))
            except ValueError:
                found.append(_OVERFLOW)
        return found[0], found[1]


_OVERFLOW = 65534


def _moved(number: int, ranges: list[IdRange], *, inward: bool) -> int:
    for part in ranges:
        here, there = (part.Host, part.Inside) if inward else (part.Inside, part.Host)
        if here <= number < here + part.Size:
            return there + number - here
    raise ValueError(f"ID {number} is not mapped into the user namespace")


@dataclass(frozen=True, slots=True)
class Holder:
    """Something that keeps an object in use.

    Attributes:
        kind: what holds it: "container", "image", "network", "volume", "plugin", ...
        id: its ID.
        name: its name for people.
        detail: what matters for a refusal, for example "running" or "stopped".
    """

    kind: str
    id: str
    name: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name or self.id[:12]}" + (f" ({self.detail})" if self.detail else "")

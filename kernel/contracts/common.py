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

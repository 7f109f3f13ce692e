"""Containers whose logs are sent away."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from harness import Client


@pytest.fixture
def container(engine: Client) -> Iterator[Callable[..., str]]:
    """`container(script, *options)` runs a script to its end, or with "-d" starts it; removed in the end."""
    made: list[str] = []

    def make(script: str, *options: str) -> str:
        made.append(engine.name())
        engine.docker("run", "--network", "none", "--name", made[-1], *options, engine.image, "sh", "-c", script)
        return made[-1]

    yield make
    engine.docker("rm", "-f", *made)

"""Plugins as an author makes them: `engine plugin init`, `engine plugin build`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Client

Built = Callable[[str], Path]


@pytest.fixture(scope="session")
def built(engine: Client, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """`built("volume")` is the folder of a managed plugin of this kind, made once for the session."""
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            engine.engine("plugin", "init", f"acme-{kind}", "--kind", kind, "--managed", "-o", folder / "project")
            engine.engine("plugin", "build", folder / "project", "-o", folder / "plugin", timeout=300)
            made[kind] = folder / "plugin"
        return made[kind]

    return make


@pytest.fixture
def enabled(engine: Client, built: Built) -> Iterator[Callable[..., str]]:
    """`enabled("volume", "KEY=VALUE")` gives the name of a plugin of this kind that runs."""
    names: list[str] = []

    def enable(kind: str, *settings: str) -> str:
        name = f"acme/{engine.name()}:1"
        engine.docker("plugin", "create", name, built(kind), timeout=120)
        names.append(name)
        if settings:
            engine.docker("plugin", "set", name, *settings)
        engine.docker("plugin", "enable", name)
        return name

    yield enable
    for name in names:
        engine.docker("plugin", "rm", "-f", name)

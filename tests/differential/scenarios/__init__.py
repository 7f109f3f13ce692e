"""All scenarios. A module for each area, each with its `SCENARIOS`."""

from __future__ import annotations

from differential.scenario import Scenario
from differential.scenarios import create, files, images, life, looking, objects, run, streams, wire

SCENARIOS: list[Scenario] = [
    *create.SCENARIOS,
    *run.SCENARIOS,
    *life.SCENARIOS,
    *looking.SCENARIOS,
    *streams.SCENARIOS,
    *files.SCENARIOS,
    *images.SCENARIOS,
    *objects.SCENARIOS,
    *wire.SCENARIOS,
]

"""wire."""

from __future__ import annotations

from differential.scenario import Scenario

SCENARIOS: list[Scenario] = []

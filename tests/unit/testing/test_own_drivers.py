"""Our own drivers of volumes, logs and addresses hold the kits of their contracts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from harness import drivers

from plugin_sdk.testing.kit import Kit, Outcome
from plugin_sdk.testing.kits import ipam, log, volume
from plugin_sdk.testing.subjects import made_by

CANNOT_READ = {
    "read-back", "pieces", "written-is-kept", "open-again", "tail", "since-and-until", "streams", "containers-are-apart",
}  # fmt: skip
NO_ADDRESSES = {check.name for check in ipam.KIT.checks}


@pytest.mark.parametrize(
    ("kit", "factory", "not_applying"),
    [
        (volume.KIT, drivers.local_volumes, set()),
        (log.KIT, drivers.json_file, set()),
        (log.KIT, drivers.local_logs, CANNOT_READ),
        (ipam.KIT, drivers.default_ipam, set()),
        (ipam.KIT, drivers.null_ipam, NO_ADDRESSES),
    ],
)
async def test_kit(kit: Kit, factory: Callable[..., Any], not_applying: set[str]) -> None:
    results = [each async for each in kit.run(made_by(factory, kit))]
    assert [each for each in results if each.outcome is Outcome.BROKEN] == []
    assert {each.check for each in results if each.outcome is Outcome.DOES_NOT_APPLY} == not_applying

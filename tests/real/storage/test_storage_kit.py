"""overlay2 holds the kit of its contract."""

import pytest
from harness import drivers

from plugin_sdk.testing.kit import Outcome
from plugin_sdk.testing.kits import storage
from plugin_sdk.testing.subjects import made_by

pytestmark = pytest.mark.real

CHECKS = {check.name: check for check in storage.KIT.checks}


@pytest.mark.parametrize("name", CHECKS)
async def test_overlay2(real_host: None, name: str) -> None:
    result = await storage.KIT.run_one(CHECKS[name], made_by(drivers.overlay2, storage.KIT))
    assert result.outcome is Outcome.HOLDS, result.detail

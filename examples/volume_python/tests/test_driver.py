"""The driver fulfils its contract; and what it does beyond."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from volume_python.driver import VolumePython

from plugin_sdk import InvalidParameter
from plugin_sdk.testing.kit import Check, Outcome
from plugin_sdk.testing.kits.volume import KIT
from plugin_sdk.testing.subjects import made_by


@pytest.mark.parametrize("check", KIT.checks, ids=lambda check: check.name)
def test_contract(check: Check) -> None:
    result = asyncio.run(KIT.run_one(check, made_by(VolumePython, KIT)))
    assert result.outcome is not Outcome.BROKEN, f"{result.claim}: {result.detail} ({result.says})"


def test_mode(tmp_path: Path) -> None:
    driver = VolumePython(tmp_path)
    asyncio.run(driver.create("one", {"mode": "700"}))
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o700
    with pytest.raises(InvalidParameter, match="octal"):
        asyncio.run(driver.create("two", {"mode": "rwx"}))

"""The bridge driver and both runtimes hold the kits of their contracts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import drivers

from plugin_sdk.testing.kit import Outcome
from plugin_sdk.testing.kits import runtime
from plugin_sdk.testing.subjects import made_by

pytestmark = pytest.mark.real

TESTS = Path(__file__).parents[2]
CHECKS = {check.name: check for check in runtime.KIT.checks}


@pytest.mark.parametrize("which", ["crun", "runc"])
@pytest.mark.parametrize("name", CHECKS)
async def test_runtime(real_host: None, which: str, name: str) -> None:
    factory = getattr(drivers, which)
    result = await runtime.KIT.run_one(CHECKS[name], made_by(factory, runtime.KIT))
    assert result.outcome is Outcome.HOLDS, result.detail


def test_bridge(real_host: None) -> None:
    """In a network namespace of its own, through pytest's option."""
    pytest_ = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-rs",
        "--engine-driver=harness.drivers:bridge",
    ]
    where = os.environ | {"PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"}
    done = subprocess.run(
        ["unshare", "--net", *pytest_], env=where, capture_output=True, text=True, timeout=300, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "11 passed, 1 skipped" in done.stdout
    assert "does not apply: the driver ignores options that it does not know" in done.stdout

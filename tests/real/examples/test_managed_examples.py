"""The managed examples, in C and in Python: built, verified, pushed, removed, installed and used by containers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from harness import Client, Registry

pytestmark = pytest.mark.real

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


@pytest.fixture(scope="session")
def python_built(engine: Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python example as config.json and rootfs."""
    folder = tmp_path_factory.mktemp("volume-python")
    shutil.copytree(EXAMPLES / "volume_python", folder / "project")
    engine.engine("plugin", "build", folder / "project", "-o", folder / "plugin", timeout=300)
    return folder / "plugin"


@pytest.mark.parametrize("language", ["c", "python"])
def test_the_whole_way(engine: Client, built: Path, request: pytest.FixtureRequest, language: str) -> None:
    folder: Path = built if language == "c" else request.getfixturevalue("python_built")
    verified = engine.engine("plugin", "verify", folder, timeout=300)
    assert ", 0 broken" in verified.stdout
    with Registry(netns=engine.netns) as registry:
        name, volume = f"{registry.host}/examples/{engine.name(language)}:1", engine.name("volume")
        engine.docker("plugin", "create", name, folder, timeout=120)
        engine.docker("plugin", "push", name, timeout=120)
        engine.docker("plugin", "rm", name)
        engine.docker("plugin", "install", "--grant-all-permissions", name, timeout=120)
        engine.docker("volume", "create", "-d", name, volume)
        engine.docker("run", "--rm", "-v", f"{volume}:/v", engine.image, "sh", "-c", "echo kept > /v/file")
        engine.engine("plugin", "upgrade", "--grant-all-permissions", name, timeout=120)
        read = engine.docker("run", "--rm", "-v", f"{volume}:/v", engine.image, "cat", "/v/file")
        assert read.stdout == "kept\n"
        told = json.loads(engine.docker("volume", "inspect", volume).stdout)[0]
        assert told["Driver"] == name
        engine.docker("volume", "rm", volume)
        engine.docker("plugin", "disable", name)
        engine.docker("plugin", "rm", name)

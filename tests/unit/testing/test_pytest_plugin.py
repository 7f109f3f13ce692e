"""`pytest --engine-driver`, as an author uses it in a project of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = '''
"""A driver of somebody else's."""
from pathlib import Path

class Volumes:
    def __init__(self, root): self.root = root
    async def create(self, name, options): (self.root / name).mkdir(exist_ok=True)
    async def remove(self, name):
        import shutil
        shutil.rmtree(self.root / name, ignore_errors=True)
    async def mount(self, name, request): return str(self.root / name)
    async def unmount(self, name, request): pass
    async def path(self, name): return str(self.root / name)
    async def get(self, name):
        from plugin_sdk import NotFound
        from plugin_sdk.volumes import DriverVolume
        if not (self.root / name).exists(): raise NotFound(name)
        return DriverVolume(name)
    async def list(self):
        from plugin_sdk.volumes import DriverVolume
        return [DriverVolume(each.name) for each in self.root.iterdir()]
    def scope(self): return "local"

class Forgetful(Volumes):
    async def list(self): return []

def nothing(): return object()

def raises(): raise RuntimeError("no server here")
'''


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(DRIVER)
    (tmp_path / "test_mine.py").write_text("def test_of_ones_own():\n    assert True\n")
    return tmp_path


def run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Said twice it would be refused: where the engine is installed, pytest has found the plugin by itself.
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    where = {"PYTHONPATH": str(project)}
    return subprocess.run(
        command, cwd=project, env=os.environ | where, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_sound_driver(project: Path) -> None:
    done = run(project, "--engine-driver=mine:Volumes", "-v")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mine:Volumes::VolumeDriver::data-stays PASSED" in done.stdout
    assert "test_of_ones_own" not in done.stdout
    assert "does not apply: the driver takes any option" in run(project, "--engine-driver=mine:Volumes", "-rs").stdout


def test_a_broken_driver(project: Path) -> None:
    done = run(project, "--engine-driver=mine:Forgetful", "-k", "restart or known")
    assert done.returncode == 1
    assert "expected list to name" in done.stdout
    assert "see VolumeDriver.list: All of this driver's." in done.stdout
    assert "2 failed" in done.stdout


def test_beside_tests_of_ones_own(project: Path) -> None:
    done = run(project, "--engine-driver=mine:Volumes", "test_mine.py", "-v")
    assert "test_mine.py::test_of_ones_own PASSED" in done.stdout
    assert "mine:Volumes::VolumeDriver::restart PASSED" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--engine-driver=mine:nothing"], "object fulfils no driver contract"),
        (["--engine-driver=mine:raises"], "mine:raises: no server here"),
        (["--engine-driver=mine"], "names no factory: want package.module:factory"),
        (["--engine-driver=mine:Volumes", "--engine-driver-opt", "x"], "'x': want KEY=VALUE"),
    ],
)
def test_what_cannot_be_is_said_plainly(project: Path, arguments: list[str], words: str) -> None:
    done = run(project, *arguments)
    assert done.returncode == 4
    assert words in done.stderr
    assert "INTERNALERROR" not in done.stdout


KERNEL = '''
"""Uses the fixture `engine_kernel`."""
import asyncio
from plugin_sdk import DriverSpec, Plugin, PluginMeta, SkipPlugin, hookimpl
from plugin_sdk.volumes import VolumeDriver

class Mine(Plugin):
    meta = PluginMeta(name="mine", drivers=(VolumeDriver,))
    async def start(self, ctx): self.root = ctx.root
    @hookimpl
    def engine_drivers(self):
        from mine import Volumes
        return [DriverSpec(VolumeDriver, "mine", Volumes(self.root))]

class Absent(Plugin):
    meta = PluginMeta(name="absent")
    async def start(self, ctx): raise SkipPlugin("not on this machine")

def test_it(engine_kernel):
    async def work():
        async with engine_kernel(Mine) as kernel:
            driver = kernel.drivers.get(VolumeDriver, "mine")
            await driver.create("x", {})
        async with engine_kernel(Mine) as kernel:
            assert [each.name for each in await kernel.drivers.get(VolumeDriver, "mine").list()] == ["x"]
    asyncio.run(work())

def test_why_not(engine_kernel):
    async def work():
        async with engine_kernel(Absent): pass
    try:
        asyncio.run(work())
    except Exception as error:
        assert "'absent' does not run: skipped: not on this machine" in str(error)
    else:
        raise AssertionError
'''


def test_a_kernel_in_the_test(project: Path) -> None:
    (project / "test_kernel.py").write_text(KERNEL)
    done = run(project, "test_kernel.py")
    assert done.returncode == 0, done.stdout

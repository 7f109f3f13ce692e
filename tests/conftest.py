"""Fixtures for tests against a live engine.

    engine       one daemon for the whole session; for tests that neither stop it nor need flags
    own_engine   makes daemons for one test: `own_engine("--icc=false")`

Set ENGINE_TEST_HOST to a DOCKER_HOST (and ENGINE_TEST_NETNS to its network namespace) to run the tests of `engine`
against another engine: that is how we know that a test asks for what Docker really does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
# On Debian 12, `make setup` puts the docker CLI beside the interpreter.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

from harness import Client, Engine, External

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"

TOOLS = {
    "busybox": "busybox-static",
    "conmon": "conmon",
    "crun": "crun",
    "docker": "docker-cli (docker.io on Debian 12)",
    "docker-registry": "docker-registry",
    "ip": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
    "rsyslogd": "rsyslog",
    "runc": "runc",
}
"""Programs that tests with real containers need, and the Debian packages that have them."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of tests/differential."""
    parser.addoption("--reference", metavar="HOST", help="compare with this engine instead of with its transcript")


@pytest.fixture(scope="session")
def real_host() -> None:
    """The machine can run real containers; fails, with the mend, where it cannot."""
    if os.geteuid() != 0:
        pytest.fail("tests with real containers need root")
    missing = [package for tool, package in TOOLS.items() if not shutil.which(tool)]
    if missing:
        pytest.fail(f"missing Debian packages (make setup installs them): {', '.join(missing)}")
    subprocess.run([SCRIPTS / "prepare-host"], check=True, timeout=60)


@pytest.fixture(scope="session")
def busybox_tar(real_host: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system with busybox, as a tar for `docker import`."""
    path = tmp_path_factory.mktemp("busybox") / "busybox.tar"
    subprocess.run([SCRIPTS / "busybox-rootfs", path], check=True, timeout=60)
    return path


def import_busybox(engine: Client, tar: Path) -> None:
    """Give the engine an image `busybox:latest` whose command is a shell."""
    engine.docker("import", "--change", 'CMD ["sh"]', tar, "busybox:latest")


def _destroy(engine: Engine) -> None:
    complaints = engine.destroy()
    if complaints:
        pytest.fail("left behind:\n" + "\n".join(complaints), pytrace=False)


@pytest.fixture(scope="session")
def engine(real_host: None, busybox_tar: Path) -> Iterator[Client]:
    """A running engine with the image `busybox`, shared by all tests of the session."""
    if host := os.environ.get("ENGINE_TEST_HOST"):
        netns = os.environ.get("ENGINE_TEST_NETNS")
        external = External(host, Path(netns) if netns else None)
        if external.docker("image", "inspect", "busybox", check=False).returncode != 0:
            import_busybox(external, busybox_tar)
        yield external
        return
    ours = Engine()
    try:
        ours.start()
        import_busybox(ours, busybox_tar)
        yield ours
    finally:
        _destroy(ours)


@pytest.fixture
def own_engine(real_host: None, busybox_tar: Path) -> Iterator[Callable[..., Engine]]:
    """Makes engines for one test.

    `own_engine(*flags, start=True, image=True, netns=None, environment=None)`: with `start`, it runs; with `image`, it
    has busybox; with `netns`, it shares another engine's network namespace.
    """
    if os.environ.get("ENGINE_TEST_HOST"):
        pytest.skip("ENGINE_TEST_HOST names an engine that these tests may not stop")
    made: list[Engine] = []

    def make(
        *flags: str,
        start: bool = True,
        image: bool = True,
        netns: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Engine:
        new = Engine(*flags, netns=netns, environment=environment)
        made.append(new)
        if start:
            new.start()
            if image:
                import_busybox(new, busybox_tar)
        return new

    yield make
    complaints: list[str] = []
    for old in reversed(made):
        complaints += old.destroy()
    if complaints:
        pytest.fail("left behind:\n" + "\n".join(complaints), pytrace=False)


@pytest.fixture(scope="session")
def thirdparty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the distribution of tests/thirdparty installed, for a daemon's PYTHONPATH."""
    folder = tmp_path_factory.mktemp("thirdparty")
    # A copy: building leaves files beside the source.
    shutil.copytree(Path(__file__).parent / "thirdparty", folder / "source")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    install = [sys.executable, "-m", "pip", "install", *options, "--target", folder / "site", folder / "source"]
    subprocess.run(install, check=True, timeout=120)
    return folder / "site"


@pytest.fixture
def host_dir(engine: Client, tmp_path: Path) -> Path:
    """A folder that the engine sees under the same path, for bind mounts."""
    if isinstance(engine, External):
        pytest.skip("the engine of ENGINE_TEST_HOST may have other files")
    return tmp_path

"""What pytest gets from the engine; it is found by itself (entry point `pytest11`) wherever the engine is installed.

    pytest --engine-driver=my_package.testing:driver            the kit of the contract that the driver fulfils
    pytest --engine-driver=... --engine-driver-opt server=x     options for the volumes, logs and networks that it makes
    pytest --engine-driver=... -k restart                       some of its checks

Without paths on the command line the kit alone is run. Fixtures: `throwaway_engine`, `engine_kernel`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from kernel.boot import Kernel
    from kernel.contracts.plugin import Plugin
    from plugin_sdk.testing.engine import Engine
    from plugin_sdk.testing.kit import Check, Kit, Result, Subject

TOOLS = {
    "conmon": "conmon",
    "docker": "docker-cli (docker.io on Debian 12)",
    "ip": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
}
"""Programs that a throw-away engine needs, and the Debian packages that have them."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options."""
    group = parser.getgroup("engine", "container engine")
    group.addoption(
        "--engine-driver",
        action="append",
        default=[],
        metavar="PACKAGE.MODULE:FACTORY",
        help="run the conformance kit of the driver that the factory makes (repeatable)",
    )
    group.addoption(
        "--engine-driver-opt",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="option for all that the kit creates (repeatable)",
    )


def _kits_alone(config: pytest.Config) -> bool:
    return bool(config.getoption("--engine-driver")) and config.args_source is not pytest.Config.ArgsSource.ARGS


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files are only looked at when they are named, or no driver is."""
    return True if _kits_alone(config) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add the checks of the drivers' kits, before `-k` and `-m` choose among the items."""
    drivers = config.getoption("--engine-driver")
    if not drivers:
        return
    if _kits_alone(config):
        items.clear()
    for text in drivers:
        items += _items(session, text, _options(config))


def _options(config: pytest.Config) -> dict[str, str]:
    pairs = [text.partition("=") for text in config.getoption("--engine-driver-opt")]
    if bad := [key for key, equals, _ in pairs if not equals]:
        raise pytest.UsageError(f"--engine-driver-opt {bad[0]!r}: want KEY=VALUE")
    return {key: value for key, _, value in pairs}


def _items(session: pytest.Session, text: str, options: Mapping[str, str]) -> list[pytest.Item]:
    from plugin_sdk.testing import subjects

    try:
        factory = subjects.load(text)
        kits = asyncio.run(_kits(subjects.made_by(factory)))
    except Exception as error:  # the factory is the author's: whatever it raises, they have to read it
        raise pytest.UsageError(f"--engine-driver {text}: {error or type(error).__name__}") from error
    found: list[pytest.Item] = []
    for kit in kits:
        subject = subjects.made_by(factory, kit, name=text.rpartition(":")[2], options=options)
        parent = _Kit.from_parent(session, name=kit.name, nodeid=f"{text}::{kit.name}")
        found += [
            _Claim.from_parent(parent, name=check.name, kit=kit, claim=check, subject=subject) for check in kit.checks
        ]
    return found


async def _kits(subject: Subject[Any]) -> list[Kit]:
    from plugin_sdk.testing.subjects import kits_of

    with tempfile.TemporaryDirectory(prefix="engine-verify-") as folder:
        async with subject.open(Path(folder)) as driver:
            return kits_of(driver)


class _Kit(pytest.Collector):
    """A driver and its kit, in pytest's tree."""

    def collect(self) -> Iterator[pytest.Item]:
        return iter(())


class _Claim(pytest.Item):
    """One check."""

    def __init__(self, *, kit: Kit, claim: Check, subject: Subject[Any], **more: Any) -> None:
        super().__init__(**more)
        self._kit, self._check, self._subject = kit, claim, subject

    def runtest(self) -> None:
        """Run it, in an event loop of its own."""
        from plugin_sdk.testing.kit import Outcome

        result: Result = asyncio.run(self._kit.run_one(self._check, self._subject))
        if result.outcome is Outcome.DOES_NOT_APPLY:
            pytest.skip(f"does not apply: {result.detail}")
        if result.outcome is Outcome.BROKEN:
            pytest.fail(f"{result.claim}\n{result.detail}\nsee {result.says}", pytrace=False)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where it comes from."""
        return self.path, None, self.nodeid


@pytest.fixture
def throwaway_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Engine]]:
    """Makes real engines for one test, each with roots, a socket and a network namespace of its own.

    `throwaway_engine(*flags, start=True, image=True, environment=None)`: with `start` it runs, with `image` it has
    `busybox`. At the end all is removed, and the test fails if an engine left something behind. Needs root.
    """
    from plugin_sdk.testing import busybox
    from plugin_sdk.testing.engine import Engine

    if os.geteuid() != 0:
        pytest.fail("a throw-away engine needs root")
    if missing := [package for tool, package in TOOLS.items() if not shutil.which(tool)]:
        pytest.fail(f"a throw-away engine needs the Debian packages {', '.join(missing)}")
    made: list[Engine] = []

    def make(
        *flags: str, start: bool = True, image: bool = True, environment: Mapping[str, str] | None = None
    ) -> Engine:
        new = Engine(*flags, environment=environment)
        made.append(new)
        if start:
            new.start()
            if image:
                folder = tmp_path_factory.mktemp("busybox")
                tar = busybox.archive(folder / "busybox.tar", folder / "rootfs")
                new.docker("import", "--change", 'CMD ["sh"]', tar, "busybox:latest")
        return new

    yield make
    complaints = [complaint for old in reversed(made) for complaint in old.destroy()]
    if complaints:
        pytest.fail("left behind:\n" + "\n".join(complaints), pytrace=False)


@pytest.fixture
def engine_kernel(tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[Kernel]]:
    """`async with engine_kernel(MyPlugin, settings={...}) as kernel`: see `plugin_sdk.testing.kernel.running`."""
    from plugin_sdk.testing.kernel import running

    def make(
        *plugins: type[Plugin], settings: Mapping[str, Mapping[str, Any]] | None = None
    ) -> AbstractAsyncContextManager[Kernel]:
        return running(*plugins, folder=tmp_path / "engine", settings=settings)

    return make

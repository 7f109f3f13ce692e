"""Every scenario on our engine and on the reference: from its transcript, or with `--reference` side by side."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Client, External

from differential.comparing import Listed, compare, gone, load_listed, unlisted
from differential.driving import Answer, Driver, cli_version
from differential.images import write_archive
from differential.scenario import Scenario
from differential.scenarios import SCENARIOS
from differential.transcript import Transcript

pytestmark = pytest.mark.real

MET: set[tuple[Listed, str]] = set()
"""What of the list occurred in which scenario."""
DRIVEN: set[str] = set()
"""Scenarios that were compared."""


@pytest.fixture(scope="session")
def archive(busybox_tar: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images."""
    return write_archive(busybox_tar, tmp_path_factory.mktemp("differential") / "images.tar")


@pytest.fixture(scope="session")
def listed(real_host: None) -> list[Listed]:
    """The differences that right.toml lists for this machine's CLI."""
    return load_listed(cli_version("docker"))


@pytest.fixture(scope="session")
def ours(engine: Client, archive: Path) -> Iterator[Driver]:
    """Our engine."""
    driver = Driver(engine)
    driver.prepare(archive)
    yield driver
    driver.leave()


@pytest.fixture(scope="session")
def reference(pytestconfig: pytest.Config, archive: Path) -> Iterator[Driver | Transcript]:
    """The engine of `--reference`, or what it once answered."""
    host = pytestconfig.getoption("--reference")
    if not host:
        yield Transcript.load(cli_version("docker"))
        return
    driver = Driver(External(host, None))
    driver.prepare(archive)
    yield driver
    driver.leave()


def test_names_are_unique() -> None:
    names = [each.name for each in SCENARIOS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.name)
def test_same(scenario: Scenario, ours: Driver, reference: Driver | Transcript, listed: list[Listed]) -> None:
    expected: dict[str, Answer] | None
    if isinstance(reference, Transcript):
        expected = reference.answers.get(scenario.name)
        assert expected is not None, "not in the transcript: scripts/record-reference writes it anew"
    else:
        expected = reference.drive(scenario)
    differences = compare(scenario.name, expected, ours.drive(scenario))
    DRIVEN.add(scenario.name)
    if left := unlisted(differences, listed, MET):
        pytest.fail("\n" + "\n".join(map(str, left)), pytrace=False)


def test_listed_differences_occur(listed: list[Listed]) -> None:
    """A difference that has gone must leave the list; a defect's going is only told."""
    missing = gone(listed, MET, DRIVEN, whole=len(DRIVEN) == len(SCENARIOS))
    for entry in missing:
        if entry.pending:
            warnings.warn(f"mended, and can leave right.toml: {_where(entry)}", stacklevel=1)
    right = [_where(entry) for entry in missing if not entry.pending]
    assert not right, "listed in right.toml, but no longer so:\n" + "\n".join(right)


def _where(entry: Listed) -> str:
    return f"{', '.join(entry.scenarios)}: {entry.step}: {entry.field}: {entry.reason}"

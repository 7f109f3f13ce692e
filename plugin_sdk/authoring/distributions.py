"""The Python distributions that go into a plugin: out of the running environment where it has them, by pip where not."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from kernel.errors import EngineError, InvalidParameter, NotSupported

ENGINE = "engine"
"""The distribution that has the SDK. Of it only the packages below go along: the rest is the daemon."""
PACKAGES = ("kernel", "plugin_sdk")
SERVING = ("httptools", "pluggy", "pydantic", "uvicorn")
"""What `plugin_sdk.serve` needs. Found missing here, a served driver fails in the tests of `build`."""
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", "testing", "templates", "authoring", "*.md")
_ABOUT_INSTALLATION = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
_SOURCES = (
    "__pycache__",
    ".git",
    ".hg",
    ".tox",
    ".venv",
    "venv",
    "*.egg-info",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
)
_PIP_SECONDS = 600


def copy_sdk(target: Path) -> None:
    """The SDK and what serving needs, into the folder `target`."""
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.submodule_search_locations
        shutil.copytree(spec.submodule_search_locations[0], target / package, ignore=_LEFT_OUT)
    copy_installed([Requirement(name) for name in SERVING], target)


def install_project(folder: Path, dependencies: Iterable[str], target: Path, scratch: Path, out: Path) -> None:
    """The project and its dependencies.

    Args:
        scratch: for the copy in which the project is built; its own folder stays as it is.
        out: where the plugin will be; not taken along.

    Raises:
        InvalidParameter: a dependency is written wrong.
        EngineError: pip failed, and what it said.
    """
    wanted = []
    for text in dependencies:
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            raise InvalidParameter(f"dependency {text!r}: {error}") from None
        if canonicalize_name(requirement.name) != ENGINE and _applies(requirement, ""):
            wanted.append(requirement)
    here = [requirement for requirement in wanted if _satisfied(requirement)]
    if missing := [str(requirement) for requirement in wanted if requirement not in here]:
        _pip("install", "--target", str(target), *missing)
    source = scratch / "project"

    def left_out(directory: str, names: list[str]) -> set[str]:
        ours = {name for name in names if Path(directory, name).resolve() == out}
        return ours | shutil.ignore_patterns(*_SOURCES)(directory, names)

    shutil.copytree(folder, source, ignore=left_out, symlinks=True)
    # Without isolation pip needs no index: setuptools is there already. Others are fetched.
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("setuptools") and _by_setuptools(source) else []
    _pip("install", "--no-deps", *isolation, "--target", str(target), str(source))
    copy_installed(here, target)
    shutil.rmtree(target / "bin", ignore_errors=True)
    for name in _ABOUT_INSTALLATION:
        for path in target.glob(f"*.dist-info/{name}"):
            path.unlink()


def copy_installed(requirements: Iterable[Requirement], target: Path) -> None:
    """Installed distributions, with all that they require, out of the running environment; what is there stays."""
    for found in _closure(requirements):
        for file in found.files or ():
            source = Path(str(found.locate_file(file)))
            if ".." in file.parts or "__pycache__" in file.parts or file.name in _ABOUT_INSTALLATION:
                continue
            path = target.joinpath(*file.parts)
            if source.is_file() and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, path)


def _closure(requirements: Iterable[Requirement]) -> Iterator[Distribution]:
    waiting = list(requirements)
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            found = distribution(requirement.name)
        except PackageNotFoundError:
            raise NotSupported(
                f"{requirement.name} is not installed here, and plugins need it: pip install it"
            ) from None
        yield found
        for text in found.requires or ():
            needed = Requirement(text)
            if any(_applies(needed, extra) for extra in ("", *requirement.extras)):
                waiting.append(needed)


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _satisfied(requirement: Requirement) -> bool:
    """Here in the right version, as an ordinary installation whose files are known."""
    if requirement.url:
        return False
    try:
        found = distribution(requirement.name)
    except PackageNotFoundError:
        return False
    editable = any(file.name.startswith("__editable__") for file in found.files or ())
    return bool(found.files) and not editable and requirement.specifier.contains(found.version, prereleases=True)


def _by_setuptools(source: Path) -> bool:
    import tomllib

    build = tomllib.loads((source / "pyproject.toml").read_text()).get("build-system", {})
    return str(build.get("build-backend", "setuptools.build_meta")).startswith("setuptools.")


def _pip(*arguments: str) -> None:
    if importlib.util.find_spec("pip") is None:
        raise NotSupported(f"{sys.executable} has no pip, which installs the project: python -m ensurepip")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    command += ["--quiet", "--no-compile", "--no-warn-script-location"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise EngineError(f"pip was still running after {_PIP_SECONDS} s: {' '.join(command)}") from None
    if done.returncode:
        raise EngineError(f"pip failed: {(done.stderr or done.stdout).strip()}")

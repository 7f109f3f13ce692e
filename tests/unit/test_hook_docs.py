"""Every hook is documented for authors, and some test names it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kernel.hookspecs import MODULES

PROJECT = Path(__file__).resolve().parents[2]
PAGE = (PROJECT / "docs/plugins/hooks.md").read_text()
TESTS = "\n".join(path.read_text() for path in (PROJECT / "tests").rglob("*.py") if path != Path(__file__))

HOOKS: dict[str, Callable[..., Any]] = {
    name: function
    for module in MODULES
    for name, function in vars(module).items()
    if name.startswith("engine_") and callable(function)
}


def _section(hook: str) -> str:
    found = re.search(rf"^### {hook}\(.*?(?=^##)", PAGE + "\n##", re.MULTILINE | re.DOTALL)
    assert found, f"docs/plugins/hooks.md has no heading for {hook}"
    return found.group(0)


def test_there_are_hooks() -> None:
    assert len(HOOKS) > 10


@pytest.mark.parametrize("hook", HOOKS)
def test_docstring(hook: str) -> None:
    text = inspect.getdoc(HOOKS[hook]) or ""
    assert len(text.split()) >= 10, f"{hook}: its docstring is its contract; say who calls it, when, what None means"


@pytest.mark.parametrize("hook", HOOKS)
def test_heading_with_its_exact_arguments(hook: str) -> None:
    arguments = ", ".join(inspect.signature(HOOKS[hook]).parameters)
    assert _section(hook).splitlines()[0] == f"### {hook}({arguments})"


@pytest.mark.parametrize("hook", HOOKS)
def test_mode_and_deadline_as_specified(hook: str) -> None:
    mode = HOOKS[hook].engine_mode  # type: ignore[attr-defined]
    deadline = HOOKS[hook].engine_deadline  # type: ignore[attr-defined]
    said = f"*{mode}" if mode == "sync" else f"*{mode}, {deadline:g} s"
    assert said in _section(hook), f"{hook}: the page must say {said!r}"


def test_no_heading_without_a_hook() -> None:
    assert set(re.findall(r"^### (engine_\w+)", PAGE, re.MULTILINE)) == set(HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_some_test_names_it(hook: str) -> None:
    assert re.search(rf"\b{hook}\b", TESTS), f"no test names {hook}"

"""Order of starts, and finding plugins through entry points."""

import sys
from pathlib import Path
from typing import Protocol

import pytest

from kernel import graph
from kernel.discovery import discover
from plugin_sdk import PluginMeta


class Bread(Protocol): ...


class Butter(Protocol): ...


def metas(*items: PluginMeta) -> dict[str, PluginMeta]:
    return {item.name: item for item in items}


def test_providers_start_before_those_who_require_or_want_them() -> None:
    plugins = metas(
        PluginMeta("eater", requires=(Bread,), wants=(Butter,)),
        PluginMeta("dairy", provides=(Butter,), wants=(Bread,)),
        PluginMeta("baker", provides=(Bread,)),
    )
    assert graph.order(plugins) == ["baker", "dairy", "eater"]


def test_all_who_contribute_drivers_start_before_those_who_want_them() -> None:
    plugins = metas(
        PluginMeta("eater", wants=(Butter,), drivers=(Bread,)),
        PluginMeta("cow", drivers=(Butter,)),
        PluginMeta("soy", drivers=(Butter,)),
    )
    assert graph.order(plugins) == ["cow", "soy", "eater"]


def test_a_circle_is_shown_by_name() -> None:
    plugins = metas(
        PluginMeta("a", provides=(Bread,), requires=(Butter,)), PluginMeta("b", provides=(Butter,), wants=(Bread,))
    )
    with pytest.raises(graph.GraphError, match="a -> b -> a"):
        graph.order(plugins)


def test_two_providers_are_both_named() -> None:
    plugins = metas(PluginMeta("a", provides=(Bread,)), PluginMeta("b", provides=(Bread,)))
    with pytest.raises(graph.GraphError, match="'a' and 'b' both provide Bread"):
        graph.check_providers(plugins)


def test_a_missing_requirement_says_what_and_what_to_do() -> None:
    why = graph.missing(PluginMeta("eater", requires=(Bread,)), set())
    assert "plugin 'eater' requires Bread" in why
    assert "enable or install" in why


@pytest.fixture
def distributions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of distributions that is found for the length of one test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("sample_")]:
        del sys.modules[name]


def install(folder: Path, distribution: str, module: str, source: str, entry: str) -> None:
    (folder / f"{module}.py").write_text(source)
    info = folder / f"{distribution}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[engine.plugins]\n{entry}\n")


GOOD = """
from plugin_sdk import Plugin, PluginMeta
class Sample(Plugin):
    meta = PluginMeta("sample")
"""


def found(name: str, **options: object):
    (item,) = [item for item in discover(**options) if item.name == name]
    return item


def test_a_stranger_is_found_after_our_own(distributions: Path) -> None:
    install(distributions, "stranger", "sample_good", GOOD, "sample = sample_good:Sample")
    item = found("sample")
    assert (item.distribution, item.version, item.error) == ("stranger", "1.2", "")
    assert item.plugin is not None
    own = [entry.distribution for entry in discover()]
    assert own.index("stranger") > max(place for place, name in enumerate(own) if name == "engine")


@pytest.mark.parametrize(
    ("source", "entry", "message"),
    [
        ("raise RuntimeError('bang')", "sample = sample_x:Sample", "cannot be loaded.*bang"),
        ("Sample = 5", "sample = sample_x:Sample", "does not name a subclass"),
        (GOOD, "other = sample_x:Sample", "make them equal"),
        (GOOD.replace('"sample"', '"sample", api=99'), "sample = sample_x:Sample", "generation 99"),
        ("from plugin_sdk import Plugin\nclass Sample(Plugin): pass", "sample = sample_x:Sample", "has no `meta"),
    ],
)
def test_what_cannot_be_used_is_kept_with_its_reason(
    distributions: Path, source: str, entry: str, message: str
) -> None:
    install(distributions, "stranger", "sample_x", source, entry)
    item = found(entry.split(" ", maxsplit=1)[0])
    assert item.plugin is None
    assert __import__("re").search(message, item.error), item.error


def test_two_distributions_with_one_name_are_both_named_and_neither_runs(distributions: Path) -> None:
    install(distributions, "one", "sample_one", GOOD, "sample = sample_one:Sample")
    install(distributions, "two", "sample_two", GOOD, "sample = sample_two:Sample")
    error = found("sample").error
    assert "one 1.2" in error
    assert "two 1.2" in error
    assert "sample_one" not in sys.modules


def test_a_blocked_plugin_is_not_imported(distributions: Path) -> None:
    install(distributions, "stranger", "sample_blocked", "raise AssertionError", "sample = sample_blocked:Sample")
    item = found("sample", blocked={"sample"})
    assert (item.plugin, item.error) == (None, "")
    assert "sample_blocked" not in sys.modules

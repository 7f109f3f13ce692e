"""What differs between two engines' answers, and which of that is right."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from differential.driving import Answer, version_number
from differential.normalise import ABSENT

LIST = Path(__file__).with_name("right.toml")


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference: `field` is exit, out, err, status or a JSON path."""

    scenario: str
    step: str
    field: str
    reference: Any
    ours: Any

    def __str__(self) -> str:
        where = f"{self.step}\n  {self.field}: "
        if isinstance(self.reference, list) and isinstance(self.ours, list) and not self.field.startswith("/"):
            lines = difflib.ndiff([str(each) for each in self.reference], [str(each) for each in self.ours])
            return where + "- reference, + ours\n" + "\n".join(f"    {line}" for line in lines if line[0] != "?")
        return where + f"reference {_shown(self.reference)}, ours {_shown(self.ours)}"


@dataclass(frozen=True, slots=True)
class Listed:
    """One field of an entry of right.toml.

    Attributes:
        number: of the entry.
        scenarios: names or patterns.
        step: pattern of the step's key.
        field: pattern of the field.
        ours: what ours must be; text is a pattern, for lines of those that the reference has not.
        reason: why it is right, or who mends it.
        pending: it is a defect: it may go without a word.
    """

    number: int
    scenarios: tuple[str, ...]
    step: str
    field: str
    ours: Any = dataclasses.field(hash=False)
    reason: str
    pending: bool

    def covers(self, difference: Difference) -> bool:
        """This is the difference that is listed."""
        return (
            any(_like(difference.scenario, each) for each in self.scenarios)
            and _like(difference.step, self.step)
            and _like(difference.field, self.field)
            and self._is_ours(difference)
        )

    def _is_ours(self, difference: Difference) -> bool:
        if self.ours == "*":
            return True
        if isinstance(self.ours, str) and isinstance(difference.ours, list):
            expected = difference.reference if isinstance(difference.reference, list) else []
            new = [line for line in difference.ours if line not in expected]
            return all(_like(str(line), self.ours) for line in new) if new else self.ours == ""
        if isinstance(self.ours, str):
            return _like("null" if difference.ours is None else str(difference.ours), self.ours)
        return bool(self.ours == difference.ours)


def load_listed(cli: str) -> list[Listed]:
    """The list for a version of the CLI. Raises ValueError for an entry without a reason."""
    made: list[Listed] = []
    document = tomllib.loads(LIST.read_text())
    entries = [(entry, kind == "defect") for kind in ("right", "defect") for entry in document.get(kind, [])]
    for number, (entry, pending) in enumerate(entries):
        if not entry["reason"].strip():
            raise ValueError(f"no reason: {entry}")
        if version_number(entry.get("since_cli", "0")) > version_number(cli):
            continue
        scenarios, step = tuple(entry.get("scenarios", ["*"])), entry.get("step", "*")
        made += [
            Listed(number, scenarios, step, f, ours, entry["reason"], pending) for f, ours in entry["ours"].items()
        ]
    return made


def gone(listed: Iterable[Listed], met: set[tuple[Listed, str]], driven: set[str], *, whole: bool) -> list[Listed]:
    """What did not occur: fields that occurred nowhere, and entries that did not occur in a scenario which they name.

    Args:
        driven: the scenarios that were compared.
        whole: those are all.
    """
    known = list(listed)
    fields = {entry for entry, _ in met}
    places = {(entry.number, scenario) for entry, scenario in met}
    left: list[Listed] = []
    for entry in known:
        named = {each for each in entry.scenarios if "*" not in each}
        if (whole or (named and named == set(entry.scenarios) and named <= driven)) and entry not in fields:
            left.append(entry)
        left += [
            dataclasses.replace(entry, scenarios=(each,))
            for each in sorted(named & driven)
            if (entry.number, each) not in places and entry in fields
        ]
    return left


def _like(text: str, pattern: str) -> bool:
    """A `*` in the pattern stands for anything."""
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), text, re.S) is not None


def compare(scenario: str, reference: dict[str, Answer], ours: dict[str, Answer]) -> list[Difference]:
    """All differences of one scenario."""
    found: list[Difference] = []
    for step in reference | ours:
        known, new = _fields(reference.get(step)), _fields(ours.get(step))
        for field in sorted(known.keys() | new.keys()):
            one, other = known.get(field, ABSENT), new.get(field, ABSENT)
            if one != other:
                found.append(Difference(scenario, step, field, one, other))
    return found


def unlisted(
    differences: Iterable[Difference], right: Iterable[Listed], met: set[tuple[Listed, str]]
) -> list[Difference]:
    """Those that no entry covers; notes in `met` which entry covered something in which scenario."""
    left: list[Difference] = []
    for difference in differences:
        entry = next((each for each in right if each.covers(difference)), None)
        if entry is None:
            left.append(difference)
        else:
            met.add((entry, difference.scenario))
    return left


def _fields(answer: Answer | None) -> dict[str, Any]:
    if answer is None:
        return {}
    fields = {key: value for key, value in answer.items() if key != "json"}
    if "json" in answer:
        leaves = answer["json"]
        fields |= leaves if isinstance(leaves, dict) else {"/": leaves}
    fields.setdefault("err", [])
    if "json" not in answer:
        fields.setdefault("out", [])
    return fields


def _shown(value: Any) -> str:
    return value if value == ABSENT else json.dumps(value, ensure_ascii=False)

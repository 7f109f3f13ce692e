"""What differs between two engines' answers, and which of that is right."""

from __future__ import annotations

import difflib
import fnmatch
import json
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from differential.driving import Answer
from differential.normalise import ABSENT

RIGHT = Path(__file__).with_name("right.toml")


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
class Right:
    """A listed difference.

    Attributes:
        scenarios: names or patterns; it must occur in each.
        step: pattern of the step's key.
        field: pattern of the field.
        ours: what ours must be; text is a pattern for the one line that differs.
        reason: why it is right.
    """

    scenarios: tuple[str, ...]
    step: str
    field: str
    ours: Any
    reason: str

    def covers(self, difference: Difference) -> bool:
        """This is the difference that is listed."""
        return (
            any(fnmatch.fnmatchcase(difference.scenario, each) for each in self.scenarios)
            and fnmatch.fnmatchcase(difference.step, self.step)
            and fnmatch.fnmatchcase(difference.field, self.field)
            and self._is_ours(difference)
        )

    def _is_ours(self, difference: Difference) -> bool:
        if isinstance(self.ours, str) and isinstance(difference.ours, list):
            expected = difference.reference if isinstance(difference.reference, list) else []
            new = [line for line in difference.ours if line not in expected]
            return bool(new) and all(fnmatch.fnmatchcase(str(line), self.ours) for line in new)
        if isinstance(self.ours, str):
            return fnmatch.fnmatchcase(str(difference.ours), self.ours)
        return bool(self.ours == difference.ours)


def load_right() -> list[Right]:
    """The list. Raises ValueError for an entry without a reason."""
    made: list[Right] = []
    for entry in tomllib.loads(RIGHT.read_text()).get("difference", []):
        if not entry["reason"].strip():
            raise ValueError(f"no reason: {entry}")
        made.append(
            Right(tuple(entry["scenarios"]), entry.get("step", "*"), entry["field"], entry["ours"], entry["reason"])
        )
    return made


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
    differences: Iterable[Difference], right: Iterable[Right], met: set[tuple[Right, str]]
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

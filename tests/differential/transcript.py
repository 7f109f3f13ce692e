"""What the reference engine answered, kept as JSON.

`transcript/` has one file for each version of the docker CLI that recorded: `cli-28.2.2.json`. The newest is whole; those
of older CLIs have only the steps that came out in another way. A container's JSON is kept as its differences from that of
the plain container of the same file, so that a reader sees what a flag did.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from differential.driving import Answer, version_number
from differential.normalise import ABSENT

FOLDER = Path(__file__).parent / "transcript"
Answers = dict[str, dict[str, Answer]]
"""By scenario's name, then by step's key."""

_PLAIN = "plain"


class Transcript:
    """The answers for one version of the CLI.

    Attributes:
        reference: the reference engine's version.
        answers: of all scenarios.
    """

    def __init__(self, reference: str, answers: Answers) -> None:
        self.reference = reference
        self.answers = answers

    @classmethod
    def load(cls, cli: str) -> Transcript:
        """The one for this CLI: recorded with the newest that is not newer than it, or else with the oldest."""
        known = sorted(recorded(), key=version_number)
        if not known:
            raise FileNotFoundError(f"no transcript in {FOLDER}; scripts/record-reference writes one")
        chosen = next((each for each in reversed(known) if version_number(each) <= version_number(cli)), known[0])
        whole = json.loads(_path(known[-1]).read_text())
        answers: Answers = whole["answers"]
        if chosen != known[-1]:
            for name, steps in json.loads(_path(chosen).read_text())["answers"].items():
                answers[name] |= steps
        plain = whole[_PLAIN]
        return cls(whole["reference"], {n: {k: _full(a, plain) for k, a in s.items()} for n, s in answers.items()})


def recorded() -> list[str]:
    """Versions of the CLI that there are transcripts of."""
    return [path.stem.removeprefix("cli-") for path in FOLDER.glob("cli-*.json")]


def write(reference: str, by_cli: dict[str, Answers]) -> None:
    """Write the transcripts anew; `by_cli` has the answers by the version of the CLI. Replaces all that were there."""
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("cli-*.json"):
        old.unlink()
    versions = sorted(by_cli, key=version_number)
    newest = by_cli[versions[-1]]
    plain = next(a["json"] for a in newest[_PLAIN].values() if "json" in a)
    _write(versions[-1], reference, newest, plain, whole=True)
    for version in versions[:-1]:
        changed = {
            name: {key: answer for key, answer in steps.items() if answer != newest[name].get(key)}
            for name, steps in by_cli[version].items()
        }
        _write(version, reference, {n: s for n, s in changed.items() if s}, plain, whole=False)


def _write(version: str, reference: str, answers: Answers, plain: dict[str, Any], *, whole: bool) -> None:
    document: dict[str, Any] = {"reference": reference, "cli": version}
    if whole:
        document[_PLAIN] = plain
    document["answers"] = {n: {k: _brief(a, plain) for k, a in s.items()} for n, s in answers.items()}
    _path(version).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def _path(version: str) -> Path:
    return FOLDER / f"cli-{version}.json"


def _is_container(leaves: Any) -> bool:
    return isinstance(leaves, dict) and "/HostConfig/NetworkMode" in leaves and "/Config/Image" in leaves


def _brief(answer: Answer, plain: dict[str, Any]) -> Answer:
    if not _is_container(answer.get("json")):
        return answer
    leaves = answer["json"]
    other = {path: value for path, value in leaves.items() if path not in plain or plain[path] != value}
    other |= {path: ABSENT for path in plain if path not in leaves}
    return {key: value for key, value in answer.items() if key != "json"} | {"unlike plain": other}


def _full(answer: Answer, plain: dict[str, Any]) -> Answer:
    if "unlike plain" not in answer:
        return answer
    leaves = {p: v for p, v in (plain | answer["unlike plain"]).items() if v != ABSENT}
    return {key: value for key, value in answer.items() if key != "unlike plain"} | {"json": leaves}

"""The notation of scenarios.

A scenario has a name and steps. A step is a line of text:

    docker ARGS...             the stock CLI; exit code, stdout and stderr are compared
    docker ARGS... | sort      the same, for output whose order means nothing
    ! docker ARGS...           set-up: must succeed, and is not compared
    inspect [KIND] NAME        the object's JSON from the API, every key of it; KIND: container (default), image, network, volume
    wait NAME STATUS           until the container's status is so; `healthy` and `unhealthy` count as well
    logged NAME TEXT           until the container has written that
    events NAME                what was told about the container or volume or network of that name since the scenario began
    tree PATH                  names, kinds, modes and contents of client-side files
    GET|POST|PUT|HEAD|DELETE PATH [JSON]
                               one API request; status and JSON are compared

`given(step, text)` feeds a step's standard input. Client-side paths are relative to a folder made for the scenario, which has
`hello.txt`, `run.sh` (mode 755), `link` to hello.txt, `dir/one`, `dir/sub/two`, `env.list` and `labels.list`.
All objects have names that begin with `dt-`: those are removed afterwards.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Literal

Kind = Literal["docker", "inspect", "wait", "logged", "events", "tree", "http"]
METHODS = ("GET", "POST", "PUT", "HEAD", "DELETE")
API = "/v1.45"
"""Version of the API for requests of the tests' own."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Attributes:
        key: its text, the key in the transcript; ` (2)` and so on is added to what is there already.
        words: its arguments, without `docker` or the kind.
        sort: order of stdout's lines means nothing.
        quiet: must succeed, is not compared.
    """

    key: str
    kind: Kind
    words: tuple[str, ...]
    input: bytes | None = None
    sort: bool = False
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scenario; `text` is all that it says, to know names and addresses that it chose itself."""

    name: str
    steps: tuple[Step, ...]
    text: str


def given(step: str, text: str) -> tuple[str, bytes]:
    """A step with standard input."""
    return step, text.encode()


def scenario(name: str, *steps: str | tuple[str, bytes]) -> Scenario:
    """Read a scenario's notation. Raises ValueError for a step that is none."""
    made: list[Step] = []
    seen: dict[str, int] = {}
    for each in steps:
        text, data = each if isinstance(each, tuple) else (each, None)
        seen[text] = seen.get(text, 0) + 1
        key = text if seen[text] == 1 else f"{text} ({seen[text]})"
        made.append(_step(key, text, data))
    return Scenario(name, tuple(made), "\n".join(step.key for step in made))


def _step(key: str, text: str, data: bytes | None) -> Step:
    quiet, text = text.startswith("! "), text.removeprefix("! ")
    sort, text = text.endswith(" | sort"), text.removesuffix(" | sort")
    first, _, rest = text.partition(" ")
    if first in METHODS:
        path, _, body = rest.partition(" ")
        return Step(key, "http", (first, path), body.encode() if body else None, quiet=quiet)
    match first:
        case "docker" | "inspect" | "wait" | "logged" | "events" | "tree":
            return Step(key, first, tuple(shlex.split(rest)), data, sort, quiet)
    raise ValueError(f"not a step: {text!r}")

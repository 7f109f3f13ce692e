"""Containers made from a body of the API, so that a field can be said that no client has an option for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness import Client

Create = Callable[..., str]
Output = Callable[..., str]


@pytest.fixture
def create(engine: Client) -> Iterator[Create]:
    """`create(body, version="v1.51")` makes a container of the image busybox and gives its ID; removed afterwards."""
    made: list[str] = []

    def new(body: dict[str, Any], version: str = "v1.51") -> str:
        answer = engine.http(
            "POST", f"/{version}/containers/create", {"Image": engine.image, "Cmd": ["sleep", "60"]} | body
        )
        assert answer.status == 201, answer.body
        made.append(answer.json()["Id"])
        return made[-1]

    yield new
    if made:
        engine.docker("rm", "-f", "-v", *made)


@pytest.fixture
def output(engine: Client, create: Create) -> Output:
    """`output(script, body)` runs a shell script in a container made from a body to its end; gives what it wrote."""

    def run(script: str, body: dict[str, Any] | None = None) -> str:
        made = create({"Cmd": ["sh", "-c", script]} | (body or {}))
        engine.docker("start", made)
        engine.docker("wait", made)
        done = engine.docker("logs", made)
        return done.stdout + done.stderr

    return run


@pytest.fixture
def refusal(engine: Client) -> Callable[[dict[str, Any]], str]:
    """The message with which `create` refuses a body, with status 400."""

    def ask(body: dict[str, Any]) -> str:
        answer = engine.http("POST", "/v1.51/containers/create", {"Image": engine.image, "Cmd": ["true"]} | body)
        assert answer.status == 400, answer.body
        return answer.message

    return ask

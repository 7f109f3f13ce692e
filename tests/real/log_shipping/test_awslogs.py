"""The driver awslogs, with boto3, against a strict endpoint of CloudWatch Logs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from harness import Client, Engine, eventually
from harness.receivers import Receiver

pytestmark = pytest.mark.real

KEYS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "eu-central-1"}


def test_streams_events_and_an_endpoint_that_dies(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine(environment=KEYS)
    with Receiver("cloudwatch", engine.netns) as receiver:

        def run(name: str, script: str, *more: str, check: bool = True) -> Any:
            opts = [f"awslogs-endpoint=http://127.0.0.1:{receiver.port}", *more]
            given = [word for option in opts for word in ("--log-opt", option)]
            command = ["--name", name, "--network", "none", "--log-driver", "awslogs", *given, engine.image]
            return engine.docker("run", *command, "sh", "-c", script, check=check)

        def of(stream: str) -> list[str]:
            return [row["message"] for row in receiver.events() if row["stream"] == stream]

        # No group, and nobody makes it.
        done = run("nowhere", "true", "awslogs-group=app", check=False)
        assert done.returncode == 125
        assert "failed to create Cloudwatch log stream: the log group app does not exist" in done.stderr

        opts = ["awslogs-group=app", "awslogs-create-group=true"]
        run("lines", "echo plain; echo; printf 'ünï\\377\\n'; seq 1 12000", *opts, "tag={{.Name}}/x")
        wanted = ["plain", "ünï\ufffd", *(str(number) for number in range(1, 12_001))]
        eventually(lambda: len(of("lines/x")) == len(wanted), timeout=20)
        assert of("lines/x") == wanted
        row = receiver.events()[0]
        assert (row["group"], row["format"]) == ("app", "")

        run(
            "multi",
            "printf '2026-01-02 a\\n  at b\\n  at c\\n2026-01-03 d\\n'",
            *opts,
            "awslogs-datetime-format=%Y-%m-%d",
        )
        identity = engine.inspect("multi")["Id"]
        eventually(lambda: of(identity) == ["2026-01-02 a\n  at b\n  at c\n", "2026-01-03 d\n"])

        run("emf", "echo '{}'", *opts, "awslogs-stream=s", "awslogs-format=json/emf")
        eventually(lambda: [row["format"] for row in receiver.events() if row["stream"] == "s"] == ["json/emf"])

        # Its memory dies with it: group and stream are made anew.
        receiver.kill()
        run("later", "echo later", *opts, "awslogs-stream=t")
        assert engine.docker("logs", "later").stdout == "later\n"
        receiver.start()
        eventually(lambda: of("t") == ["later"], timeout=20)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["x=1"], "unknown log opt 'x' for awslogs log driver"),
        ([], "must specify a value for log opt 'awslogs-group'"),
        (
            ["awslogs-group=x", "awslogs-datetime-format=%Y", "awslogs-multiline-pattern=x"],
            "you cannot configure log opt 'awslogs-datetime-format' and 'awslogs-multiline-pattern' at the same time",
        ),
        (["awslogs-group=x", "awslogs-format=foo"], "unsupported log format 'foo'"),
        (
            ["awslogs-group=x", "awslogs-max-buffered-events=-1"],
            "must specify a positive integer for log opt 'awslogs-max-buffered-events': -1",
        ),
    ],
)
def test_refusals_in_dockers_words(engine: Client, opts: list[str], message: str) -> None:
    given = [word for option in opts for word in ("--log-opt", option)]
    done = engine.docker("create", "--log-driver", "awslogs", *given, engine.image, check=False)
    assert (done.returncode, done.stderr.strip()) == (1, f"Error response from daemon: {message}")

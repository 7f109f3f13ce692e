"""The driver gelf against a strict receiver that puts chunks together."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness import Client, eventually
from harness.receivers import Receiver

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def receiver(engine: Client) -> Iterator[Receiver]:
    """In the engine's network namespace, over UDP and TCP."""
    with Receiver("gelf", engine.netns) as running:
        yield running


def options(receiver: Receiver, scheme: str, *more: str) -> list[str]:
    opts = [f"gelf-address={scheme}://127.0.0.1:{receiver.port}", *more]
    return ["--log-driver", "gelf", *(word for option in opts for word in ("--log-opt", option))]


def of(receiver: Receiver, name: str) -> list[dict[str, Any]]:
    return [row for row in receiver.events() if row["_container_name"] == name]


@pytest.mark.parametrize(
    ("scheme", "kind"), [("udp", ""), ("udp", "gzip"), ("udp", "zlib"), ("udp", "none"), ("tcp", "")]
)
def test_fields_and_lines(
    engine: Client, container: Callable[..., str], receiver: Receiver, scheme: str, kind: str
) -> None:
    noise = "".join(random.Random(1).choices(string.ascii_letters, k=15_000))
    script = f"echo plain; printf 'ünï\\377\\001 \"x\"\\n'; echo {noise}; echo err >&2"
    more = [f"gelf-compression-type={kind}"] if kind else []
    opts = options(receiver, scheme, "labels=colour", "env=_SIZE", "tag=t/{{.ID}}", *more)
    name = container(script, *opts, "-l", "colour=red", "-e", "_SIZE=9")
    eventually(lambda: len(of(receiver, name)) == 4)
    rows = {row["short_message"]: row for row in of(receiver, name)}
    assert rows.keys() == {"plain", 'ünï\ufffd\x01 "x"', noise, "err"}
    shown = engine.inspect(name)
    row = rows["plain"]
    wanted = {
        "_container_id": shown["Id"],
        "_image_id": shown["Image"],
        "_image_name": engine.image,
        "_tag": f"t/{shown['Id'][:12]}",
        "_created": shown["Created"],
        "_colour": "red",
        "_SIZE": "9",
        "level": 6,
        "packed": "none" if scheme == "tcp" else kind or "gzip",
    }
    assert {field: row.get(field) for field in wanted} == wanted
    assert row["_command"].startswith("sh -c echo plain")
    assert rows["err"]["level"] == 3
    assert rows[noise]["how"] == ("tcp" if scheme == "tcp" else "udp chunked")


def test_ten_thousand_lines_and_a_receiver_that_dies(
    engine: Client, container: Callable[..., str], receiver: Receiver
) -> None:
    script = "seq 1 5000; while [ ! -e /go ]; do sleep 0.1; done; seq 5001 10000"
    name = container(script, "-d", *options(receiver, "tcp"))
    eventually(lambda: len(of(receiver, name)) == 5000)
    receiver.kill()
    engine.docker("exec", name, "touch", "/go")
    assert engine.docker("wait", name).stdout == "0\n"
    receiver.start()
    eventually(lambda: len(of(receiver, name)) >= 10_000, timeout=20)
    assert [row["short_message"] for row in of(receiver, name)] == [str(number) for number in range(1, 10_001)]


def test_over_udp_a_port_where_nobody_listens_is_noticed(
    engine: Client, container: Callable[..., str], receiver: Receiver
) -> None:
    receiver.kill()
    mark = engine.mark()
    name = container("seq 1 3000", *options(receiver, "udp", "gelf-compression-type=none"))
    eventually(lambda: "refused; its output is kept, and offered again" in engine.log(mark), timeout=15)
    receiver.start()
    eventually(lambda: len(of(receiver, name)) >= 3000, timeout=20)
    assert [row["short_message"] for row in of(receiver, name)] == [str(number) for number in range(1, 3001)]


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        ([], "gelf-address is a required parameter"),
        (["gelf-address=udp://x:1", "x=1"], 'unknown log opt "x" for gelf log driver'),
        (["gelf-address=http://x"], "gelf: endpoint needs to be TCP or UDP"),
        (["gelf-address=udp://x"], "gelf: please provide gelf-address as proto://host:port"),
        (["gelf-address=tcp://x:1", "gelf-compression-type=gzip"], "compression is only supported on UDP"),
        (["gelf-address=udp://x:1", "gelf-tcp-max-reconnect=1"], '"gelf-tcp-max-reconnect" is only valid for TCP'),
        (
            ["gelf-address=udp://x:1", "gelf-compression-level=10"],
            'unknown value "10" for log opt "gelf-compression-level" for gelf log driver',
        ),
    ],
)
def test_refusals_in_dockers_words(engine: Client, opts: list[str], message: str) -> None:
    given = [word for option in opts for word in ("--log-opt", option)]
    done = engine.docker("create", "--log-driver", "gelf", *given, engine.image, check=False)
    assert (done.returncode, done.stderr.strip()) == (1, f"Error response from daemon: {message}")

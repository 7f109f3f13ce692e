"""The driver splunk against a strict collector over HTTPS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Client, eventually
from harness.certificates import make_certificates
from harness.receivers import Receiver

pytestmark = pytest.mark.real

TOKEN = "11111111-2222-3333-4444-555555555555"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hec")
    make_certificates(folder)
    return folder


@pytest.fixture(scope="module")
def receiver(engine: Client, certificates: Path) -> Iterator[Receiver]:
    """In the engine's network namespace."""
    with Receiver("hec", engine.netns, certificates=certificates, token=TOKEN) as running:
        yield running


@pytest.fixture
def options(receiver: Receiver, certificates: Path) -> Callable[..., list[str]]:
    """`options("splunk-format=raw", ...)`, as words of `docker run`."""

    def make(*more: str) -> list[str]:
        opts = {
            "splunk-url": f"https://127.0.0.1:{receiver.port}",
            "splunk-token": TOKEN,
            "splunk-capath": f"{certificates}/ca.pem",
        } | dict(option.split("=", 1) for option in more)
        return ["--log-driver", "splunk", *(word for opt in opts.items() for word in ("--log-opt", "=".join(opt)))]

    return make


def of(receiver: Receiver, source: str) -> list[dict[str, Any]]:
    return [row for row in receiver.events() if row.get("source") == source]


def test_inline_events(
    engine: Client, container: Callable[..., str], receiver: Receiver, options: Callable[..., list[str]]
) -> None:
    source = engine.name()
    opts = options(
        f"splunk-source={source}", "splunk-sourcetype=kind", "splunk-index=main", "tag={{.Name}}", "labels=colour",
        "splunk-gzip=true", "splunk-gzip-level=9",
    )  # fmt: skip
    name = container("echo '{\"a\": 1}'; printf 'ünï\\377\\n'; echo; echo err >&2", *opts, "-l", "colour=red")
    eventually(lambda: len(of(receiver, source)) == 4)
    rows = of(receiver, source)
    lines = {row["event"]["line"]: row for row in rows}
    assert lines.keys() == {'{"a": 1}', "ünï\ufffd", "", "err"}
    assert lines["err"]["event"] == {"line": "err", "source": "stderr", "tag": name, "attrs": {"colour": "red"}}
    assert lines["err"].keys() == {"event", "time", "host", "source", "sourcetype", "index", "gzip"}
    assert (rows[0]["sourcetype"], rows[0]["index"], rows[0]["gzip"]) == ("kind", "main", True)
    assert len(rows[0]["time"].partition(".")[2]) == 6
    shown = engine.inspect(name)["HostConfig"]["LogConfig"]["Config"]
    assert shown["splunk-token"] == TOKEN


def test_json_and_raw_events(
    engine: Client, container: Callable[..., str], receiver: Receiver, options: Callable[..., list[str]]
) -> None:
    source = engine.name()
    script = "echo '{\"a\": 12345678901234567890123}'; echo '{broken'; echo '   '"
    container(script, *options(f"splunk-source={source}", "splunk-format=json", "tag="))
    eventually(lambda: len(of(receiver, source)) == 3)
    events = [row["event"] for row in of(receiver, source)]
    assert events[0] == {"line": {"a": 12345678901234567890123}, "source": "stdout"}
    assert [event["line"] for event in events[1:]] == ["{broken", "   "]
    source = engine.name()
    opts = options(f"splunk-source={source}", "splunk-format=raw", "tag=t", "labels=colour")
    container(script, *opts, "-l", "colour=red")
    eventually(lambda: len(of(receiver, source)) == 2)
    events = [row["event"] for row in of(receiver, source)]
    assert events == ['t colour=red {"a": 12345678901234567890123}', "t colour=red {broken"]


def test_ten_thousand_lines_and_a_collector_that_dies(
    engine: Client, container: Callable[..., str], receiver: Receiver, options: Callable[..., list[str]]
) -> None:
    source = engine.name()
    script = "seq 1 5000; while [ ! -e /go ]; do sleep 0.1; done; seq 5001 10000"
    name = container(script, "-d", *options(f"splunk-source={source}"))
    eventually(lambda: len(of(receiver, source)) == 5000)
    receiver.kill()
    engine.docker("exec", name, "touch", "/go")
    assert engine.docker("wait", name).stdout == "0\n"
    mark = engine.mark()
    receiver.say(status=503)
    receiver.start()
    eventually(lambda: "failed to send event - 503" in engine.log(mark), timeout=15)
    assert len(of(receiver, source)) == 5000
    receiver.kill()
    receiver.say(status=0)
    receiver.start()
    eventually(lambda: len(of(receiver, source)) >= 10_000, timeout=20)
    assert [row["event"]["line"] for row in of(receiver, source)] == [str(number) for number in range(1, 10_001)]


def test_an_event_that_is_never_taken_is_not_in_the_way(
    engine: Client, container: Callable[..., str], receiver: Receiver, options: Callable[..., list[str]]
) -> None:
    source = engine.name()
    receiver.kill()
    receiver.say(refused="7")
    receiver.start()
    mark = engine.mark()
    container("seq 1 20", *options(f"splunk-source={source}", "splunk-format=raw", "tag="))
    eventually(lambda: len(of(receiver, source)) == 19)
    assert [row["event"] for row in of(receiver, source)] == [str(number) for number in range(1, 21) if number != 7]
    assert "a log entry was dropped, the collector does not take it" in engine.log(mark)
    receiver.kill()
    receiver.say(refused="")
    receiver.start()


def test_verification_of_the_connection(
    engine: Client,
    container: Callable[..., str],
    receiver: Receiver,
    options: Callable[..., list[str]],
    certificates: Path,
) -> None:
    def refused(*more: str) -> str:
        done = engine.docker("run", "--rm", *options(*more), engine.image, "true", check=False)
        assert done.returncode == 125
        return done.stderr

    assert "certificate verify failed" in refused(f"splunk-capath={certificates}/other.pem")
    assert "CN=" in refused("splunk-caname=elsewhere") or "elsewhere" in refused("splunk-caname=elsewhere")
    container("true", *options(f"splunk-capath={certificates}/other.pem", "splunk-insecureskipverify=true"))
    container("true", *options("splunk-caname=localhost"))
    receiver.kill()
    receiver.say(status=503)
    receiver.start()
    assert "splunk: failed to verify connection - 503 Service Unavailable" in refused()
    container("true", *options("splunk-verify-connection=false"))
    receiver.kill()
    receiver.say(status=0)
    name = container("echo here", *options())
    assert engine.docker("logs", name).stdout == "here\n"
    receiver.start()


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["x=1"], "unknown log opt 'x' for splunk log driver"),
        ([], "splunk: splunk-url is expected"),
        (["splunk-url=https://x"], "splunk: splunk-token is expected"),
        (
            ["splunk-url=https://x/path", "splunk-token=t"],
            "splunk: expected format scheme://dns_name_or_ip:port for splunk-url",
        ),
        (
            ["splunk-url=https://x", "splunk-token=t", "splunk-format=foo"],
            "Unknown format specified foo, supported formats are inline, json and raw",
        ),
        (
            ["splunk-url=https://x", "splunk-token=t", "splunk-gzip-level=11"],
            "not supported level '11' for splunk-gzip-level (supported values between -1 and 9)",
        ),
    ],
)
def test_refusals(engine: Client, opts: list[str], message: str) -> None:
    given = [word for option in opts for word in ("--log-opt", option)]
    done = engine.docker("create", "--log-driver", "splunk", *given, engine.image, check=False)
    assert (done.returncode, done.stderr.strip()) == (1, f"Error response from daemon: {message}")

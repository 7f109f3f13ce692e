"""The driver fluentd against a strict receiver of the forward protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Client, Engine, eventually
from harness.certificates import make_certificates
from harness.receivers import Receiver

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def receiver(engine: Client) -> Iterator[Receiver]:
    """In the engine's network namespace, over TCP."""
    with Receiver("forward", engine.netns) as running:
        yield running


def options(address: str, *more: str) -> list[str]:
    opts = [f"fluentd-address={address}", *more]
    return ["--log-driver", "fluentd", *(word for option in opts for word in ("--log-opt", option))]


def of(receiver: Receiver, name: str) -> list[dict[str, Any]]:
    return [row for row in receiver.events() if row["record"]["container_name"] == f"/{name}"]


def logs(receiver: Receiver, name: str) -> list[bytes]:
    return [row["record"]["log"].encode("latin-1") for row in of(receiver, name)]


def test_fields_times_and_bytes(engine: Client, container: Callable[..., str], receiver: Receiver) -> None:
    every = bytes(code for code in range(256) if code != 10)
    script = "printf '" + "".join(f"\\{code:03o}" for code in every) + "\\n'; echo; echo ünïcode; echo err >&2"
    address = f"tcp://127.0.0.1:{receiver.port}"
    for precise in ("false", "true"):
        opts = options(address, "labels=colour", "tag=docker.{{.Name}}", f"fluentd-sub-second-precision={precise}")
        name = container(script, *opts, "-l", "colour=red")
        eventually(lambda name=name: len(of(receiver, name)) == 4)
        assert [line for line in logs(receiver, name) if line != b"err"] == [every, b"", "ünïcode".encode()]
        last = of(receiver, name)[-1]
        assert last["tag"] == f"docker.{name}"
        assert last["record"].keys() == {"container_id", "container_name", "source", "log", "colour"}
        assert last["record"]["container_id"] == engine.inspect(name)["Id"]
        assert len(last["time"]) == (2 if precise == "true" else 1)
        sources = {row["record"]["log"]: row["record"]["source"] for row in of(receiver, name)}
        assert (sources["err"], sources[""]) == ("stderr", "stdout")


def test_pieces_of_a_long_line(engine: Client, container: Callable[..., str], receiver: Receiver) -> None:
    name = container("head -c 100000 /dev/zero | tr '\\0' x; echo; echo after", *options(f"127.0.0.1:{receiver.port}"))
    eventually(lambda: b"after" in logs(receiver, name))
    *pieces, after = [row["record"] for row in of(receiver, name)]
    assert "".join(piece["log"] for piece in pieces) == "x" * 100_000
    assert [piece["partial_ordinal"] for piece in pieces] == [str(at + 1) for at in range(len(pieces))]
    assert [piece["partial_last"] for piece in pieces] == ["false"] * (len(pieces) - 1) + ["true"]
    assert {piece["partial_message"] for piece in pieces} == {"true"}
    assert "partial_id" not in after


@pytest.mark.parametrize("acknowledged", ["false", "true"])
def test_ten_thousand_lines_and_a_receiver_that_dies(
    engine: Client, container: Callable[..., str], receiver: Receiver, acknowledged: str
) -> None:
    script = "seq 1 5000; while [ ! -e /go ]; do sleep 0.1; done; seq 5001 10000"
    opts = options(f"127.0.0.1:{receiver.port}", f"fluentd-request-ack={acknowledged}", "fluentd-retry-wait=200ms")
    name = container(script, "-d", *opts)
    eventually(lambda: len(of(receiver, name)) == 5000)
    receiver.kill()
    engine.docker("exec", name, "touch", "/go")
    assert engine.docker("wait", name).stdout == "0\n"
    receiver.start()
    eventually(lambda: len(of(receiver, name)) >= 10_000, timeout=20)
    assert logs(receiver, name) == [b"%d" % number for number in range(1, 10_001)]


def test_what_is_not_acknowledged_is_sent_again(
    engine: Client, container: Callable[..., str], receiver: Receiver
) -> None:
    name = container("echo one", *options(f"127.0.0.1:{receiver.port}", "fluentd-request-ack=true"))
    eventually(lambda: logs(receiver, name) == [b"one"])
    receiver.kill()
    receiver.say(silent=True)
    receiver.start()
    other = container("echo two", *options(f"127.0.0.1:{receiver.port}", "fluentd-request-ack=true"))
    eventually(lambda: logs(receiver, other) == [b"two"])
    receiver.kill()
    receiver.say(silent=False)
    receiver.start()
    eventually(lambda: logs(receiver, other) == [b"two", b"two"], timeout=15)


def test_unix_socket(engine: Client, container: Callable[..., str], host_dir: Path) -> None:
    with Receiver("forward", path=str(host_dir / "s")) as receiver:
        name = container("seq 1 300", *options(f"unix://{host_dir}/s"))
        eventually(lambda: logs(receiver, name) == [b"%d" % number for number in range(1, 301)])


def test_tls_and_asynchronous_connecting(own_engine: Callable[..., Engine], tmp_path: Path) -> None:
    make_certificates(tmp_path)
    engine = own_engine(environment={"SSL_CERT_FILE": str(tmp_path / "ca.pem")})
    with Receiver("forward", engine.netns, certificates=tmp_path) as receiver:
        opts = options(f"tls://127.0.0.1:{receiver.port}", "fluentd-async=true")
        engine.docker("run", "--name", "one", *opts, engine.image, "seq", "1", "2000")
        eventually(lambda: logs(receiver, "one") == [b"%d" % number for number in range(1, 2001)])
        receiver.kill()
        mark = engine.mark()
        engine.docker("run", "--name", "two", *opts, engine.image, "echo", "later")
        assert engine.docker("logs", "two").stdout == "later\n"
        eventually(lambda: "its output is kept, and offered again" in engine.log(mark), timeout=15)
        receiver.start()
        eventually(lambda: logs(receiver, "two") == [b"later"], timeout=15)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("x=1", "unknown log opt 'x' for fluentd log driver"),
        ("fluentd-address=foo://x", "invalid fluentd-address (foo://x): unsupported scheme: 'foo'"),
        ("fluentd-address=tcp://x/path", "invalid fluentd-address (tcp://x/path): should not contain a path element"),
        ("fluentd-address=x:y", 'invalid fluentd-address (x:y): parse "tcp://x:y": invalid port ":y" after host'),
        ("fluentd-buffer-limit=x", "invalid size: 'x'"),
    ],
)
def test_refusals_in_dockers_words(engine: Client, option: str, message: str) -> None:
    done = engine.docker("create", "--log-driver", "fluentd", "--log-opt", option, engine.image, check=False)
    assert (done.returncode, done.stderr.strip()) == (1, f"Error response from daemon: {message}")

"""The driver syslog against Debian's rsyslog: every transport and format, byte for byte, and a server that dies."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Client, eventually
from harness.rsyslog import Rsyslog

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def server(engine: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rsyslog]:
    """In the engine's network namespace."""
    with Rsyslog(tmp_path_factory.mktemp("syslog"), engine.netns) as running:
        yield running


def address(server: Rsyslog, transport: str) -> str:
    if transport in server.sockets:
        return f"syslog-address={transport}://{server.sockets[transport]}"
    scheme = "tcp+tls" if transport == "tls" else transport
    return f"syslog-address={scheme}://127.0.0.1:{server.ports[transport]}"


def options(server: Rsyslog, transport: str, *more: str) -> list[str]:
    """Of `docker run`."""
    opts = [address(server, transport), *more]
    if transport == "tls":
        opts += [f"syslog-tls-ca-cert={server.folder}/ca.pem", f"syslog-tls-cert={server.folder}/client.pem"]
        opts += [f"syslog-tls-key={server.folder}/client-key.pem"]
    return ["--log-driver", "syslog", *(word for option in opts for word in ("--log-opt", option))]


def texts(server: Rsyslog, transport: str, tag: str) -> list[bytes]:
    """The messages with this tag, without what stands before them."""
    mark = re.compile(rb"<\d+>.*?\b" + re.escape(tag.encode()) + rb"(?:\[\d+\]: | \d+ \S+ - )")
    found = [(mark.match(message), message) for message in server.messages(transport)]
    return [message[head.end() :] for head, message in found if head]


LINES = ["plain", "ünïcode ✓", "", "tab\there", "x" * 40_000]
SCRIPT = "printf '%s\\n' plain 'ünïcode ✓' '' 'tab\there'; head -c 40000 /dev/zero | tr '\\0' x; echo; echo err >&2"


@pytest.mark.parametrize(
    ("transport", "form"),
    [
        ("udp", ""),
        ("tcp", "rfc3164"),
        ("tcp", "rfc5424micro"),
        ("tls", "rfc5424"),
        ("tls", "rfc3164"),
        ("unix", "rfc5424"),
        ("unixgram", ""),
    ],
)
def test_what_arrives_is_what_was_written(
    engine: Client, container: Callable[..., str], server: Rsyslog, transport: str, form: str
) -> None:
    tag = engine.name("tag")
    name = container(
        SCRIPT,
        *options(server, transport, f"syslog-format={form}", f"tag={tag}/{{{{.Name}}}}", "syslog-facility=local3"),
    )
    whole = f"{tag}/{name}"
    arrived = eventually(lambda: (found := texts(server, transport, whole)) and b"err" in found and found)
    lines = [line.encode() for line in LINES]
    assert [line for line in arrived if line != b"err"][:4] == lines[:4]
    pieces = [line for line in arrived if line.startswith(b"xx")]
    assert b"".join(pieces) == lines[4]
    assert all(len(piece) <= 16 << 10 for piece in pieces)
    assert engine.docker("logs", name).stdout == "\n".join(LINES) + "\n"
    told = {row[-1].strip(): row for row in server.parsed(transport) if tag in "".join(row)}
    if transport == "unixgram":
        assert b"<158>" in server.raw(transport)
        return
    priorities = [row[0] for row in server.parsed(transport) if any(tag in field for field in row)]
    assert sorted(set(priorities)) == [str(19 * 8 + 3), str(19 * 8 + 6)]
    if form.startswith("rfc5424"):
        version, stamp, app, message_id = (told["plain"][at] for at in (1, 2, 4, 6))
        assert (version, app, message_id) == ("1", whole, whole)
        assert ("." in stamp) == form.endswith("micro")


def test_bytes_of_every_kind(engine: Client, container: Callable[..., str], server: Rsyslog) -> None:
    tag = engine.name("tag")
    every = bytes(code for code in range(1, 256) if code != 10)
    script = "printf '" + "".join(f"\\{code:03o}" for code in every) + "\\n'; printf 'a\\000b\\n'"
    container(script, *options(server, "tcp", f"tag={tag}"))
    # rsyslog itself writes a zero byte as #000.
    eventually(lambda: texts(server, "tcp", tag) == [every, b"a#000b"])


def test_ten_thousand_lines_and_a_server_that_dies(
    engine: Client, container: Callable[..., str], server: Rsyslog
) -> None:
    tag = engine.name("tag")
    script = "seq 1 5000; while [ ! -e /go ]; do sleep 0.1; done; seq 5001 10000"
    name = container(script, "-d", *options(server, "tcp", f"tag={tag}"))
    eventually(lambda: len(texts(server, "tcp", tag)) == 5000)
    mark = engine.mark()
    server.kill()
    begun = time.monotonic()
    engine.docker("exec", name, "touch", "/go")
    assert engine.docker("wait", name).stdout == "0\n"
    assert time.monotonic() - begun < 5
    eventually(lambda: "its output is kept, and offered again" in engine.log(mark), timeout=15)
    assert len(engine.docker("logs", name).stdout.splitlines()) == 10_000
    server.start()
    wanted = [b"%d" % number for number in range(1, 10_001)]
    eventually(lambda: len(texts(server, "tcp", tag)) >= 10_000, timeout=20)
    assert texts(server, "tcp", tag) == wanted


def test_a_server_that_is_not_there_keeps_no_container_from_running(
    engine: Client, container: Callable[..., str], tmp_path: Path
) -> None:
    opts = ["--log-driver", "syslog", "--log-opt", "syslog-address=tcp://127.0.0.1:1"]
    name = container("echo here", *opts)
    assert engine.docker("logs", name).stdout == "here\n"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("x=1", "unknown log opt 'x' for syslog log driver"),
        ("syslog-address=http://x", "unsupported scheme: 'http'"),
        ("syslog-address=unix:///nonexist", "stat /nonexist: no such file or directory"),
        ("syslog-facility=foo", "invalid syslog facility"),
        ("syslog-format=foo", "Invalid syslog format"),
    ],
)
def test_refusals_in_dockers_words(engine: Client, option: str, message: str) -> None:
    done = engine.docker("create", "--log-driver", "syslog", "--log-opt", option, engine.image, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().removeprefix("Error response from daemon: ") == message


def test_a_certificate_that_is_not_to_be_trusted_refuses_the_start(engine: Client, server: Rsyslog) -> None:
    opts = ["--log-driver", "syslog", "--log-opt", address(server, "tls")]
    opts += ["--log-opt", f"syslog-tls-ca-cert={server.folder}/other.pem"]
    done = engine.docker("run", "--rm", *opts, engine.image, "true", check=False)
    assert done.returncode == 125
    assert "failed to initialize logging driver: dial tls://127.0.0.1" in done.stderr
    assert "tls: " in done.stderr

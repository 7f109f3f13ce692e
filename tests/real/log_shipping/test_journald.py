"""The driver journald against systemd's own journal."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from harness import Client, eventually
from harness.journald import Journal

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def journal() -> Iterator[Journal]:
    """A journal namespace."""
    with Journal() as running:
        yield running


def options(journal: Journal, *more: str) -> list[str]:
    opts = [f"journald-namespace={journal.name}", *more]
    return ["--log-driver", "journald", *(word for option in opts for word in ("--log-opt", option))]


def test_fields_and_bytes(engine: Client, container: Callable[..., str], journal: Journal) -> None:
    every = bytes(code for code in range(256) if code != 10)
    script = "printf '" + "".join(f"\\{code:03o}" for code in every) + "\\n'; echo; echo ünïcode; echo err >&2"
    more = ["-l", "com.example.colour=red", "-l", "two=a\nb", "-e", "SIZE=9"]
    opts = options(journal, "labels=com.example.colour,two", "env=SIZE", "tag=t/{{.Name}}")
    name = container(script, *opts, *more)
    rows = eventually(lambda: (found := journal.entries(CONTAINER_NAME=name)) and len(found) == 4 and found)
    assert [row["MESSAGE"] for row in rows if row["PRIORITY"] == "6"] == [every, b"", "ünïcode".encode()]
    assert [row["MESSAGE"] for row in rows if row["PRIORITY"] == "3"] == [b"err"]
    identity = engine.inspect(name)["Id"]
    row = rows[2]
    wanted = {
        "CONTAINER_ID": identity[:12],
        "CONTAINER_ID_FULL": identity,
        "CONTAINER_TAG": f"t/{name}",
        "SYSLOG_IDENTIFIER": f"t/{name}",
        "IMAGE_NAME": engine.image,
        "COM_EXAMPLE_COLOUR": "red",
        "TWO": "a\nb",
        "SIZE": "9",
    }
    assert {field: row.get(field) for field in wanted} == wanted
    assert row["SYSLOG_TIMESTAMP"].endswith("Z")
    assert "CONTAINER_PARTIAL_MESSAGE" not in row


def test_a_long_line_comes_in_pieces_that_say_so(
    engine: Client, container: Callable[..., str], journal: Journal
) -> None:
    name = container("head -c 100000 /dev/zero | tr '\\0' x; echo; echo after", *options(journal))
    rows = eventually(
        lambda: (found := journal.entries(CONTAINER_NAME=name)) and found[-1]["MESSAGE"] == b"after" and found
    )
    *pieces, after = rows
    assert b"".join(piece["MESSAGE"] for piece in pieces) == b"x" * 100_000
    assert [piece["CONTAINER_PARTIAL_ORDINAL"] for piece in pieces] == [str(at + 1) for at in range(len(pieces))]
    assert len({piece["CONTAINER_PARTIAL_ID"] for piece in pieces}) == 1
    assert [piece.get("CONTAINER_PARTIAL_MESSAGE") for piece in pieces] == ["true"] * (len(pieces) - 1) + [None]
    assert [piece["CONTAINER_PARTIAL_LAST"] for piece in pieces] == ["false"] * (len(pieces) - 1) + ["true"]
    assert "CONTAINER_PARTIAL_ID" not in after


def test_large_entries_go_by_memory(engine: Client, container: Callable[..., str], journal: Journal) -> None:
    # A label as large as the engine takes; the entry is larger than a datagram may be.
    big = "y" * 120_000
    labels = [word for number in range(8) for word in ("-l", f"big{number}={big}")]
    name = container("echo one", *options(journal, "labels-regex=^big"), *labels)
    rows = eventually(lambda: journal.entries(CONTAINER_NAME=name))
    assert [rows[0]["MESSAGE"], rows[0]["BIG0"], rows[0]["BIG7"]] == [b"one", big, big]


def test_ten_thousand_lines_and_a_journal_that_dies(
    engine: Client, container: Callable[..., str], journal: Journal
) -> None:
    script = "seq 1 5000; while [ ! -e /go ]; do sleep 0.1; done; seq 5001 10000"
    name = container(script, "-d", *options(journal))
    eventually(lambda: len(journal.entries(CONTAINER_NAME=name)) == 5000, timeout=20)
    mark = engine.mark()
    journal.kill()
    engine.docker("exec", name, "touch", "/go")
    assert engine.docker("wait", name).stdout == "0\n"
    eventually(lambda: "its output is kept, and offered again" in engine.log(mark), timeout=15)
    journal.start()
    eventually(lambda: len(journal.entries(CONTAINER_NAME=name)) >= 10_000, timeout=20)
    messages = [row["MESSAGE"] for row in journal.entries(CONTAINER_NAME=name)]
    assert messages == [b"%d" % number for number in range(1, 10_001)]


def test_without_a_journal_the_container_runs(engine: Client, container: Callable[..., str]) -> None:
    mark = engine.mark()
    name = container("echo here", "--log-driver", "journald", "--log-opt", "journald-namespace=nowhere")
    assert engine.docker("logs", name).stdout == "here\n"
    assert "journald is not enabled on this host" in engine.log(mark)

"""What is refused: each with a clear message, the right status, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator

import pytest
from harness import Client, External, eventually

pytestmark = pytest.mark.real


@pytest.fixture(autouse=True)
def nothing_is_left(engine: Client) -> Iterator[None]:
    """Objects, mounts, monitors, links and rules are as many after a test as they were before."""
    if isinstance(engine, External):
        yield  # others may use it too
        return
    before = engine.census()

    def settled() -> bool:  # what earlier tests removed may still be going away
        nonlocal before
        known, before = before, engine.census()
        return known == before

    eventually(settled)
    yield

    def same() -> bool:
        after = engine.census()
        changed = {kind: (before[kind], after[kind]) for kind in before if before[kind] != after[kind]}
        assert not changed, f"before and after: {changed}"
        return True

    eventually(same)


def create(engine: Client, body: object, name: str = "") -> tuple[int, str]:
    """POST /containers/create; gives status and message."""
    raw = body if isinstance(body, bytes | str) else json.dumps(body)
    query = f"?name={name}" if name else ""
    answer = engine.http(
        "POST", f"/v1.45/containers/create{query}", raw, {"Content-Type": "application/json"}, timeout=30
    )
    return answer.status, answer.json().get("message", "")


def test_unknown_image(engine: Client) -> None:
    status, message = create(engine, {"Image": "no-such-image:t1", "Cmd": ["true"]})
    assert (status, message) == (404, "No such image: no-such-image:t1")


def test_bad_reference(engine: Client) -> None:
    status, message = create(engine, {"Image": "UPPER/case:@@"})
    assert status == 400
    assert "invalid reference format" in message
    done = engine.docker("tag", engine.image, "Bad Name", check=False)
    assert done.returncode == 1
    assert "invalid reference format" in done.stderr
    answer = engine.http("POST", f"/v1.45/images/{engine.image}/tag?repo=UPPER&tag=x")
    assert answer.status == 400
    assert "invalid reference format" in answer.message


@pytest.mark.parametrize("name", ["-starts-with-dash", "has space", "slash/inside", "x", "ümlaut"])
def test_bad_container_name(engine: Client, name: str) -> None:
    from urllib.parse import quote

    status, message = create(engine, {"Image": engine.image}, quote(name, safe=""))
    assert status == 400
    assert message == f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"


def test_name_in_use_names_both(engine: Client) -> None:
    name = engine.name()
    cid = engine.docker("create", "--name", name, engine.image).stdout.strip()
    try:
        status, message = create(engine, {"Image": engine.image}, name)
        assert status == 409
        assert f'The container name "/{name}" is already in use by container "{cid}"' in message
    finally:
        engine.docker("rm", name)


@pytest.mark.parametrize(
    "body", ["{not json", '{"Image": 5}', "[]", '{"Image": "busybox", "HostConfig": {"Memory": "x"}}', ""]
)
def test_bad_json(engine: Client, body: str) -> None:
    status, message = create(engine, body)
    assert status == 400
    assert message


def test_wrong_content_type(engine: Client) -> None:
    answer = engine.http("POST", "/v1.45/containers/create", b"<x/>", {"Content-Type": "text/xml"})
    assert answer.status in (400, 415)
    assert answer.message


def test_bad_filters(engine: Client) -> None:
    assert engine.http("GET", "/v1.45/containers/json?filters={bad").status == 400
    assert engine.http("GET", "/v1.45/volumes?filters={bad").status == 400
    assert engine.http("GET", "/v1.45/networks?filters={bad").status == 400
    assert engine.http("GET", "/v1.45/images/json?filters={bad").status == 400


def test_unknown_network(engine: Client) -> None:
    done = engine.docker("run", "--rm", "--network", "no-such-net", engine.image, "true", check=False)
    assert done.returncode == 125
    assert "network no-such-net not found" in done.stderr


def test_unknown_container_to_share_a_network_with(engine: Client) -> None:
    done = engine.docker("run", "--rm", "--network", "container:no-such", engine.image, "true", check=False)
    assert done.returncode == 125
    assert "No such container: no-such" in done.stderr


def test_port_in_use_by_another_container(engine: Client) -> None:
    name = engine.name()
    engine.docker("run", "-d", "--name", name, "-p", "127.0.0.1:18555:80", engine.image, "sleep", "600")
    try:
        done = engine.docker("run", "--rm", "-p", "127.0.0.1:18555:80", engine.image, "true", check=False)
        assert done.returncode == 125
        assert "18555" in done.stderr
        assert "already allocated" in done.stderr or "already in use" in done.stderr
    finally:
        engine.docker("rm", "-f", name)


def test_port_in_use_by_a_program(engine: Client) -> None:
    engine.docker("run", "-d", "--name", (name := engine.name()), "--network", "host", engine.image, *_listener(18556))
    try:
        eventually(lambda: ":18556" in engine.nsenter(["ss", "-ltn"]).stdout)
        done = engine.docker("run", "--rm", "-p", "127.0.0.1:18556:80", engine.image, "true", check=False)
        assert done.returncode == 125
        assert "18556" in done.stderr
        assert "already in use" in done.stderr or "already allocated" in done.stderr
    finally:
        engine.docker("rm", "-f", name)


def _listener(port: int) -> list[str]:
    return ["httpd", "-f", "-p", str(port)]


@pytest.mark.parametrize("network", ["bridge", "none"])
def test_missing_executable_leaves_nothing_mounted(engine: Client, network: str) -> None:
    options = ["--rm", "--network", network, "-v", "/anonymous"]
    done = engine.docker("run", *options, engine.image, "/no/such/program", check=False)
    assert done.returncode == 127
    assert "no such file or directory" in done.stderr


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["-v", "relative/path:/x"], "includes invalid characters for a local volume name"),
        (["-v", "/a:b:c:d:e"], "invalid"),
        (["-v", "/tmp:relative"], "absolute"),
        (["-v", "/tmp:/"], "can't be '/'"),
        (["--mount", "type=bind,source=/no/such/dir,target=/x"], "bind source path does not exist: /no/such/dir"),
        (["--mount", "type=rubbish,target=/x"], "rubbish"),
        (["--tmpfs", "/x:nonsense-option"], "nonsense-option"),
        (["-v", "/tmp:/x", "-v", "/etc:/x"], "Duplicate mount point: /x"),
        (["-v", "/tmp:/x:badmode"], "badmode"),
    ],
)
def test_bad_mount(engine: Client, option: list[str], message: str) -> None:
    done = engine.docker("run", "--rm", *option, engine.image, "true", check=False)
    assert done.returncode == 125
    assert message.lower() in done.stderr.lower()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["-m", "1m"], "Minimum memory limit allowed is 6MB"),
        (["--cpus", "1000"], "Range of CPUs is from 0.01"),
        (["--cap-add", "NO_SUCH_CAP"], 'unknown capability: "CAP_NO_SUCH_CAP"'),
        (["--log-driver", "no-such-log"], "no-such-log"),
        (["--log-opt", "nonsense=1"], "unknown log opt 'nonsense' for json-file log driver"),
        (["--runtime", "no-such-runtime"], "no-such-runtime"),
        (["--restart", "sometimes"], "sometimes"),
        (["--rm", "--restart", "always"], "conflicting options"),
        (["-u", "no-such-user"], "no-such-user"),
        (["--security-opt", "nonsense=1"], "nonsense"),
        (["--sysctl", "kernel.hostname=x"], "kernel.hostname"),
        (
            ["--network", "bridge", "--ip", "10.1.2.3"],
            "user specified IP address is supported on user defined networks only",
        ),
        (["-w", "relative"], "the working directory 'relative' is invalid"),
    ],
)
def test_bad_option(engine: Client, option: list[str], message: str) -> None:
    name = engine.name()
    done = engine.docker("run", "--name", name, *option, engine.image, "true", check=False)
    engine.docker("rm", "-f", name, check=False)
    assert done.returncode in (125, 126, 127)
    assert message.lower() in done.stderr.lower()


def test_unknown_volume_driver(engine: Client) -> None:
    host = {"VolumeDriver": "no-such-driver", "Binds": ["somename:/x"]}
    status, message = create(engine, {"Image": engine.image, "HostConfig": host})
    assert 400 <= status <= 500
    assert "no-such-driver" in message


def test_unknown_things_are_404(engine: Client) -> None:
    for method, path, words in [
        ("GET", "/v1.45/containers/no-such/json", "No such container: no-such"),
        ("POST", "/v1.45/containers/no-such/start", "No such container: no-such"),
        ("POST", "/v1.45/containers/no-such/kill", "No such container: no-such"),
        ("DELETE", "/v1.45/containers/no-such", "No such container: no-such"),
        ("GET", "/v1.45/containers/no-such/logs?stdout=1", "No such container: no-such"),
        ("GET", "/v1.45/containers/no-such/archive?path=/x", "No such container: no-such"),
        ("GET", "/v1.45/images/no-such/json", "No such image: no-such"),
        ("GET", "/v1.45/networks/no-such", "network no-such not found"),
        ("GET", "/v1.45/volumes/no-such", "get no-such: no such volume"),
        ("GET", "/v1.45/exec/no-such/json", "No such exec instance: no-such"),
    ]:
        answer = engine.http(method, path)
        assert answer.status == 404, path
        assert words in answer.message


def test_huge_body_is_refused(engine: Client) -> None:
    """A body of a gigabyte is cut off early, not kept in memory: the answer comes long before its end."""
    connection = engine.connect(timeout=60)
    with connection:
        head = "POST /v1.45/containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {2**30}\r\n\r\n".encode() + b'{"Image": "')
        sent, piece = 0, b"x" * 2**16
        answered = b""
        try:
            while sent < 64 * 2**20 and not answered:
                connection.sendall(piece)
                sent += len(piece)
                connection.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    answered = connection.recv(4096)
                connection.settimeout(60)
        except (BrokenPipeError, ConnectionResetError):
            answered = answered or _rest(connection)
        assert sent < 64 * 2**20, "the engine took 64 MiB of JSON without a word"
        assert answered.startswith((b"HTTP/1.1 400", b"HTTP/1.1 413"))
    assert engine.http("GET", "/_ping").body == b"OK"


def _rest(connection: socket.socket) -> bytes:
    try:
        return connection.recv(4096)
    except OSError:
        return b""


def test_rubbish_on_the_socket_harms_nothing(engine: Client) -> None:
    for rubbish in (b"\0" * 4096, b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"a" * 100_000, b"\x16\x03\x01\x02\x00" * 10):
        connection = engine.connect(timeout=5)
        with connection:
            connection.sendall(rubbish)
            connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                while connection.recv(4096):
                    pass
    assert engine.http("GET", "/_ping").body == b"OK"


def test_ambiguous_prefix(engine: Client) -> None:
    ids = [engine.docker("create", engine.image).stdout.strip() for _ in range(17)]
    try:
        firsts = [cid[0] for cid in ids]
        twice = next(first for first in firsts if firsts.count(first) > 1)
        answer = engine.http("GET", f"/v1.45/containers/{twice}/json")
        assert answer.status == 400
        assert f"multiple IDs found with provided prefix: {twice}" in answer.message.replace("Multiple", "multiple")
    finally:
        engine.docker("rm", *ids)

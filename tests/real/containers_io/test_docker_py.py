"""Streams, execs and files by docker-py, as programs use them."""

from __future__ import annotations

import io
import socket
import tarfile
import time
from collections.abc import Iterator
from typing import Any

import pytest
from docker import DockerClient
from docker.errors import APIError, NotFound
from docker.models.containers import Container
from docker.utils.socket import frames_iter
from harness import Client, eventually

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def py(engine: Client) -> Iterator[DockerClient]:
    client = engine.api()
    yield client
    client.close()


@pytest.fixture(scope="module")
def box(engine: Client, py: DockerClient) -> Iterator[Container]:
    """A running container with users of its own."""
    script = (
        "echo 'app:x:1000:1000::/home/app:/bin/sh' >> /etc/passwd; echo 'app:x:1000:' >> /etc/group;"
        " echo 'extra:x:77:app' >> /etc/group; touch /ready; sleep 600"
    )
    made = py.containers.run(engine.image, ["sh", "-c", script], detach=True, network_mode="none", stdin_open=True)
    try:
        eventually(lambda: made.exec_run("test -e /ready").exit_code == 0)
        yield made
    finally:
        made.remove(force=True, v=True)


def test_exec_run(box: Container) -> None:
    assert box.exec_run(["sh", "-c", "echo o; echo e >&2; exit 3"], demux=True) == (3, (b"o\n", b"e\n"))
    assert box.exec_run("id", user="app").output == b"uid=1000(app) gid=1000(app) groups=77(extra),1000(app)\n"
    assert box.exec_run("id", user="app:extra").output.startswith(b"uid=1000(app) gid=77(extra)")
    assert box.exec_run("id", user="1234:5678").output == b"uid=1234 gid=5678 groups=5678\n"
    shown = box.exec_run(["sh", "-c", "echo $A-$B; pwd"], environment={"A": "1", "B": "two words"}, workdir="/etc")
    assert shown.output == b"1-two words\n/etc\n"
    assert box.exec_run(["sh", "-c", "echo $TERM"]).output == b"\n"
    assert box.exec_run(["sh", "-c", "echo $TERM; tty"], tty=True).output.split() == [b"xterm", b"/dev/pts/0"]
    assert box.exec_run(["sh", "-c", "echo $TERM"], tty=True, environment=["TERM=vt100"]).output == b"vt100\r\n"
    plain, privileged = (
        box.exec_run("grep CapEff /proc/self/status", privileged=choice).output.split()[1] for choice in (False, True)
    )
    assert int(privileged, 16).bit_count() > int(plain, 16).bit_count()
    assert b"".join(box.exec_run(["sh", "-c", "echo 1; sleep 0.1; echo 2"], stream=True).output) == b"1\n2\n"


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ({"cmd": ["nosuch"]}, 127, b'exec: "nosuch": executable file not found in $PATH'),
        ({"cmd": ["/etc/passwd"]}, 126, b'exec: "/etc/passwd": permission denied'),
        ({"cmd": ["pwd"], "workdir": "/nowhere"}, 127, b'chdir to cwd ("/nowhere") set in config.json failed'),
        ({"cmd": ["pwd"], "workdir": "relative"}, 126, b"Cwd must be an absolute path"),
        ({"cmd": ["id"], "user": "ghost"}, 126, b"unable to find user ghost: no matching entries in passwd file"),
        ({"cmd": ["id"], "user": "0:ghosts"}, 126, b"unable to find group ghosts: no matching entries in group file"),
    ],
)
def test_what_cannot_run(box: Container, options: dict[str, Any], code: int, message: bytes) -> None:
    done = box.exec_run(**options)
    assert done.exit_code == code
    assert message in done.output


def test_every_field_of_an_exec(py: DockerClient, box: Container) -> None:
    options = {"user": "app", "privileged": True, "stdin": True, "stderr": False, "tty": False}
    made = py.api.exec_create(box.id, ["sh", "-c", "cat; exit 5"], detach_keys="ctrl-a,d", **options)["Id"]
    expected = {
        "ID": made,
        "Running": False,
        "ExitCode": None,
        "ProcessConfig": {
            "tty": False,
            "entrypoint": "sh",
            "arguments": ["-c", "cat; exit 5"],
            "privileged": True,
            "user": "app",
        },
        "OpenStdin": True,
        "OpenStderr": False,
        "OpenStdout": True,
        "CanRemove": False,
        "ContainerID": box.id,
        "DetachKeys": "AWQ=",
        "Pid": 0,
    }
    assert py.api.exec_inspect(made) == expected
    talk = py.api.exec_start(made, socket=True)
    eventually(lambda: py.api.exec_inspect(made)["Pid"] > 0)
    running = py.api.exec_inspect(made)
    assert running | {"Pid": 0} == expected | {"Running": True}
    with pytest.raises(APIError, match="is already running"):
        py.api.exec_start(made)
    talk._sock.shutdown(socket.SHUT_WR)
    assert list(frames_iter(talk, tty=False)) == []
    assert py.api.exec_inspect(made) == expected | {"ExitCode": 5, "Pid": running["Pid"]}
    with pytest.raises(APIError, match="has already run"):
        py.api.exec_start(made)
    with pytest.raises(NotFound, match="No such exec instance: nope"):
        py.api.exec_inspect("nope")


def test_size_of_an_execs_terminal(py: DockerClient, box: Container) -> None:
    made = py.api.exec_create(box.id, ["sh", "-c", "echo up; read x; stty size"], stdin=True, tty=True)["Id"]
    talk = py.api.exec_start(made, tty=True, socket=True)
    assert talk._sock.recv(100).startswith(b"up")
    py.api.exec_resize(made, height=33, width=99)
    talk._sock.sendall(b"\r")
    assert b"33 99" in b"".join(payload for _, payload in frames_iter(talk, tty=True))
    with pytest.raises(APIError, match="is not running"):
        py.api.exec_resize(made, height=33, width=99)


def test_the_end_is_told_while_the_client_reads_nothing(py: DockerClient, box: Container) -> None:
    made = py.api.exec_create(box.id, ["sh", "-c", "head -c 1000000 /dev/zero; exit 4"])["Id"]
    talk = py.api.exec_start(made, socket=True)
    eventually(lambda: py.api.exec_inspect(made)["ExitCode"] == 4)
    assert sum(len(payload) for _, payload in frames_iter(talk, tty=False)) == 1_000_000


def test_events_of_an_exec(engine: Client, py: DockerClient, box: Container) -> None:
    since = int(time.time())
    box.exec_run("true")
    made = py.api.exec_create(box.id, ["cat"], stdin=True, tty=True, detach_keys="x,y")["Id"]
    talk = py.api.exec_start(made, tty=True, socket=True)
    talk._sock.sendall(b"some paste\rwith xy inside\r")
    for _ in frames_iter(talk, tty=True):
        continue  # to the end, which the keys have brought
    assert py.api.exec_inspect(made)["Running"]
    events = list(py.events(since=since, until=int(time.time()) + 1, filters={"container": box.id}, decode=True))
    told = [event for event in events if event["Action"].startswith("exec")][-6:]
    assert [event["Action"] for event in told] == [
        "exec_create: true ",
        "exec_start: true ",
        "exec_die",
        "exec_create: cat ",
        "exec_start: cat ",
        "exec_detach",
    ]
    names = {"image": engine.image, "name": box.name}
    assert told[2]["Actor"]["Attributes"] == names | {
        "execID": told[0]["Actor"]["Attributes"]["execID"],
        "exitCode": "0",
    }
    assert told[5]["Actor"] == {"ID": box.id, "Attributes": names | {"execID": made}}


def test_attach(py: DockerClient, engine: Client) -> None:
    made = py.containers.create(
        engine.image, ["sh", "-c", "echo early; read x; echo $x; echo err >&2"], stdin_open=True, network_mode="none"
    )
    try:
        first = made.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        made.start()
        eventually(lambda: made.logs() == b"early\n")
        second = made.attach(stream=True, logs=True, demux=True)
        time.sleep(0.5)
        first._sock.sendall(b"typed\n")
        assert b"".join(out for out, _ in second if out) == b"early\ntyped\n"
        assert list(frames_iter(first, tty=False)) == [(1, b"early\n"), (1, b"typed\n"), (2, b"err\n")]
        assert made.attach(logs=True, stream=False) == b"early\ntyped\nerr\n"
    finally:
        made.remove(force=True)


def test_copy(box: Container) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        info = tarfile.TarInfo("folder/file")
        info.size, info.mode, info.uid, info.gid, info.mtime = 4, 0o640, 5, 6, 981173106
        archive.addfile(info, io.BytesIO(b"text"))
    assert box.put_archive("/tmp", out.getvalue())
    assert box.exec_run(["stat", "-c", "%a %u:%g %Y", "/tmp/folder/file"]).output == b"640 5:6 981173106\n"
    chunks, stat = box.get_archive("/tmp/folder")
    assert (stat["name"], stat["mode"], stat["linkTarget"]) == ("folder", 1 << 31 | 0o755, "")
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        assert archive.getnames() == ["folder", "folder/file"]
        assert archive.extractfile("folder/file").read() == b"text"  # type: ignore[union-attr]
    with pytest.raises(NotFound, match="Could not find the file /nope in container"):
        box.get_archive("/nope")
    with pytest.raises(NotFound, match="Could not find the file /nope in container"):
        box.put_archive("/nope", out.getvalue())
    with pytest.raises(APIError, match="invalid tar archive"):
        box.put_archive("/tmp", b"no tar at all")
    assert {"Path": "/tmp/folder/file", "Kind": 1} in box.diff()
    with tarfile.open(fileobj=io.BytesIO(b"".join(box.export()))) as archive:
        assert archive.getmember("tmp/folder/file").uid == 5


def test_commit(py: DockerClient, engine: Client, box: Container) -> None:
    name = engine.name()
    box.exec_run("touch /mark")
    image = box.commit(
        name,
        "v1",
        message="why",
        author="who",
        pause=False,
        changes=["ENV A=1", 'CMD ["ls", "/mark"]'],
        conf={"User": "0"},
    )
    try:
        assert image.tags == [f"{name}:v1"]
        assert (image.attrs["Author"], image.attrs["Comment"]) == ("who", "why")
        assert (image.attrs["Config"]["User"], image.attrs["Config"]["Cmd"]) == ("0", ["ls", "/mark"])
        assert "A=1" in image.attrs["Config"]["Env"]
        assert py.containers.run(image, remove=True, network_mode="none") == b"/mark\n"
    finally:
        py.images.remove(image.id, force=True)


def test_the_oldest_version(engine: Client, box: Container) -> None:
    old = engine.api(version="1.24")
    made = old.api.exec_create(box.id, ["cat"], stdin=True)["Id"]
    talk = old.api.exec_start(made, socket=True)
    talk._sock.sendall(b"hi")
    talk._sock.shutdown(socket.SHUT_WR)
    assert list(frames_iter(talk, tty=False)) == [(1, b"hi")]
    old.close()

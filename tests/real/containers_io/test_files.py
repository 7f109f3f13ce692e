"""Files into and out of real containers: volumes, read-only ones, hostile links, special files, export, commit."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from harness import Client

pytestmark = pytest.mark.real


@pytest.fixture
def run(engine: Client) -> Iterator[Callable[..., str]]:
    """Starts containers that go with the test; `running=False` only creates them."""
    names: list[str] = []

    def start(*options: str, script: str = "sleep 600", running: bool = True) -> str:
        name = engine.name()
        names.append(name)
        verb = ["run", "-d"] if running else ["create"]
        engine.docker(*verb, "--name", name, "--network", "none", *options, engine.image, "sh", "-c", script)
        return name

    yield start
    for name in names:
        engine.docker("rm", "-fv", name, check=False)


def tar_of(*members: tuple[str, bytes | str]) -> bytes:
    """Files with bytes, links with text."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def put(engine: Client, name: str, path: str, data: bytes, query: str = "") -> tuple[int, str]:
    headers = {"Content-Type": "application/x-tar"}
    answer = engine.http("PUT", f"/containers/{name}/archive?path={quote(path)}{query}", data, headers)
    return answer.status, answer.body.decode()


def get(engine: Client, name: str, path: str) -> tarfile.TarFile:
    answer = engine.http("GET", f"/containers/{name}/archive?path={quote(path)}")
    assert answer.status == 200, answer.body
    return tarfile.TarFile(fileobj=io.BytesIO(answer.body))


def test_path_stat(engine: Client, run: Callable[..., str]) -> None:
    name = run(script="mkdir /d; echo x > /d/f; ln -s ../../d/f /d/l; sleep 600")
    engine.docker("exec", name, "sh", "-c", "until [ -e /d/l ]; do sleep 0.1; done")

    def stat(path: str) -> dict[str, object]:
        headers = engine.http("HEAD", f"/containers/{name}/archive?path={path}").headers
        found = {key.lower(): value for key, value in headers.items()}["x-docker-container-path-stat"]
        return json.loads(base64.b64decode(found))

    assert stat("/d") | {"mtime": "", "size": 0} == {
        "name": "d", "size": 0, "mode": 1 << 31 | 0o755, "mtime": "", "linkTarget": "",
    }  # fmt: skip
    assert stat("/d/l")["linkTarget"] == "/d/f"
    assert stat("/tmp")["mode"] == 1 << 31 | 1 << 20 | 0o777
    assert stat("/dev/null")["mode"] == 1 << 26 | 1 << 21 | 0o666


@pytest.mark.parametrize("running", [True, False])
def test_volumes_and_binds_are_part_of_it(
    engine: Client, run: Callable[..., str], tmp_path: Path, running: bool
) -> None:
    (tmp_path / "given").write_text("from the host")
    name = run("-v", f"{tmp_path}:/b", "-v", "/vol", "-v", f"{tmp_path}:/ro:ro", running=running)
    assert get(engine, name, "/b/given").extractfile("given").read() == b"from the host"  # type: ignore[union-attr]
    assert "b/given" in get(engine, name, "/b").getnames()
    assert put(engine, name, "/b", tar_of(("put", b"in"))) == (200, "")
    assert (tmp_path / "put").read_bytes() == b"in"
    assert put(engine, name, "/vol", tar_of(("kept", b"v"))) == (200, "")
    status, message = put(engine, name, "/ro", tar_of(("x", b"")))
    assert (status, json.loads(message)["message"]) == (403, "mounted volume is marked read-only")
    if not running:
        engine.docker("start", name)
    assert engine.docker("exec", name, "cat", "/vol/kept").stdout == "v"


@pytest.mark.parametrize("running", [True, False])
def test_read_only_root(engine: Client, run: Callable[..., str], running: bool) -> None:
    name = run("--read-only", running=running)
    status, message = put(engine, name, "/tmp", tar_of(("x", b"")))
    assert (status, json.loads(message)["message"]) == (403, "container rootfs is marked read-only")


def test_links_do_not_lead_to_the_host(engine: Client, run: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the host")
    script = f"mkdir -p /d; ln -s {tmp_path} /d/abs; ln -s ../../../../../../..{tmp_path} /d/rel; sleep 600"
    name = run(script=script)
    engine.docker("exec", name, "sh", "-c", "until [ -L /d/rel ]; do sleep 0.1; done")
    for link in ("abs", "rel"):
        answer = engine.http("GET", f"/containers/{name}/archive?path=/d/{link}/secret")
        assert (answer.status, answer.message) == (404, f"Could not find the file /d/{link}/secret in container {name}")
        assert put(engine, name, f"/d/{link}", tar_of(("planted", b"x")))[0] == 404
    for link in ("abs", "rel"):
        assert put(engine, name, "/d", tar_of((f"{link}/planted", b"x"))) == (200, "")
        assert engine.docker("exec", name, "cat", f"{tmp_path}/planted").stdout == "x"
    assert put(engine, name, "/d", tar_of(("../../planted", b"x")))[0] == 400
    assert os.listdir(tmp_path) == ["secret"]


def test_a_container_that_swaps_folders_for_links_meanwhile(
    engine: Client, run: Callable[..., str], tmp_path: Path
) -> None:
    script = (
        f"mkdir -p /d/a /d/real {tmp_path}; "
        f"while :; do mv /d/a /d/b 2>/dev/null; ln -s {tmp_path} /d/a; rm /d/a; mv /d/b /d/a; done"
    )
    name = run(script=script)
    for _ in range(30):
        put(engine, name, "/d", tar_of(("a/planted", b"x"), ("a/sub/planted", b"x")))
        engine.http("GET", f"/containers/{name}/archive?path=/d/a/")
    assert not list(tmp_path.iterdir())


def test_special_files_both_ways(engine: Client, run: Callable[..., str], tmp_path: Path) -> None:
    script = (
        "mkdir /s; cd /s; echo x > f; ln f hard; ln -s f soft; mkfifo pipe; mknod dev c 1 3;"
        "truncate -s 100M sparse; echo end >> sparse; chown 3:4 f; chmod 4755 f; touch -d '2001-02-03 04:05:06' f; sleep 600"
    )
    name = run(script=script)
    engine.docker(
        "exec", name, "sh", "-c", "until [ -u /s/f ] && [ $(stat -c %Y /s/f) -lt 999999999 ]; do sleep 0.1; done"
    )
    tar = subprocess.run(
        ["docker", "cp", f"{name}:/s", "-"], env=engine.env(), capture_output=True, check=True, timeout=60
    ).stdout
    other = run()
    assert put(engine, other, "/tmp", tar) == (200, "")
    shown = (
        "cd /tmp/s; stat -c '%n %F %a %u %g %Y %t' dev f hard pipe soft; stat -c %h f; readlink soft; tail -c 4 sparse"
    )
    there = engine.docker("exec", other, "sh", "-c", shown).stdout
    assert there == engine.docker("exec", name, "sh", "-c", shown.replace("/tmp/s", "/s")).stdout
    assert int(engine.docker("exec", other, "stat", "-c", "%b", "/tmp/s/sparse").stdout) * 512 < 10 << 20


def test_nanoseconds_and_attributes_of_users(engine: Client, run: Callable[..., str], tmp_path: Path) -> None:
    """What the docker CLI leaves out when it sends, tar programs do not."""
    (tmp_path / "file").write_text("x")
    os.setxattr(tmp_path / "file", "user.note", b"\x00\xffbytes")
    os.utime(tmp_path / "file", ns=(1_000000001, 981173106_123456789))
    command = ["tar", "-C", tmp_path, "--format=pax", "--xattrs", "--xattrs-include=*", "-cf", "-", "file"]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    name = run()
    assert put(engine, name, "/tmp", data) == (200, "")
    assert engine.docker("exec", name, "stat", "-c", "%y", "/tmp/file").stdout.startswith(
        "2001-02-03 04:05:06.123456789"
    )
    member = get(engine, name, "/tmp/file").getmembers()[0]
    assert member.pax_headers["mtime"] == "981173106.123456789"
    assert member.pax_headers["SCHILY.xattr.user.note"].encode("utf-8", "surrogateescape") == b"\x00\xffbytes"
    engine.docker("cp", f"{name}:/tmp/file", tmp_path / "back")
    assert (tmp_path / "back").stat().st_mtime_ns == 981173106_123456789


def test_copying_over_a_mounted_file(engine: Client, run: Callable[..., str]) -> None:
    name = run()
    assert put(engine, name, "/etc", tar_of(("hostname", b"renamed\n"))) == (200, "")
    assert engine.docker("exec", name, "cat", "/etc/hostname").stdout == "renamed\n"


def test_kernel_file_systems_stay_out_of_a_copy_of_everything(engine: Client, run: Callable[..., str]) -> None:
    name = run("--tmpfs", "/scratch", script="echo t > /scratch/t; sleep 600")
    engine.docker("exec", name, "sh", "-c", "until [ -s /scratch/t ]; do sleep 0.1; done")
    names = get(engine, name, "/").getnames()
    assert "/scratch/t" in names
    assert "/proc" in names
    assert not [path for path in names if path.startswith(("/proc/", "/sys/", "/dev/"))]
    assert get(engine, name, "/proc/1/status").getmembers()[0].size > 0


def test_owner_of_the_container_user(engine: Client, run: Callable[..., str], tmp_path: Path) -> None:
    name = run("-u", "7:8")
    (tmp_path / "f").write_text("x")
    engine.docker("cp", "-a", tmp_path / "f", f"{name}:/tmp/archive")
    assert engine.docker("exec", name, "stat", "-c", "%u:%g", "/tmp/archive").stdout == "7:8\n"


def test_two_hundred_megabytes_arrive(engine: Client, run: Callable[..., str], tmp_path: Path) -> None:
    name = run()
    block = os.urandom(1 << 20)
    with (tmp_path / "big").open("wb") as file:
        for number in range(200):
            file.write(number.to_bytes(8, "big") + block[8:])
    engine.docker("cp", tmp_path / "big", f"{name}:/big", timeout=120)
    engine.docker("cp", f"{name}:/big", tmp_path / "back", timeout=120)
    subprocess.run(["cmp", tmp_path / "big", tmp_path / "back"], check=True)


def test_a_client_that_leaves_in_the_middle(engine: Client, run: Callable[..., str]) -> None:
    name = run("-v", "/vol", script="truncate -s 2G /vol/huge", running=False)
    engine.docker("start", "-a", name)
    before = engine.census()
    for _ in range(5):
        with engine.connect() as connection:
            connection.sendall(f"GET /containers/{name}/archive?path=/vol HTTP/1.1\r\nHost: d\r\n\r\n".encode())
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        with engine.connect() as connection:
            connection.sendall(
                f"PUT /containers/{name}/archive?path=/vol HTTP/1.1\r\nHost: d\r\nContent-Length: 9999999\r\n"
                "Content-Type: application/x-tar\r\n\r\n".encode()
                + tar_of(("f", bytes(100_000)))[:50_000]
            )
    engine.docker("rm", "-v", name)
    assert engine.census()["mounts"] <= before["mounts"]


def test_export_is_the_root_file_system(engine: Client, run: Callable[..., str]) -> None:
    name = run("-v", "/vol", script="echo mine > /made; echo v > /vol/v; sleep 600")
    engine.docker("exec", name, "sh", "-c", "until [ -s /vol/v ]; do sleep 0.1; done")
    done = subprocess.run(["docker", "export", name], env=engine.env(), capture_output=True, check=True, timeout=60)
    with tarfile.TarFile(fileobj=io.BytesIO(done.stdout)) as archive:
        names = archive.getnames()
        assert archive.extractfile("made").read() == b"mine\n"  # type: ignore[union-attr]
    assert "bin/busybox" in names
    assert "vol" in names
    assert "vol/v" not in names
    assert not [path for path in names if path.startswith(("/", ".")) and path != ".dockerenv"]


def test_commit(engine: Client, run: Callable[..., str]) -> None:
    name = run("-e", "OLD=1", script="echo mine > /made; sleep 600")
    engine.docker("exec", name, "sh", "-c", "until [ -s /made ]; do sleep 0.1; done")
    tag = f"{name}:v1"
    try:
        changes = ["-c", "ENV NEW='two words'", "-c", 'CMD ["cat", "/made"]', "-c", "LABEL a=b"]
        image = engine.docker("commit", "-m", "why", "-a", "who", *changes, name, tag).stdout.strip()
        assert engine.docker("run", "--rm", "--network", "none", tag).stdout == "mine\n"
        shown = json.loads(engine.docker("image", "inspect", tag).stdout)[0]
        assert shown["Id"] == image
        assert (shown["Comment"], shown["Author"], shown["Config"]["Labels"]) == ("why", "who", {"a": "b"})
        assert {"OLD=1", "NEW=two words"} <= set(shown["Config"]["Env"])
        assert engine.inspect(name)["State"]["Status"] == "running"
        history = engine.docker("history", "--format", "{{.Comment}}", tag).stdout.splitlines()
        assert history[0] == "why"
    finally:
        engine.docker("rmi", "-f", tag, check=False)


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ("container=nope", 404, "No such container: nope"),
        ("", 400, 'invalid name or ID supplied: ""'),
        ("container={name}&repo=Bad", 400, "invalid reference format: repository name (library/Bad) must be lowercase"),
        ("container={name}&changes=RUN+x", 400, "RUN is not a valid change command"),
    ],
)
def test_bad_commits(engine: Client, run: Callable[..., str], query: str, status: int, message: str) -> None:
    answer = engine.http("POST", f"/commit?{query.format(name=run(running=False))}")
    assert (answer.status, answer.message) == (status, message)

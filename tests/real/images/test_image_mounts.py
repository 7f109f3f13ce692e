"""`--mount type=image`: an image's files, read-only, in a container of another image."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Client, Engine

pytestmark = pytest.mark.real


def files() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in (("data/greeting", b"hello\n"), ("data/deep/er", b"deep\n")):
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
        for name, target in (("out", "/etc"), ("up", "../../../../../../etc"), ("inner", "data/deep")):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
    return out.getvalue()


def load(engine: Client) -> str:
    name = f"{engine.name('files')}:1"
    engine.docker("import", "-", name, input=files())
    return name


@pytest.fixture
def image(engine: Client) -> Iterator[str]:
    name = load(engine)
    yield name
    engine.docker("rmi", "-f", name, check=False)


def create(engine: Client, image: str, *command: str, subpath: str | None = None, **mount: Any) -> Any:
    options = {} if subpath is None else {"ImageOptions": {"Subpath": subpath}}
    body = {
        "Image": engine.image,
        "Cmd": command or ["sleep", "1000"],
        "HostConfig": {"Mounts": [{"Type": "image", "Source": image, "Target": "/x", **options, **mount}]},
    }
    return engine.http("POST", "/v1.48/containers/create", body)


def made(engine: Client, image: str, *command: str, subpath: str | None = None) -> str:
    reply = create(engine, image, *command, subpath=subpath)
    assert reply.status == 201, reply.body
    return str(reply.json()["Id"])


def ran(engine: Client, image: str, script: str, subpath: str | None = None) -> tuple[int, str]:
    container = made(engine, image, "sh", "-c", script, subpath=subpath)
    try:
        done = engine.docker("start", "-a", container, check=False)
        return done.returncode, done.stdout + done.stderr
    finally:
        engine.docker("rm", "-f", container)


def test_the_files_are_there_and_read_only(engine: Client, image: str) -> None:
    code, said = ran(engine, image, "ls /x; cat /x/data/greeting; touch /x/new || rm /x/data/greeting")
    # Nothing but the image's own: no mount points that containers need.
    assert said.split()[:5] == ["data", "inner", "out", "up", "hello"]
    assert code != 0 and said.count("Read-only file system") == 2


def test_a_subpath(engine: Client, image: str) -> None:
    assert ran(engine, image, "cat /x/er", "data/deep") == (0, "deep\n")
    assert ran(engine, image, "cat /x", "data/greeting") == (0, "hello\n")
    assert ran(engine, image, "cat /x/er", "inner") == (0, "deep\n")


def test_a_subpath_does_not_lead_out(engine: Client, image: str) -> None:
    # Links are followed within the image, which has no /etc.
    for link in ("out", "up", "missing"):
        code, said = ran(engine, image, "cat /x/passwd", link)
        assert code != 0 and f"cannot access path {link}" in said, said
    for path in ("/etc", "../etc", "data/../../etc"):
        reply = create(engine, image, subpath=path)
        assert (reply.status, "subpath must be a relative path" in reply.message) == (400, True)


def test_refusals(engine: Client, image: str) -> None:
    reply = create(engine, "no-such-image-of-ours:1")
    assert reply.status == 400 and "No such image: no-such-image-of-ours:1" in reply.message
    reply = create(engine, image, BindOptions={"Propagation": "rslave"})
    assert reply.status == 400 and "field BindOptions must not be specified" in reply.message
    reply = create(engine, "")
    assert reply.status == 400 and "field Source must not be empty" in reply.message


def test_inspect_and_the_image_is_in_use(engine: Client, image: str) -> None:
    container = made(engine, image, subpath="data")
    try:
        [mount] = engine.inspect(container)["Mounts"]
        assert (mount["Type"], mount["Name"], mount["Destination"], mount["RW"]) == ("image", image, "/x", False)
        [asked] = engine.inspect(container)["HostConfig"]["Mounts"]
        assert (asked["Type"], asked["Source"], asked["ImageOptions"]) == ("image", image, {"Subpath": "data"})
        refused = engine.docker("rmi", image, check=False)
        assert refused.returncode == 1 and f"container {container[:12]} is using its referenced image" in refused.stderr
        engine.docker("start", container)
        identity = engine.docker("image", "inspect", "-f", "{{.Id}}", image).stdout.strip()
        refused = engine.docker("rmi", "-f", identity, check=False)
        assert f"image is being used by running container {container[:12]}" in refused.stderr
        # Its own file system only is counted and compared.
        assert engine.docker("diff", container).stdout.split() == ["A", "/x"]
    finally:
        engine.docker("rm", "-f", container)
    engine.docker("rmi", image)


def test_a_forced_removal_leaves_the_files_to_the_container(engine: Client, image: str) -> None:
    container = made(engine, image, "cat", "/x/data/greeting")
    engine.docker("rmi", "-f", image)
    assert engine.docker("start", "-a", container).stdout == "hello\n"
    engine.docker("rm", container)


def test_it_survives_the_daemon_and_leaves_nothing(own_engine: Callable[..., Engine]) -> None:
    engine = own_engine()
    image = load(engine)
    container = made(engine, image)
    engine.docker("start", container)
    engine.kill9()
    engine.start()
    assert engine.docker("exec", container, "cat", "/x/data/greeting").stdout == "hello\n"
    engine.docker("restart", "-t", "0", container)
    assert engine.docker("exec", container, "cat", "/x/data/greeting").stdout == "hello\n"
    engine.docker("rm", "-f", container)
    engine.docker("rmi", image)
    writable = next(Path(engine.root, "data").rglob("storage_overlay2/writable"))
    assert [*writable.iterdir()] == []
    assert f"{writable}" not in Path("/proc/self/mounts").read_text()

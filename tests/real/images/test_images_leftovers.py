"""Nothing stays behind: layers without an image, uploads whose client left, a killed daemon."""

from __future__ import annotations

import io
import os
import socket
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Engine

pytestmark = pytest.mark.real

OwnEngine = Callable[..., Engine]


def layers(engine: Engine) -> list[str]:
    return os.listdir(engine.root / "data/storage_overlay2/layers")


def spooled(engine: Engine) -> list[str]:
    folders = (engine.root / "data/storage_overlay2/tmp", engine.root / "data/images")
    return [name for folder in folders if folder.exists() for name in os.listdir(folder)]


def eventually(check: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end
        time.sleep(0.05)


def big_tar(size: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("big")
        info.size = size
        tar.addfile(info, io.BytesIO(os.urandom(size)))
    return out.getvalue()


def half_sent(engine: Engine, path: str, content: bytes) -> socket.socket:
    """A request whose body is cut in the middle."""
    connection = engine.connect()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    connection.sendall(head.encode() + content[: len(content) // 2])
    return connection


def test_layers_go_with_their_last_user(own_engine: OwnEngine) -> None:
    engine = own_engine()
    (busybox,) = layers(engine)
    engine.docker("run", "--name", "cc", "--network", "none", "busybox", "touch", "/made")
    engine.docker("commit", "cc", "made")
    engine.docker("rm", "cc")
    assert len(layers(engine)) == 2
    engine.docker("rmi", "made")
    eventually(lambda: layers(engine) == [busybox])
    engine.docker("create", "--name", "cc", "--network", "none", "busybox")
    engine.docker("rmi", "-f", "busybox")
    assert layers(engine) == [busybox]
    engine.docker("rm", "cc")
    eventually(lambda: layers(engine) == [] and spooled(engine) == [])


@pytest.mark.parametrize("path", ["/images/load", "/images/create?fromSrc=-&repo=half"])
def test_a_client_that_leaves_in_the_middle(own_engine: OwnEngine, path: str) -> None:
    engine = own_engine(image=False)
    connection = half_sent(engine, path, big_tar(20 << 20))
    time.sleep(0.3)
    connection.close()
    eventually(lambda: spooled(engine) == [] and layers(engine) == [])
    assert engine.docker("images", "-aq").stdout == ""
    assert engine.docker("version").returncode == 0


def test_a_client_that_leaves_while_a_layer_is_unpacked(own_engine: OwnEngine, tmp_path: Path) -> None:
    engine = own_engine(image=False)
    many = io.BytesIO()
    with tarfile.open(fileobj=many, mode="w") as tar:
        for number in range(20_000):
            tar.addfile(tarfile.TarInfo(f"f{number}"))
    engine.docker("import", "-", "many", input=many.getvalue())
    saved = engine.http("GET", "/images/many/get").body
    engine.docker("rmi", "many")
    eventually(lambda: layers(engine) == [])
    connection = engine.connect()
    head = f"POST /images/load HTTP/1.1\r\nHost: x\r\nContent-Length: {len(saved)}\r\n\r\n".encode()
    connection.sendall(head + saved)
    eventually(lambda: any(not name.startswith("gone") for name in spooled(engine)))
    connection.close()
    eventually(lambda: spooled(engine) == [], 20)
    # It may have been too late to stop: then all of it is there, else nothing.
    images = engine.docker("images", "-aq").stdout.split()
    assert len(layers(engine)) == len(images)


def test_a_kill_in_the_middle_of_an_upload(own_engine: OwnEngine) -> None:
    engine = own_engine()
    engine.docker("tag", "busybox", "kept")
    kept = layers(engine)
    connection = half_sent(engine, "/images/create?fromSrc=-&repo=half", big_tar(20 << 20))
    eventually(lambda: spooled(engine) != [])
    engine.kill9()
    connection.close()
    engine.start()
    eventually(lambda: spooled(engine) == [])
    assert layers(engine) == kept
    assert sorted(engine.docker("images", "--format", "{{.Repository}}").stdout.split()) == ["busybox", "kept"]
    assert engine.docker("run", "--rm", "--network", "none", "kept", "echo", "ok").stdout == "ok\n"


def test_layers_that_no_image_knows_go_at_the_start(own_engine: OwnEngine) -> None:
    engine = own_engine()
    kept = layers(engine)
    engine.docker("import", "-", "other", input=big_tar(1000))
    engine.stop()
    database = engine.root / "data"
    (found,) = [path for path in database.glob("**/*.db") if path.is_file()]
    import sqlite3

    with sqlite3.connect(found) as connection:
        tables = [row[0] for row in connection.execute("select name from sqlite_master where type = 'table'")]
        changed = 0
        for table in tables:
            columns = [row[1] for row in connection.execute(f'pragma table_info("{table}")')]
            for column in columns:
                changed += connection.execute(
                    f'delete from "{table}" where cast("{column}" as text) like \'%other:latest%\''
                ).rowcount
    assert changed
    connection.close()
    engine.start()
    eventually(lambda: layers(engine) == kept)


def test_a_damaged_image_is_reported_and_mended_by_a_load(own_engine: OwnEngine) -> None:
    import shutil

    engine = own_engine()
    saved = engine.http("GET", "/images/busybox/get").body
    engine.stop()
    shutil.rmtree(engine.root / "data/storage_overlay2/layers")
    engine.start()
    eventually(lambda: "lacks layers" in engine.log())
    assert engine.docker("images", "-q").stdout
    failed = engine.docker("run", "--rm", "--network", "none", "busybox", "true", check=False)
    assert failed.returncode == 125 and "does not exist" in failed.stderr
    assert engine.http("GET", "/images/busybox/get").status == 404
    engine.docker("load", input=saved)
    assert engine.docker("run", "--rm", "--network", "none", "busybox", "echo", "ok").stdout == "ok\n"

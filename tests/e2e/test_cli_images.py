"""Images: import, load, save, tag, list, history, remove."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Client, External

pytestmark = pytest.mark.real


@pytest.fixture
def tag(engine: Client) -> Iterator[Callable[[], str]]:
    """Makes up image names; what has one of them is removed in the end."""
    made: list[str] = []

    def make() -> str:
        made.append(f"{engine.name('image')}:t")
        return made[-1]

    yield make
    engine.docker("rmi", "-f", *made, check=False)


def small_tar(path: Path, **files: str) -> Path:
    """A tar with text files, each name's underscore standing for a slash."""
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name.replace("_", "/"))
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content.encode()))
    return path


def listed(engine: Client, *options: str) -> list[str]:
    return engine.docker("images", "--format", "{{.Repository}}:{{.Tag}}", *options).stdout.split()


def test_import_makes_an_image_that_runs(engine: Client, tag: Callable[[], str], busybox_tar: Path) -> None:
    name = tag()
    changes = ["--change", "ENV COLOUR=blue", "--change", "CMD echo $COLOUR", "--change", "WORKDIR /tmp"]
    image_id = engine.docker("import", *changes, "-m", "made by hand", busybox_tar, name).stdout.strip()
    assert image_id.startswith("sha256:")
    assert name in listed(engine)
    assert engine.docker("run", "--rm", name).stdout == "blue\n"
    shown = json.loads(engine.docker("image", "inspect", name).stdout)[0]
    assert shown["Id"] == image_id
    assert shown["RepoTags"] == [name]
    assert shown["Os"] == "linux"
    assert shown["Config"]["WorkingDir"] == "/tmp"
    assert len(shown["RootFS"]["Layers"]) == 1
    assert shown["Size"] > 500_000


def test_import_from_standard_input(engine: Client, tag: Callable[[], str], tmp_path: Path) -> None:
    name = tag()
    archive = small_tar(tmp_path / "a.tar", etc_motd="hi\n")
    engine.docker("import", "-", name, input=archive.read_bytes())
    assert name in listed(engine)


def test_list_filters_and_formats(engine: Client, tag: Callable[[], str], tmp_path: Path) -> None:
    name = tag()
    engine.docker("import", small_tar(tmp_path / "a.tar", a="1"), name)
    assert listed(engine, name) == [name]
    assert listed(engine, "--filter", f"reference={name.split(':')[0]}*") == [name]
    assert listed(engine, "no-such-image") == []
    header, line = engine.docker("images", name).stdout.splitlines()
    assert header.split()[:3] == ["REPOSITORY", "TAG", "IMAGE"]
    assert line.split()[:2] == name.split(":")


def test_tag_and_untag(engine: Client, tag: Callable[[], str], tmp_path: Path) -> None:
    first, second = tag(), tag()
    engine.docker("import", small_tar(tmp_path / "a.tar", a="2"), first)
    engine.docker("tag", first, second)
    assert {first, second} <= set(listed(engine))
    assert engine.docker("rmi", first).stdout.splitlines() == [f"Untagged: {first}"]
    last = engine.docker("rmi", second).stdout.splitlines()
    assert last[0] == f"Untagged: {second}"
    assert last[1].startswith("Deleted: sha256:")
    gone = engine.docker("image", "inspect", second, check=False)
    assert gone.returncode == 1
    assert f"No such image: {second}" in gone.stderr


def test_save_and_load_give_the_same_image(engine: Client, tag: Callable[[], str], tmp_path: Path) -> None:
    name, saved = tag(), tmp_path / "saved.tar"
    engine.docker("tag", "busybox", name)
    # A second layer, by commit, so that whiteouts and order count.
    container = engine.name()
    script = "rm /bin/vi; mkdir /made; echo text > /made/file; ln -s file /made/link"
    engine.docker("run", "--name", container, name, "sh", "-c", script)
    image_id = engine.docker("commit", container, name).stdout.strip()
    engine.docker("rm", container)
    engine.docker("save", "-o", saved, name)
    with tarfile.open(saved) as archive:
        names = archive.getnames()
        assert "manifest.json" in names
        manifest = json.load(archive.extractfile("manifest.json") or io.BytesIO())
        assert manifest[0]["RepoTags"] == [name]
        assert len(manifest[0]["Layers"]) == 2
    engine.docker("rmi", name)
    assert engine.docker("load", "-i", saved).stdout.strip() == f"Loaded image: {name}"
    assert json.loads(engine.docker("image", "inspect", name).stdout)[0]["Id"] == image_id
    done = engine.docker("run", "--rm", name, "sh", "-c", "cat /made/link; ls /bin/vi", check=False)
    assert done.stdout == "text\n"
    assert "No such file" in done.stderr


def test_load_from_standard_input(engine: Client, tag: Callable[[], str], tmp_path: Path) -> None:
    name, saved = tag(), tmp_path / "saved.tar"
    engine.docker("import", small_tar(tmp_path / "a.tar", a="3"), name)
    engine.docker("save", "-o", saved, name)
    engine.docker("rmi", name)
    assert engine.docker("load", "-q", input=saved.read_bytes()).stdout.strip() == f"Loaded image: {name}"


def test_history(engine: Client, tag: Callable[[], str], tmp_path: Path) -> None:
    name = tag()
    engine.docker("import", "-m", "the beginning", small_tar(tmp_path / "a.tar", a="4"), name)
    lines = engine.docker("history", "--format", "{{.Comment}}", name).stdout.splitlines()
    assert lines == ["the beginning"]


def test_image_in_use_is_kept(engine: Client, tag: Callable[[], str]) -> None:
    name, container = tag(), engine.name()
    engine.docker("tag", "busybox", name)
    engine.docker("run", "--name", container, name, "touch", "/x")
    engine.docker("commit", container, name)
    engine.docker("rm", container)
    cid = engine.docker("create", "--name", container, name).stdout.strip()
    try:
        done = engine.docker("rmi", name, check=False)
        assert done.returncode == 1
        assert f'unable to remove repository reference "{name}" (must force)' in done.stderr
        assert f"container {cid[:12]} is using its referenced image" in done.stderr
        assert name in listed(engine)
    finally:
        engine.docker("rm", container)


def test_load_of_rubbish_is_refused(engine: Client, tmp_path: Path) -> None:
    before = engine.census()["images"]
    rubbish = tmp_path / "rubbish.tar"
    rubbish.write_bytes(b"this is no archive" * 1000)
    done = engine.docker("load", "-i", rubbish, check=False)
    assert done.returncode == 1
    assert done.stderr
    if not isinstance(engine, External):  # others may use that one
        assert engine.census()["images"] == before
